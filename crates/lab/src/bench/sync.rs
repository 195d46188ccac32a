//! The time of a fresh node to sync a whole chain from other nodes, compared with the chain's limit.
//!
//! ```text
//!   this process: chain on disk -> limit, in this process
//!                   | copies
//!                   v
//!   serving node 1..n (a process each) <--- gRPC over mutual TLS on loopback ---> syncing node (a process)
//!                                                                   told of all of them as seed peers
//! ```

use super::{
    chain::{Chain, ChainKey},
    chain_cache::ChainCache,
    child::BenchNode,
    limit::Limit,
    measurement::Measurement,
    message_load::MessageWork,
    node_io::{Event, Role, Sample, Setup},
    plot,
    record::{Measured, SyncRecord},
    report,
    session::Session,
    usage,
};
use crate::localnet::process::loopback;
use soma_p2p::{Config, SeedPeer, Verification};
use soma_p2p_cli::{CliError, files};
use soma_testkit::{BlockKind, Payload};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub(super) const MEASUREMENT: Measurement =
    Measurement { name: "sync", cases: |quick| cases(quick).iter().map(Case::name).collect(), run };

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: BlockKind,
    blocks_per_commit: u32,
    peers: usize,
    verification: Verification,
    /// Blocks of the chain, more or less.
    blocks: u32,
}

impl Case {
    fn name(&self) -> String {
        let Self { kind, blocks_per_commit, peers, verification, .. } = self;
        format!("sync/{kind}/{blocks_per_commit}-per-commit/{peers}-peers/{}", report::verification_name(*verification))
    }

    fn chain(&self, session: &Session) -> ChainKey {
        let blocks = session.args.blocks.unwrap_or(self.blocks);
        let commits = (blocks / self.blocks_per_commit).max(2);
        ChainKey { kind: self.kind, blocks_per_commit: self.blocks_per_commit, commits }
    }
}

/// Blocks of a chain, for more than a second of sync; of C blocks also where their signatures are left out.
fn blocks(kind: BlockKind) -> u32 {
    match kind {
        BlockKind::S => 200_000,
        BlockKind::L => 120_000,
        BlockKind::C => 360_000,
    }
}

fn cases(quick: bool) -> Vec<Case> {
    use BlockKind::{C, L, S};
    use Verification::{Certified, Full};
    let case = |(kind, blocks_per_commit, peers, verification)| {
        let blocks = if quick { blocks(kind) / 2 } else { blocks(kind) };
        Case { kind, blocks_per_commit, peers, verification, blocks }
    };
    if quick {
        return [(S, 4, 1, Full), (L, 40, 4, Full), (C, 40, 1, Full), (C, 40, 1, Certified)].map(case).into();
    }
    // Cases of one chain follow each other.
    let mut all = Vec::new();
    for kind in BlockKind::ALL {
        for blocks_per_commit in [4, 40] {
            all.extend([1, 4].map(|peers| case((kind, blocks_per_commit, peers, Full))));
            let certified = [1, 4].map(|peers| case((kind, blocks_per_commit, peers, Certified)));
            let most_telling = if kind == C { &certified[..] } else { &certified[1..] };
            all.extend(most_telling);
        }
    }
    all
}

fn run(session: &Session, chains: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let mut records = Vec::new();
    let mut failed = None;
    for case in cases(session.args.quick).into_iter().filter(|case| names.contains(&case.name())) {
        match run_case(session, chains, &case) {
            Ok(record) => records.push(record),
            Err(error) => {
                session.say(&format!("{}: {error}", case.name()));
                failed.get_or_insert(error);
                if session.is_interrupted() {
                    break;
                }
            }
        }
    }
    if !records.is_empty() {
        println!("{}", report::sync_table(&records));
    }
    failed.map_or(Ok(()), Err)
}

fn run_case(session: &Session, chains: &mut ChainCache, case: &Case) -> Result<SyncRecord, CliError> {
    let mut chain = chains.take(session, case.chain(session))?;
    let measured = measure(session, &mut chain, &case.name(), case.peers, case.verification);
    chains.put_back(chain);
    let (record, samples) = measured?;
    session.print_calibration(&report::calibration(&record.limit.calibration));
    session.record(&record)?;
    plot::throughput(&session.plot_file(&case.name()), &case.name(), &samples)?;
    Ok(record)
}

