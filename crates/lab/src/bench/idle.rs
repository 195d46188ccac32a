//! What two synced nodes cost while nothing happens.

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
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io, thread,
    time::{Duration, Instant},
};

pub(super) const MEASUREMENT: Measurement = Measurement { name: "idle", cases: |_| vec![CASE.into()], run };

const CASE: &str = "idle/pair";

/// What a sync leaves behind (compaction of the store, caches, memory given back) is not idling.
const SETTLE: Duration = Duration::from_secs(5);

/// How often a wait looks whether the benchmark is interrupted.
const POLL: Duration = Duration::from_millis(100);

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
}

fn run(session: &Session, chains: &mut ChainCache, _: &[String]) -> Result<(), CliError> {
    let record = measure(session, chains)?;
    session.record(&record)?;
    let mut rows = table(["case", "wall s", "serving %", "synced %", "both %", "switches/s"]);
    rows.add_row([
        record.case.to_owned(),
        format!("{:.0}", record.wall_s),
        format!("{:.3}", record.serving_cpu_percent),
        format!("{:.3}", record.synced_cpu_percent),
        format!("{:.3}", record.cpu_percent),
        format!("{:.0}", record.switches_per_s),
    ]);
    println!("{rows}");
    Ok(())
}

fn measure(session: &Session, chains: &mut ChainCache) -> Result<Record, CliError> {
    let key = ChainKey { kind: BlockKind::S, blocks_per_commit: 4, commits: 500 };
    let mut chain = chains.take(session, key)?;
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
    wait(session, SETTLE)?;
    let (serving_pid, synced_pid) = (serving.pid(), synced.pid());
    let threads = || Ok::<_, CliError>([threads_of(serving_pid)?, threads_of(synced_pid)?]);
    let (before, started) = (threads()?, Instant::now());
    wait(session, Duration::from_secs(if session.args.quick { 10 } else { 30 }))?;
    let (after, wall_s) = (threads()?, started.elapsed().as_secs_f64());
    serving.ask_to_stop();
    synced.stop(session)?;
    serving.stop(session)?;
    chains.put_back(chain);
    files::remove_dir(&fresh)?;
    let used = [0, 1].map(|node| used_between(&before[node], &after[node]));
    let percent = used.map(|used| 100.0 * used.cpu_ns as f64 / 1e9 / wall_s);
    Ok(Record {
        case: CASE,
        kind: "S",
        wall_s,
        cpu_percent: percent[0] + percent[1],
        serving_cpu_percent: percent[0],
        synced_cpu_percent: percent[1],
        switches_per_s: (used[0].switches + used[1].switches) as f64 / wall_s,
    })
}

fn wait(session: &Session, time: Duration) -> Result<(), CliError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        session.check_interrupted()?;
        thread::sleep(POLL);
    }
    Ok(())
}

/// What a thread has used.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    cpu_ns: u64,
    switches: u64,
}

/// What each thread of a process has used, by its id.
///
/// From `/proc/PID/task/*/schedstat`: to the nanosecond, where `/proc/PID/stat` counts hundredths of a second, which
/// is a tenth of what a good pair uses in half a minute.
fn threads_of(pid: u32) -> Result<BTreeMap<OsString, Turns>, CliError> {
    let failed = |error: io::Error| CliError::failed(format!("what process {pid} uses is not known: {error}"));
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let thread = thread.map_err(failed)?;
        // One that has just ended is not there any more.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        // Time on a core, time waiting for one, turns.
        let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
        if let [cpu_ns, _, switches] = fields[..] {
            threads.insert(thread.file_name(), Turns { cpu_ns, switches });
        }
    }
    Ok(threads)
}

/// Resources used meanwhile, without those of threads that have ended.
fn used_between(before: &BTreeMap<OsString, Turns>, after: &BTreeMap<OsString, Turns>) -> Turns {
    after.iter().fold(Turns::default(), |sum, (thread, now)| {
        let then = before.get(thread).copied().unwrap_or_default();
        Turns {
            cpu_ns: sum.cpu_ns + (now.cpu_ns - then.cpu_ns),
            switches: sum.switches + (now.switches - then.switches),
        }
    })
}
