//! What a sync and messages cost each other: each alone, then both between the same two nodes.

use super::{
    super::{
        chain::{Chain, ChainKey},
        chain_cache::ChainCache,
        child::BenchNode,
        message_load::{Heard, Load, MessageWork},
        node_io::{Event, Role, Setup},
        session::Session,
        sync, usage,
    },
    Kind,
    pair::exchange,
    record::MessageRecord,
};
use soma_p2p::{PeerId, SigningKey, Topic, Verification};
use soma_p2p_cli::{CliError, files};
use soma_testkit::BlockKind;
use std::time::{Duration, Instant};

pub(super) const KIND: Kind = Kind { cases, run };

const CASE: &str = "broadcast/beside-sync";

/// Blocks of the chain: several seconds of sync.
const BLOCKS: u32 = 390_000;

/// Blocks of a commit. The chain must end within one epoch, because messages of a later one than the syncing node is
/// in are of no use to it.
const BLOCKS_PER_COMMIT: u32 = 40;

/// Messages in a second.
const RATE: u32 = 10_000;

/// Seconds for which there are messages, when the sync does not end before.
const SECONDS: u32 = 30;

/// Seconds of messages alone.
const ALONE_SECONDS: u32 = 5;

const LOAD: Load = Load {
    number: 0,
    topic: Topic::Transactions,
    payload_bytes: 512,
    messages: SECONDS * RATE,
    per_second: Some(RATE),
    signed_ahead: true,
};

fn cases(quick: bool) -> Vec<String> {
    if quick { Vec::new() } else { vec![CASE.into()] }
}

/// A sync, and what was heard beside it.
struct Synced {
    blocks_per_s: f64,
    heard: Option<Heard>,
    machine_cpu_share: Option<f64>,
}

fn run(session: &Session, chains: &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError> {
    let blocks = session.args.blocks.unwrap_or(BLOCKS);
    let commits = (blocks / BLOCKS_PER_COMMIT).min(session.args.commits_per_epoch - 1).max(2);
    let key = ChainKey { kind: BlockKind::S, blocks_per_commit: BLOCKS_PER_COMMIT, commits };
    let mut chain = chains.take(session, key)?;
    let syncs = [false, true].map(|beside| median(session, &mut chain, beside));
    chains.put_back(chain);
    let [sync_alone, both] = syncs;
    let (sync_alone, both) = (sync_alone?, both?);
    let heard = both.heard.ok_or_else(|| CliError::failed("no message came beside the sync"))?;

    let load = Load { messages: ALONE_SECONDS * RATE, ..LOAD };
    let alone = exchange(session, vec![vec![load]])?.record(case, "messages alone", load.number)?;
    let beside = MessageRecord::new(case, "messages beside the sync", &LOAD, None, &heard, both.machine_cpu_share);
    let share = beside.per_s / alone.per_s;
    let beside = beside.with_ratio("messages/s to alone", share).with_goal("0.80 of each");
    session.say(&format!(
        "{case}: sync alone {:.0} blocks/s, beside messages {:.0} blocks/s",
        sync_alone.blocks_per_s, both.blocks_per_s
    ));
    let sync_share = both.blocks_per_s / sync_alone.blocks_per_s;
    let variant = format!("sync: {:.0} blocks/s, alone {:.0}", both.blocks_per_s, sync_alone.blocks_per_s);
    let mut sync = MessageRecord::new(case, &variant, &LOAD, None, &heard, both.machine_cpu_share);
    sync = sync.with_ratio("blocks/s to alone", sync_share).with_goal("0.80 of each");
    Ok(vec![alone, beside, sync])
}

/// The sync of median speed.
fn median(session: &Session, chain: &mut Chain, beside: bool) -> Result<Synced, CliError> {
    let runs = (0..session.args.runs).map(|_| sync_once(session, chain, beside));
    let mut runs = runs.collect::<Result<Vec<_>, _>>()?;
    runs.sort_by(|one, other| one.blocks_per_s.total_cmp(&other.blocks_per_s));
    let middle = runs.len() / 2;
    Ok(runs.swap_remove(middle))
}

fn sync_once(session: &Session, chain: &mut Chain, beside: bool) -> Result<Synced, CliError> {
    let store = chain.stores(1)?[0].clone();
    // The syncing node opens the streams: it has the smaller peer id.
    let mut keys = [0, 1].map(sync::key);
    keys.sort_by_key(|key| PeerId::from(&SigningKey::from_bytes(key)));
    let messages = |spread: Vec<Load>, hear: Vec<Topic>| {
        let spread = if spread.is_empty() { Vec::new() } else { vec![spread] };
        MessageWork { at_once: true, spread, hear, ..MessageWork::default() }
    };
    let (spread, hear) = if beside { (vec![LOAD], vec![LOAD.topic]) } else { (Vec::new(), Vec::new()) };
    let serving = Setup {
        key: keys[1],
        messages: messages(spread, Vec::new()),
        ..sync::serving(chain, store, 0, Verification::Full)
    };
    let mut serving = BenchNode::start(session, "serving", &serving)?;
    let seed = serving.ready(session)?;
    let fresh = session.work().join("fresh-store");
    files::remove_dir(&fresh)?;
    let syncing = Setup {
        key: keys[0],
        config: sync::config(Verification::Full, vec![seed]),
        messages: messages(Vec::new(), hear),
        role: Role::Sync { last: chain.commits },
        ..sync::serving(chain, fresh.clone(), 0, Verification::Full)
    };
    let (machine, started) = (usage::machine_cpu_s(), Instant::now());
    let mut syncing = BenchNode::start(session, "syncing", &syncing)?;
    let deadline = started + Duration::from_secs(session.args.timeout);
    let synced = loop {
        if let Event::Synced(synced) = syncing.next(session, deadline)? {
            break synced;
        }
    };
    let cpu_s = machine.and_then(|before| Some(usage::machine_cpu_s()? - before));
    let machine_cpu_share = cpu_s.map(|cpu_s| cpu_s / started.elapsed().as_secs_f64() / usage::cores() as f64);
    let mut heard = None;
    while beside && heard.is_none() {
        if let Event::Heard { loads } = syncing.next(session, deadline)? {
            heard = Some(loads.into_iter().find(|load| load.number == LOAD.number).unwrap_or_default());
        }
    }
    serving.ask_to_stop();
    syncing.stop(session)?;
    serving.stop(session)?;
    files::remove_dir(&fresh)?;
    Ok(Synced { blocks_per_s: chain.blocks as f64 / synced.end.seconds, heard, machine_cpu_share })
}
