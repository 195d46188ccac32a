//! The fault matrix: every actor fails at every kind of input once while its node syncs, by a panic and by doing
//! nothing ever more. Each time the sync ends with equal digests, the actor comes back, and no peer is blamed.

use soma_protocol::{
    Core, archiver, broadcast, connections, discovery, grpc_adapter, objects, peer_heights, state_sync, store_writer,
    verifier,
};
use soma_testkit::{
    hostile::Behaviour,
    simulation::{ActorFault, LostActor, NodeName, Report, Scenario, Taken, full, millis, secs, validator},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::Duration,
};
use strum::VariantNames;

const SEED: u64 = 1;

/// What a sync makes the actors of a full node take.
const FULL: &[(&str, &[&str])] = &[
    ("broadcast", &["Checked", "Closed", "Committee", "Opened", "Peer", "Publish", "Received", "Wake", "Written"]),
    (
        "connections",
        &[
            "Ban",
            "ChosenPeers",
            "Committee",
            "Dial",
            "Dialled",
            "Disconnect",
            "Inbound",
            "InboundClosed",
            "LinkClosed",
            "Unban",
            "Useful",
            "Wake",
            "WhoIsConnected",
        ],
    ),
    (
        "discovery",
        &["Answered", "Asked", "Book", "ChosenPeers", "Committee", "DialFailed", "OwnInfo", "Peer", "Probed", "Wake"],
    ),
    ("grpc-adapter", &["Arrived", "ChosenPeers", "Committee", "Finished", "Useful"]),
    ("objects", &["Arrived", "Dropped", "Ended", "Fetch", "Peer", "Wake"]),
    (
        "peer-heights",
        &[
            "Ban",
            "ChosenPeers",
            "OwnHeight",
            "Peer",
            "Pick",
            "PushDone",
            "Pushed",
            "Queried",
            "Report",
            "Unban",
            "Wake",
        ],
    ),
    ("state-sync", &["Executor", "Picked", "Progress", "Target", "Wake", "WorkerDone", "WorkerFailed", "Written"]),
    ("store-writer", &["Begins", "Done", "Pruned", "Stored", "Submit"]),
    ("sync-worker", &["BlocksChecked", "BlocksFetched", "CommitsChecked", "CommitsFetched", "Start", "SubDagsChecked"]),
    ("verifier", &["BatchDone", "Checked", "Done", "Submit"]),
];

/// What only a node whose own consensus makes commits takes.
const VALIDATOR: &[(&str, &[&str])] = &[("state-sync", &["LocalChecked", "LocalCommit"])];

/// What only a full node takes that begins after the latest epoch and fetches the commits before it later.
const START: &[(&str, &[&str])] = &[("state-sync", &["EpochsFetched", "EpochsSkipped", "HistoryRead", "Prepended"])];

/// What only a node with an archive takes.
const ARCHIVE: &[(&str, &[&str])] = &[
    ("archiver", &["Durable", "Located", "Read", "ReadDone", "Wake", "Written"]),
    ("state-sync", &["ArchiveListed"]),
    ("store-writer", &["Archived"]),
];

/// What only a Verifier takes whose checks run on threads of their own: `tests/tests/check_threads.rs` has it.
const ON_THREADS: &[(&str, &[&str])] = &[("verifier", &["Slow", "Wake"])];

/// What a worker takes before all that it asked its peer for has come.
const AWAITING: &[&str] = &["Start", "CommitsFetched", "CommitsChecked", "BlocksFetched"];

