//! Objects and snapshots over TLS: how fast they come, compared with the limits of the hardware.
//!
//! ```text
//!   serving node 1, or 1..4 (a process each) <--- gRPC over mutual TLS on loopback ---> fetching node (a process)
//! ```

mod killed;
mod limit;
mod network;
pub(crate) mod node;
mod record;

use super::{chain_cache::ChainCache, measurement::Measurement, percentile::percentile, session::Session};
use limit::Limit;
use network::Network;
use node::{SMALL_BYTES, Source, Work};
use record::ObjectRecord;
use soma_p2p_cli::CliError;

pub(super) const MEASUREMENT: Measurement = Measurement { name: "objects", cases, run };

/// Small objects that one call fetches.
const AT_ONCE: u32 = 400_000;

/// Small objects that are fetched one by one.
const ONE_BY_ONE: u32 = 2_000;

/// Peers that each have another part of the objects.
const PEERS: usize = 4;

/// Bytes of a snapshot.
const SNAPSHOT_BYTES: u64 = 2 << 30;

const SMALL: &str = "objects/small/1-peer";
const MISSING: &str = "objects/missing/4-peers";
const SNAPSHOT_1: &str = "objects/snapshot/1-peer";
const SNAPSHOT_4: &str = "objects/snapshot/4-peers";
const KILLED: &str = "objects/snapshot/killed";

fn cases(quick: bool) -> Vec<String> {
    let all = if quick { &[SMALL, MISSING][..] } else { &[SMALL, MISSING, SNAPSHOT_1, SNAPSHOT_4, KILLED] };
    all.iter().map(|case| (*case).to_owned()).collect()
}

fn run(session: &Session, _: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let network = Network::new(session)?;
    let mut records = Vec::new();
    for case in names {
        let record = match case.as_str() {
            SMALL => at_once(&network)?,
            MISSING => one_by_one(&network)?,
            SNAPSHOT_1 => snapshot(&network, case, 1)?,
            SNAPSHOT_4 => snapshot(&network, case, PEERS)?,
            _ => killed::measure(&network, case, SNAPSHOT_BYTES)?,
        };
        session.say(&record.to_string());
        session.record(&record)?;
        records.push(record);
    }
    println!("{}", record::table_of(&records));
    Ok(())
}

/// The median run of several, and the mean limit.
fn median(
    network: &Network<'_>,
    case: &str,
    measure: impl Fn() -> Result<ObjectRecord, CliError>,
    limit: impl Fn() -> Result<Limit, CliError>,
) -> Result<ObjectRecord, CliError> {
    let mut limits = vec![limit()?];
    let mut runs = Vec::new();
    for _ in 0..network.session.args.runs {
        runs.push(measure()?);
        limits.push(limit()?);
    }
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let peak = runs.iter().filter_map(|run| run.peak_rss_mib).max_by(f64::total_cmp);
    let middle = runs.len() / 2;
    let mean = |part: fn(&Limit) -> f64| limits.iter().map(part).sum::<f64>() / limits.len() as f64;
    let limit = Limit { seconds: mean(|limit| limit.seconds), cpu_s: mean(|limit| limit.cpu_s) };
    let record = runs.swap_remove(middle);
    Ok(ObjectRecord { case: case.into(), peak_rss_mib: peak, ..record.beside(limit) })
}

fn at_once(network: &Network<'_>) -> Result<ObjectRecord, CliError> {
    let measure = || {
        let source = Source::Small { count: AT_ONCE, first: 0, step: 1 };
        network.fetch(vec![source], Work::AtOnce { count: AT_ONCE })
    };
    let bytes = u64::from(AT_ONCE) * SMALL_BYTES as u64;
    median(network, SMALL, measure, || Limit::measure(SMALL_BYTES, bytes, None))
}

fn one_by_one(network: &Network<'_>) -> Result<ObjectRecord, CliError> {
    let sources = (0..PEERS as u32).map(|first| Source::Small { count: ONE_BY_ONE, first, step: PEERS });
    let record = network.fetch(sources.collect(), Work::OneByOne { count: ONE_BY_ONE })?;
    Ok(ObjectRecord { case: MISSING.into(), ..record })
}

fn snapshot(network: &Network<'_>, case: &str, peers: usize) -> Result<ObjectRecord, CliError> {
    let (directory, manifest) = network.snapshot(SNAPSHOT_BYTES)?;
    let measure = || {
        let sources = (0..peers).map(|_| Source::Snapshots { directory: directory.clone() }).collect();
        let to = network.session.work().join("fetched");
        let record = network.fetch(sources, Work::Snapshot { manifest: manifest.id(), directory: to.clone() });
        soma_p2p_cli::files::remove_dir(&to)?;
        record
    };
    let limit = || Limit::measure(manifest.chunk_bytes as usize, manifest.bytes, Some(network.session.work()));
    median(network, case, measure, limit)
}

/// p50 and p99.
fn latencies(mut all: Vec<f64>) -> Option<(f64, f64)> {
    all.sort_by(f64::total_cmp);
    (!all.is_empty()).then(|| (percentile(&all, 50), percentile(&all, 99)))
}