/// Syncs `chain` as often as the arguments say, and measures its limit before and after each time. The sync of median
/// time counts, the mean of all limits, and the most memory of all syncs.
pub(super) fn measure(
    session: &Session,
    chain: &mut Chain,
    name: &str,
    peers: usize,
    verification: Verification,
) -> Result<(SyncRecord, Vec<Sample>), CliError> {
    chain.stores(peers)?;
    let seconds = |(sync, _): &(Measured, Vec<Sample>)| sync.synced.end.seconds;
    let mut syncs = Vec::new();
    // The machine is faster at one time than at another: before and after, as the sync lies between.
    let mut limits = vec![Limit::measure(chain, session.work())?];
    for _ in 0..session.args.runs {
        syncs.push(sync(session, chain, name, peers, verification)?);
        limits.push(Limit::measure(chain, session.work())?);
    }
    syncs.sort_by(|one, other| seconds(one).total_cmp(&seconds(other)));
    let all: Vec<f64> = syncs.iter().map(seconds).collect();
    let peaks = syncs.iter().filter_map(|(sync, _)| sync.synced.peak_rss_mib);
    let peak = peaks.max_by(f64::total_cmp);
    let (mut sync, samples) = syncs.swap_remove(syncs.len() / 2);
    sync.synced.peak_rss_mib = peak;
    let limit = Limit::mean(&limits);
    let record = SyncRecord::new(name, chain, peers, verification, limit, &sync, all);
    session.say(&format!(
        "{name}: {:.0} blocks/s, {:.2} s ({:.2} to {:.2}), limit {:.2} s, ratio {:.2}, {:.0} MiB",
        record.blocks_per_s,
        record.wall_s,
        record.runs_s[0],
        record.runs_s[record.runs_s.len() - 1],
        limit.limit_s,
        record.limit_ratio,
        record.peak_rss_mib.unwrap_or(0.0),
    ));
    Ok((record, samples))
}

fn sync(
    session: &Session,
    chain: &mut Chain,
    name: &str,
    peers: usize,
    verification: Verification,
) -> Result<(Measured, Vec<Sample>), CliError> {
    let stores = chain.stores(peers)?.to_vec();
    let mut servers = Vec::new();
    let mut seed_peers = Vec::new();
    for (index, store) in stores.into_iter().enumerate() {
        let mut server =
            BenchNode::start(session, &format!("server-{index}"), &serving(chain, store, index, verification))?;
        seed_peers.push(server.ready(session)?);
        servers.push(server);
    }
    let store = session.work().join("fresh-store");
    files::remove_dir(&store)?;
    let setup = Setup {
        store: store.clone(),
        key: key(u8::MAX),
        config: config(verification, seed_peers),
        role: Role::Sync { last: chain.commits },
        ..serving(chain, store.clone(), 0, verification)
    };
    let mut client = BenchNode::start(session, "syncing", &setup)?;
    client.ready(session)?;
    let machine = usage::machine_cpu_s();
    let task = session.task(name, chain.commits.into());
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    let mut samples = vec![Sample::default()];
    let synced = loop {
        match client.next(session, deadline)? {
            Event::Progress(sample) => {
                task.set(sample.commit.into());
                samples.push(sample);
            }
            Event::Synced(synced) => break synced,
            other => return Err(CliError::failed(format!("the syncing node says {other:?}"))),
        }
    };
    samples.push(synced.end);
    let machine = machine.and_then(|before| Some(usage::machine_cpu_s()? - before));
    // All are asked before any is waited for.
    servers.iter_mut().for_each(BenchNode::ask_to_stop);
    let server_cpu_s = servers.into_iter().map(|server| Ok(server.stop(session)?.cpu_s)).sum::<Result<f64, _>>()?;
    client.stop(session)?;
    task.end();
    if synced.end.blocks != chain.blocks || synced.end.bytes != chain.bytes {
        let reason = format!("the executor was given {:?}, and the chain has {} blocks", synced.end, chain.blocks);
        return Err(CliError::failed(reason));
    }
    files::remove_dir(&store)?;
    let other_cpu_s = machine.map(|all| (all - synced.cpu_s - server_cpu_s).max(0.0));
    Ok((Measured { synced, server_cpu_s, other_cpu_s }, samples))
}

pub(super) fn serving(chain: &Chain, store: PathBuf, index: usize, verification: Verification) -> Setup {
    Setup {
        genesis: chain.genesis_file.clone(),
        store,
        key: key(index as u8),
        config: config(verification, Vec::new()),
        opaque: chain.payload == Payload::Opaque,
        messages: MessageWork::default(),
        role: Role::Serve,
    }
}

/// Nodes of a benchmark keep no secrets.
pub(super) fn key(index: u8) -> [u8; 32] {
    [index.wrapping_add(0xb0); 32]
}

pub(super) fn config(verification: Verification, seed_peers: Vec<SeedPeer>) -> Config {
    let mut config = Config::listening_on(loopback().into());
    config.seed_peers = seed_peers;
    config.verifier.verification = verification;
    config
}
