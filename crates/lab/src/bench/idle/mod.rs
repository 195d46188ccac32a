//! What two synced nodes cost while nothing happens.

mod operated;
mod turns;

use super::{
    chain::ChainKey,
    chain_cache::ChainCache,
    child::BenchNode,
    measurement::Measurement,
    node_io::{Event, Role, Setup},
    session::Session,
    sync,
};
use serde::Serialize;
use soma_p2p::Verification;
use soma_p2p_cli::{CliError, files, table};
use soma_testkit::BlockKind;
use std::time::{Duration, Instant};
use turns::Usage;

pub(super) const MEASUREMENT: Measurement =
    Measurement { name: "idle", cases: |_| vec![PAIR.into(), OPERATED.into()], run };

/// The library alone.
const PAIR: &str = "idle/pair";

/// Two nodes of the command with metrics, and one open page.
const OPERATED: &str = "idle/operated";

const CHAIN: ChainKey = ChainKey { kind: BlockKind::S, blocks_per_commit: 4, commits: 500 };

/// What a sync leaves behind (compaction of the store, caches, memory given back) is not idling.
const SETTLE: Duration = Duration::from_secs(5);

/// A synced pair that idles.
#[derive(Clone, Debug, Serialize)]
struct Record {
    case: &'static str,
    kind: &'static str,
    wall_s: f64,
    /// Of one core, both processes together.
    cpu_percent: f64,
    serving_cpu_percent: f64,
    synced_cpu_percent: f64,
    /// Times that a thread was put aside, in a second, both processes together: about how often one woke up.
    switches_per_s: f64,
    /// Of one core: what this machine takes to wake threads as often that do nothing, measured at the same time.
    waking_percent: f64,
}

fn run(session: &Session, chains: &mut ChainCache, cases: &[String]) -> Result<(), CliError> {
    let time = Duration::from_secs(if session.args.quick { 10 } else { 30 });
    let mut rows = table(["case", "wall s", "serving %", "synced %", "both %", "switches/s", "waking alone %"]);
    for case in [PAIR, OPERATED].into_iter().filter(|case| cases.iter().any(|wanted| wanted == case)) {
        let usage = match case {
            PAIR => measure(session, chains, time)?,
            _ => operated::measure(session, chains, time)?,
        };
        let [serving_cpu_percent, synced_cpu_percent] = usage.cpu_percent;
        let record = Record {
            case,
            kind: "S",
            wall_s: usage.wall_s,
            cpu_percent: serving_cpu_percent + synced_cpu_percent,
            serving_cpu_percent,
            synced_cpu_percent,
            switches_per_s: usage.switches_per_s,
            waking_percent: 100.0 * usage.switches_per_s * usage.wake_s,
        };
        session.record(&record)?;
        rows.add_row([
            record.case.to_owned(),
            format!("{:.0}", record.wall_s),
            format!("{:.3}", record.serving_cpu_percent),
            format!("{:.3}", record.synced_cpu_percent),
            format!("{:.3}", record.cpu_percent),
            format!("{:.0}", record.switches_per_s),
            format!("{:.3}", record.waking_percent),
        ]);
    }
    println!("{rows}");
    Ok(())
}

fn measure(session: &Session, chains: &mut ChainCache, time: Duration) -> Result<Usage, CliError> {
    let mut chain = chains.take(session, CHAIN)?;
    let store = chain.stores(1)?[0].clone();
    let mut serving = BenchNode::start(session, "serving", &sync::serving(&chain, store, 0, Verification::Full))?;
    let seed = serving.ready(session)?;
    let fresh = session.work().join("idle-store");
    files::remove_dir(&fresh)?;
    let setup = Setup {
        store: fresh.clone(),
        key: sync::key(u8::MAX),
        config: sync::config(Verification::Full, vec![seed]),
        role: Role::Sync { last: chain.commits },
        ..sync::serving(&chain, fresh.clone(), 0, Verification::Full)
    };
    let mut synced = BenchNode::start(session, "synced", &setup)?;
    synced.ready(session)?;
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    while !matches!(synced.next(session, deadline)?, Event::Synced(_)) {}
    turns::wait(session, SETTLE)?;
    let usage = turns::usage_while([serving.pid(), synced.pid()], || turns::wait(session, time))?;
    serving.ask_to_stop();
    synced.stop(session)?;
    serving.stop(session)?;
    chains.put_back(chain);
    files::remove_dir(&fresh)?;
    Ok(usage)
}