/// A sync with as much as can happen in one: epochs that end, commits that are made meanwhile, a worker that panics, a
/// peer that crashes and comes back, a peer that lies and is banned.
fn sync() -> Scenario {
    Scenario::named("fault matrix")
        .validators(4)
        .full_nodes(2)
        .commits(30)
        .live(18, secs(1))
        .commits_per_epoch(8)
        .set("state_sync.commits_per_fetch", 3)
        .set("state_sync.request_timeout", "2s")
        .set("discovery.interval", "2s")
        .messages(millis(500))
        .objects(millis(700))
        // Longer than the chain: only the steps count here.
        .set("pruning.commits", 100)
        // Short enough that it ends before the sync does.
        .set("connections.ban_min", "4s")
        // One fewer than there are others: who is left is probed.
        .set("discovery.target_connections", 4)
        .at(secs(0))
        .hostile(validator(3), Behaviour::FlipsBlocks)
        .at(secs(0))
        // Late enough that whoever is hung on purpose has been replaced: nobody notes the end of a worker of a hung
        // StateSync.
        .panic(full(0), "sync-worker", "CommitsChecked", 14)
        // The second is in no network: the simulation allows no ban of an honest peer, and the liar is banned anyhow.
        .at(millis(1_000))
        .manage_peers(full(0), [validator(1), validator(9)])
        .at(millis(1_500))
        .crash(validator(2))
        .at(secs(8))
        .restart(validator(2))
        // A worker that does nothing has the time of a request and 120 seconds.
        .synced_within(secs(200))
}

/// The sync in which nothing more goes wrong than it says.
static USUAL: LazyLock<(BTreeMap<Taken, u64>, Report)> = LazyLock::new(|| {
    let inputs = sync().inputs(SEED).unwrap_or_else(|failure| panic!("{failure}"));
    (inputs, sync().run(SEED).unwrap_or_else(|failure| panic!("{failure}")))
});

#[test]
fn a_sync_takes_every_kind_of_input_that_the_matrix_has() {
    let listed = |rows: &[(&'static str, &[&'static str])]| -> BTreeSet<(&str, &str)> {
        rows.iter().flat_map(|(actor, kinds)| kinds.iter().map(move |kind| (*actor, *kind))).collect()
    };
    let taken_by = |node| -> BTreeSet<(&str, &str)> {
        let taken = USUAL.0.keys().filter(|taken| taken.node == node);
        taken.map(|taken| (taken.actor, taken.kind.as_str())).collect()
    };
    assert_eq!(taken_by(full(0)), listed(FULL));
    let only_validators: BTreeSet<_> = taken_by(validator(0)).difference(&listed(FULL)).copied().collect();
    assert_eq!(only_validators, listed(VALIDATOR));
}

/// The inputs of one core that there are.
fn inputs_of<C: Core>() -> Vec<(&'static str, &'static str)>
where
    C::Input: VariantNames,
{
    C::Input::VARIANTS.iter().map(|kind| (C::NAME, *kind)).collect()
}

#[test]
fn every_input_that_there_is_has_a_fault_test() {
    let all: BTreeSet<_> = [
        inputs_of::<archiver::Archiver>(),
        inputs_of::<broadcast::Broadcast>(),
        inputs_of::<connections::Connections>(),
        inputs_of::<discovery::Discovery>(),
        inputs_of::<grpc_adapter::Serving>(),
        inputs_of::<objects::Objects>(),
        inputs_of::<peer_heights::PeerHeights>(),
        inputs_of::<state_sync::StateSync>(),
        inputs_of::<store_writer::StoreWriter>(),
        inputs_of::<state_sync::worker::SyncWorker>(),
        inputs_of::<verifier::Verifier>(),
    ]
    .concat()
    .into_iter()
    .collect();
    let actors: BTreeSet<_> = all.iter().map(|(actor, _)| *actor).collect();
    assert_eq!(actors, soma_replay::core_names().collect(), "every core");
    let tested: BTreeSet<_> = [FULL, VALIDATOR, START, ARCHIVE, ON_THREADS]
        .into_iter()
        .flatten()
        .flat_map(|(actor, kinds)| kinds.iter().map(move |kind| (*actor, *kind)))
        .collect();
    assert_eq!(all, tested);
}

