//! What one node serves to eight that fetch at the same time: how much, with how much memory, and how evenly.
//!
//! The fetching nodes trust what a quorum has certified (`verification = "certified"`), as checking every signature
//! eight times over would be most of what is measured; they hash, order and write everything all the same, on the same
//! cores as the serving node. So what is told is what the machine gets done, and `serving CPU` what of it serving was.

use super::{
    chain::ChainKey,
    chain_cache::ChainCache,
    child::{BenchNode, Used},
    measurement::Measurement,
    node_io::{Event, Role, Setup},
    session::Session,
    sync,
};
use serde::Serialize;
use soma_p2p::Verification;
use soma_p2p_cli::{CliError, table};
use soma_testkit::BlockKind;
use std::time::{Duration, Instant};

pub(super) const MEASUREMENT: Measurement =
    Measurement { name: "serving", cases: |quick| kinds(quick).iter().map(|kind| name(*kind)).collect(), run };

/// Nodes that fetch.
const PEERS: usize = 8;

fn kinds(quick: bool) -> &'static [BlockKind] {
    if quick { &[BlockKind::S] } else { &BlockKind::ALL }
}

fn name(kind: BlockKind) -> String {
    format!("serving/{kind}/{PEERS}-peers")
}

/// One node that served several.
#[derive(Clone, Debug, Serialize)]
struct Record {
    case: String,
    kind: String,
    /// Fetching nodes.
    peers: usize,
    /// Blocks of the chain. Every node fetches each.
    blocks: u64,
    bytes: u64,
    /// From the first node's start until the last one's executor had the last commit.
    wall_s: f64,
    /// All nodes together.
    blocks_per_s: f64,
    mb_per_s: f64,
    /// Of the serving node.
    peak_rss_mib: Option<f64>,
    serving_cpu_s: f64,
    /// Blocks that it serves in a second of CPU.
    blocks_per_cpu_s: f64,
    /// Time of the slowest node over the time of the fastest.
    fairness: f64,
}

fn run(session: &Session, chains: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let mut rows =
        table(["case", "blocks/s", "MB/s", "wall s", "peak MiB", "serving CPU s", "blocks/CPU s", "slowest/fastest"]);
    for kind in kinds(session.args.quick).iter().copied().filter(|kind| names.contains(&name(*kind))) {
        let record = measure(session, chains, kind)?;
        session.record(&record)?;
        rows.add_row([
            record.case.clone(),
            format!("{:.0}", record.blocks_per_s),
            format!("{:.1}", record.mb_per_s),
            format!("{:.2}", record.wall_s),
            record.peak_rss_mib.map_or_else(|| "-".into(), |mib| format!("{mib:.0}")),
            format!("{:.2}", record.serving_cpu_s),
            format!("{:.0}", record.blocks_per_cpu_s),
            format!("{:.2}", record.fairness),
        ]);
    }
    println!("{rows}");
    Ok(())
}

fn measure(session: &Session, chains: &mut ChainCache, kind: BlockKind) -> Result<Record, CliError> {
    let blocks = session.args.blocks.unwrap_or(if session.args.quick { 10_000 } else { 50_000 });
    let key = ChainKey { kind, blocks_per_commit: 4, commits: (blocks / 4).max(2) };
    let mut chain = chains.take(session, key)?;
    let store = chain.stores(1)?[0].clone();
    let mut serving = BenchNode::start(session, "serving", &sync::serving(&chain, store, 0, Verification::Certified))?;
    let seed = serving.ready(session)?;
    let dir = tempfile::tempdir_in(session.work()).map_err(CliError::failed)?;
    let started = Instant::now();
    let mut fetching = Vec::new();
    for number in 0..PEERS {
        let mut config = sync::config(Verification::Certified, vec![seed.clone()]);
        // From that one node only, not from one another.
        (config.connections.max_outbound, config.discovery.target_connections) = (1, 1);
        let setup = Setup {
            key: sync::key(u8::MAX - number as u8),
            config,
            role: Role::Sync { last: chain.commits },
            ..sync::serving(&chain, dir.path().join(number.to_string()), 0, Verification::Certified)
        };
        fetching.push(BenchNode::start(session, &format!("fetching-{number}"), &setup)?);
    }
    let deadline = started + Duration::from_secs(session.args.timeout);
    let mut times = Vec::new();
    for node in &mut fetching {
        times.push(loop {
            if let Event::Synced(synced) = node.next(session, deadline)? {
                break synced.end.seconds;
            }
        });
    }
    let wall_s = started.elapsed().as_secs_f64();
    fetching.iter_mut().for_each(BenchNode::ask_to_stop);
    let Used { cpu_s: serving_cpu_s, peak_rss_mib } = serving.stop(session)?;
    drop(fetching);
    let all = chain.blocks * PEERS as u64;
    let record = Record {
        case: name(kind),
        kind: kind.to_string(),
        peers: PEERS,
        blocks: chain.blocks,
        bytes: chain.bytes,
        wall_s,
        blocks_per_s: all as f64 / wall_s,
        mb_per_s: (chain.bytes * PEERS as u64) as f64 / wall_s / 1e6,
        peak_rss_mib,
        serving_cpu_s,
        blocks_per_cpu_s: all as f64 / serving_cpu_s,
        fairness: times.iter().copied().fold(f64::MIN, f64::max) / times.iter().copied().fold(f64::MAX, f64::min),
    };
    chains.put_back(chain);
    Ok(record)
}
