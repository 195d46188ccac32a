//! How long a commit takes at the head: from `send_commit` on one node to the executor of another, on whose disk it is
//! by then.
//!
//! ```text
//!   proposing node: send_commit, at a rate --> its disk --push--> following node: fetch, verify, disk --> its executor
//!        `- notes when, before the call                                        notes when, after it was given -'
//! ```
//!
//! Both are processes of their own with TLS between them, as in production; the machine's monotonic clock is the same
//! for both.

use super::{
    chain_cache::ChainCache,
    child::BenchNode,
    head_node,
    measurement::Measurement,
    message_load::MessageWork,
    node_io::{CommitTimes, Event, Role, SendRate, Setup},
    percentile::percentile,
    session::Session,
};
use crate::localnet::process::loopback;
use serde::Serialize;
use soma_p2p::{Config, SeedPeer};
use soma_p2p_cli::{CliError, files, table};
use soma_testkit::ChainBuilder;
use std::time::{Duration, Instant};

pub(super) const MEASUREMENT: Measurement =
    Measurement { name: "head", cases: |quick| RATES.map(|rate| name(rate(quick))).into(), run };

/// A rate for measuring latency, and a rate at which no commit may get lost.
const RATES: [fn(bool) -> SendRate; 2] = [
    |quick| SendRate { per_second: 20, commits: if quick { 100 } else { 400 } },
    |quick| SendRate { per_second: 200, commits: if quick { 600 } else { 2_000 } },
];

fn name(rate: SendRate) -> String {
    format!("head/S/{}-per-second", rate.per_second)
}

/// A rate, and its results.
#[derive(Clone, Debug, Serialize)]
struct Record {
    case: String,
    kind: &'static str,
    /// Intended commits per second.
    rate: u32,
    /// Commits per second that were.
    achieved_rate: f64,
    sent: usize,
    received: usize,
    lost: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

fn run(session: &Session, _: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let mut rows = table(["case", "sent", "lost", "per s", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
    for rate in RATES.map(|rate| rate(session.args.quick)).into_iter().filter(|rate| names.contains(&name(*rate))) {
        let record = measure(session, rate)?;
        session.record(&record)?;
        rows.add_row([
            record.case.clone(),
            record.sent.to_string(),
            record.lost.to_string(),
            format!("{:.1}", record.achieved_rate),
            format!("{:.2}", record.p50_ms),
            format!("{:.2}", record.p90_ms),
            format!("{:.2}", record.p99_ms),
            format!("{:.2}", record.max_ms),
        ]);
    }
    println!("{rows}");
    Ok(())
}

fn measure(session: &Session, rate: SendRate) -> Result<Record, CliError> {
    let dir = tempfile::tempdir_in(session.work()).map_err(CliError::failed)?;
    let genesis = dir.path().join("genesis.bin");
    let builder = ChainBuilder::new(head_node::spec()?).map_err(CliError::failed)?;
    files::replace(&genesis, &builder.genesis().encode()).map_err(CliError::failed)?;
    let setup = |number: u8, seed_peers: Vec<SeedPeer>, role: Role| {
        let mut config = Config::listening_on(loopback().into());
        config.seed_peers = seed_peers;
        Setup {
            genesis: genesis.clone(),
            store: dir.path().join(format!("store-{number}")),
            key: [0xd0 + number; 32],
            config,
            opaque: true,
            messages: MessageWork::default(),
            role,
        }
    };
    let mut proposing = BenchNode::start(session, "proposing", &setup(0, Vec::new(), Role::Propose(rate)))?;
    let seed = proposing.ready(session)?;
    let follow = setup(1, vec![seed], Role::Take { last: rate.commits });
    let mut following = BenchNode::start(session, "following", &follow)?;
    following.ready(session)?;
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    let taken = loop {
        if let Event::Taken(taken) = following.next(session, deadline)? {
            break taken;
        }
    };
    let handed = loop {
        if let Event::Handed(handed) = proposing.next(session, deadline)? {
            break handed;
        }
    };
    proposing.ask_to_stop();
    following.stop(session)?;
    proposing.stop(session)?;
    Ok(record(rate, &handed, &taken))
}

fn record(rate: SendRate, handed: &CommitTimes, taken: &CommitTimes) -> Record {
    let (sent, received) = (handed.at_ns.len(), taken.at_ns.len());
    let mut latencies: Vec<f64> =
        handed.at_ns.iter().zip(&taken.at_ns).map(|(sent, taken)| taken.saturating_sub(*sent) as f64 / 1e6).collect();
    latencies.sort_by(f64::total_cmp);
    let percentile = |percent| percentile(&latencies, percent);
    let span = handed.at_ns.last().zip(handed.at_ns.first()).map_or(0.0, |(last, first)| (last - first) as f64 / 1e9);
    Record {
        case: name(rate),
        kind: "S",
        rate: rate.per_second,
        achieved_rate: sent.saturating_sub(1) as f64 / span,
        sent,
        received,
        lost: sent.saturating_sub(received),
        p50_ms: percentile(50),
        p90_ms: percentile(90),
        p99_ms: percentile(99),
        max_ms: percentile(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_cover_only_received_commits() {
        let handed = CommitTimes { at_ns: (0..101).map(|number| number * 1_000_000_000).collect() };
        // Commit n takes n milliseconds; the last one is lost.
        let taken = CommitTimes { at_ns: (0..100).map(|number| number * 1_001_000_000 + 1_000_000).collect() };
        let record = record(SendRate { commits: 101, per_second: 1 }, &handed, &taken);
        assert_eq!((record.sent, record.received, record.lost), (101, 100, 1));
        assert_eq!((record.p50_ms, record.p99_ms, record.max_ms), (50.0, 99.0, 100.0));
        assert_eq!(record.achieved_rate, 1.0);
    }
}