/// Plays the sync with one more fault. An error says what is not as it must be.
fn play(node: NodeName, actor: &str, kind: &str, fault: ActorFault) -> Result<(), String> {
    let (inputs, usual) = &*USUAL;
    let count = inputs.iter().find(|(taken, _)| (taken.node, taken.actor, taken.kind.as_str()) == (node, actor, kind));
    let (_, count) = count.ok_or("a sync takes no such input")?;
    // Not the first where there is another: by then there is something to lose. An actor that hangs at the last one may
    // be told to stop before it is missed, because the run ends.
    let number = if fault == ActorFault::Hang { count.saturating_sub(1).clamp(1, 2) } else { (*count).min(2) };
    let scenario = sync().at(secs(0)).actor_fault(node, actor, kind, number as u32, fault);
    let report = scenario.run(SEED).map_err(|failure| failure.to_string())?;

    if report.faults != usual.faults + 1 {
        return Err(format!("{} faults instead of {}", report.faults, usual.faults + 1));
    }
    // Who failed was ended, and nobody else was.
    let exit = match fault {
        ActorFault::Panic => "panicked: planned by the simulation",
        _ => "was killed: no sign of life",
    };
    let mut lost = report.actors_lost.clone();
    // While a worker waits for its peer a second one is started: it is not missed then, but cancelled.
    let is_hedged = actor == "sync-worker" && fault == ActorFault::Hang && AWAITING.contains(&kind);
    let meant = |lost: &LostActor| lost.node == node && lost.actor == actor && lost.exit.starts_with(exit);
    let expected = usual.actors_lost.iter().map(Some).chain((!is_hedged).then_some(None));
    for planned in expected {
        let planned = |lost: &LostActor| planned.map_or_else(|| meant(lost), |planned| planned == lost);
        match lost.iter().position(planned) {
            Some(position) => drop(lost.remove(position)),
            None => return Err(format!("these actors were lost: {:?}", report.actors_lost)),
        }
    }
    if !lost.is_empty() {
        return Err(format!("other actors were lost: {lost:?}"));
    }
    // Not one failure counts against any honest peer, at any node, that does not count without the fault.
    match report.penalties.iter().find(|penalty| !usual.penalties.contains(penalty)) {
        Some(penalty) => Err(format!("blamed for it: {penalty:?}")),
        None => Ok(()),
    }
}

fn every_kind(actor: &str, fault: ActorFault) {
    let of = |rows: &[(&str, &[&'static str])], node| -> Vec<(NodeName, &'static str)> {
        let kinds = rows.iter().filter(|(name, _)| *name == actor).flat_map(|(_, kinds)| kinds.iter());
        kinds.map(|kind| (node, *kind)).collect()
    };
    let kinds = [of(FULL, full(0)), of(VALIDATOR, validator(0))].concat();
    assert!(!kinds.is_empty(), "the matrix has no {actor}");
    let play = |(node, kind)| play(node, actor, kind, fault).err().map(|why| format!("{kind} at {node}: {why}"));
    let wrong: Vec<_> = kinds.into_iter().filter_map(play).collect();
    assert!(wrong.is_empty(), "{fault:?} of {actor}:\n{}", wrong.join("\n"));
}

/// A sync that begins after the latest epoch, and backfills.
fn late_start() -> Scenario {
    Scenario::named("late start")
        .full_nodes(1)
        .commits(30)
        .live(10, millis(500))
        .commits_per_epoch(8)
        .set("start", "latest-epoch")
        .set("backfill", true)
        .set("state_sync.request_timeout", "2s")
        // A hung StateSync is replaced after its time.
        .synced_within(secs(200))
}

/// When the full node joins for the second time.
const JOINED: Duration = Duration::from_secs(2);

/// A node that joins late, and begins with what the others have archived.
fn sync_with_archive() -> Scenario {
    Scenario::named("sync with archive")
        .full_nodes(1)
        .commits(40)
        // Long enough that a hung actor is found.
        .live(20, secs(3))
        .commits_per_epoch(8)
        .archive()
        .set("archive.read", "first")
        .set("state_sync.commits_per_fetch", 3)
        .set("state_sync.request_timeout", "2s")
        .at(millis(1))
        .crash(full(0))
        .at(JOINED)
        .restart(full(0))
        .synced_within(secs(200))
}

#[test]
fn node_syncs_with_its_archive_although_an_actor_panics() {
    every_input_of(sync_with_archive, JOINED, ARCHIVE, ActorFault::Panic);
}

#[test]
fn node_syncs_with_its_archive_although_an_actor_hangs() {
    every_input_of(sync_with_archive, JOINED, ARCHIVE, ActorFault::Hang);
}

/// Plays the scenario once for each kind of input, with a fault of the full node's actor at the first from then on.
fn every_input_of(scenario: fn() -> Scenario, begin: Duration, rows: &[(&str, &[&str])], fault: ActorFault) {
    let inputs = scenario().inputs(SEED).unwrap();
    for (actor, kinds) in rows {
        for kind in *kinds {
            let taken = |taken: &&Taken| (taken.node, taken.actor, taken.kind.as_str()) == (full(0), *actor, *kind);
            assert!(inputs.keys().any(|input| taken(&input)), "the sync takes no {kind}");
            let report = scenario().at(begin).actor_fault(full(0), actor, kind, 1, fault).run(SEED);
            let report = report.unwrap_or_else(|failure| panic!("{kind} of {actor}: {failure}"));
            assert!(report.actors_lost.iter().any(|lost| lost.actor == *actor), "{kind}: {:?}", report.actors_lost);
            assert_eq!(report.penalties, [], "{kind} of {actor}: nobody is blamed");
        }
    }
}

#[test]
fn node_begins_after_the_latest_epoch_although_an_actor_panics() {
    every_input_of(late_start, secs(0), START, ActorFault::Panic);
}

#[test]
fn node_begins_after_the_latest_epoch_although_an_actor_hangs() {
    every_input_of(late_start, secs(0), START, ActorFault::Hang);
}

macro_rules! rows {
    ($($test:ident: $actor:literal, $fault:ident;)*) => {$(
        #[test]
        fn $test() {
            every_kind($actor, ActorFault::$fault);
        }
    )*};
}

rows! {
    broadcast_panics_at_every_kind_of_input: "broadcast", Panic;
    broadcast_hangs_at_every_kind_of_input: "broadcast", Hang;
    connections_panics_at_every_kind_of_input: "connections", Panic;
    connections_hangs_at_every_kind_of_input: "connections", Hang;
    discovery_panics_at_every_kind_of_input: "discovery", Panic;
    discovery_hangs_at_every_kind_of_input: "discovery", Hang;
    the_grpc_adapter_panics_at_every_kind_of_input: "grpc-adapter", Panic;
    the_grpc_adapter_hangs_at_every_kind_of_input: "grpc-adapter", Hang;
    objects_panics_at_every_kind_of_input: "objects", Panic;
    objects_hangs_at_every_kind_of_input: "objects", Hang;
    peer_heights_panics_at_every_kind_of_input: "peer-heights", Panic;
    peer_heights_hangs_at_every_kind_of_input: "peer-heights", Hang;
    state_sync_panics_at_every_kind_of_input: "state-sync", Panic;
    state_sync_hangs_at_every_kind_of_input: "state-sync", Hang;
    the_store_writer_panics_at_every_kind_of_input: "store-writer", Panic;
    the_store_writer_hangs_at_every_kind_of_input: "store-writer", Hang;
    workers_panic_at_every_kind_of_input: "sync-worker", Panic;
    workers_hang_at_every_kind_of_input: "sync-worker", Hang;
    the_verifier_panics_at_every_kind_of_input: "verifier", Panic;
    the_verifier_hangs_at_every_kind_of_input: "verifier", Hang;
}
