//! The scenarios by name: the fixed set of CI, and where golden traces come from.

use crate::{
    hostile::Behaviour,
    simulation::{
        event::{ActorFault, ArchiveFault, DiskFault, DiskOperation},
        names::{full, millis, secs, validator},
        scenario::{Scenario, Topology},
    },
};

/// Every scenario of the fixed set.
pub fn all() -> Vec<Scenario> {
    vec![
        startup_and_discovery(),
        cold_sync(),
        worker_crash(),
        lying_peer(),
        epoch_change(),
        partition_and_heal(),
        messages_and_churn(),
        crash_in_the_middle_of_a_sync(),
        slow_executor(),
        clock_skew(),
        live_head(),
        range_that_only_its_successors_prove(),
        orderly_restarts(),
        hung_worker(),
        storm_of_panics(),
        group_restarts(),
        system_that_gives_up(),
        disk_that_fails_for_a_while(),
        disk_that_writes_half(),
        disk_that_cannot_be_read(),
        start_after_the_latest_epoch(),
        join_where_one_node_keeps_the_past(),
        past_in_the_archive_alone(),
        absence_longer_than_the_window(),
        archive_outage(),
    ]
}

/// Four nodes that know only the first find each other.
pub fn startup_and_discovery() -> Scenario {
    Scenario::named("startup and discovery").topology(Topology::KnowFirst).commits(10).and_connected()
}

/// A node with an empty disk catches up.
pub fn cold_sync() -> Scenario {
    Scenario::named("cold sync").full_nodes(1).commits(200).latency(millis(20)..millis(80))
}

/// Workers of a node that catches up panic; their ranges are fetched by others.
pub fn worker_crash() -> Scenario {
    Scenario::named("worker crash")
        .full_nodes(1)
        .commits(100)
        .set("state_sync.commits_per_fetch", 10)
        .at(secs(0))
        .panic(full(0), "sync-worker", "BlocksFetched", 2)
        .at(secs(0))
        .panic(full(0), "sync-worker", "CommitsChecked", 5)
}

/// A validator changes bits of its answers. It is banned, and no other peer is.
pub fn lying_peer() -> Scenario {
    Scenario::named("lying peer")
        .full_nodes(2)
        .commits(100)
        .set("state_sync.commits_per_fetch", 10)
        .at(secs(0))
        .hostile(validator(1), Behaviour::FlipsBlocks)
}

/// A node catches up, then follows, over several epochs, each with a committee that the one before has named.
pub fn epoch_change() -> Scenario {
    Scenario::named("epoch change").full_nodes(2).commits(90).live(45, millis(200)).commits_per_epoch(20)
}

/// Half of a network that makes commits is cut off from the other for long enough that connections end.
pub fn partition_and_heal() -> Scenario {
    Scenario::named("partition and heal")
        .full_nodes(3)
        .commits(200)
        .live(150, millis(250))
        .commits_per_epoch(60)
        .latency(millis(20)..millis(80))
        .loss_percent(1.0)
        .at(secs(2))
        .partition([validator(0), validator(1), full(0)])
        .at(secs(40))
        .heal()
        .synced_within(secs(120))
}

/// Nodes publish messages while one crashes, another loses its Broadcast, and half of them are cut off for a while.
pub fn messages_and_churn() -> Scenario {
    Scenario::named("messages and churn")
        .full_nodes(3)
        .commits(60)
        .live(40, millis(500))
        .commits_per_epoch(20)
        .latency(millis(20)..millis(80))
        .loss_percent(1.0)
        .messages(millis(500))
        .at(secs(3))
        .crash(validator(1))
        .at(secs(5))
        .panic(full(0), "broadcast", "Received", 1)
        .at(secs(8))
        .restart(validator(1))
        .at(secs(12))
        .partition([validator(0), validator(1), full(0)])
        .at(secs(45))
        .heal()
        .synced_within(secs(120))
}

/// A full node with a slow disk crashes twice while it catches up, and continues from its durable state.
pub fn crash_in_the_middle_of_a_sync() -> Scenario {
    Scenario::named("crash in the middle of a sync")
        .full_nodes(1)
        .commits(200)
        .set("state_sync.commits_per_fetch", 10)
        .set("state_sync.max_workers", 4)
        .at(secs(0))
        .disk_time(full(0), millis(100))
        .at(millis(450))
        .crash(full(0))
        .at(millis(1_500))
        .restart(full(0))
        .at(millis(1_950))
        .crash(full(0))
        .at(millis(1_960))
        .restart(full(0))
}

/// An executor that is slower than the sync gets every commit all the same, from the store.
pub fn slow_executor() -> Scenario {
    Scenario::named("slow executor")
        .full_nodes(1)
        .commits(150)
        .set("state_sync.synced_commit_channel_capacity", 1)
        .at(secs(0))
        .execution_time(full(0), millis(100))
}

/// Nodes with wall clocks beyond every tolerance still sync.
pub fn clock_skew() -> Scenario {
    Scenario::named("clock skew")
        .full_nodes(2)
        .commits(100)
        .live(30, millis(200))
        .at(secs(0))
        .clock_skew(full(0), 3_600_000)
        .at(secs(0))
        .clock_skew(validator(1), -60_000)
}

/// Full nodes follow a growing chain, one of them only through another full node.
pub fn live_head() -> Scenario {
    Scenario::named("live head")
        .full_nodes(2)
        .topology(Topology::Chain)
        .commits(120)
        .live(100, millis(100))
        .latency(millis(10)..millis(50))
}

/// Where only a full node can serve, and has votes for the end of each short epoch but not for the commit before it:
/// a range that ends there is proved by what comes after it. Found by a random scenario.
pub fn range_that_only_its_successors_prove() -> Scenario {
    Scenario::named("range that only its successors prove")
        .validators(2)
        .full_nodes(2)
        .topology(Topology::Chain)
        .commits(24)
        .commits_per_epoch(2)
        .latency(millis(52)..millis(175))
        .set("discovery.target_connections", 1)
        .set("state_sync.commits_per_fetch", 7)
        .synced_within(secs(300))
}

/// A full node that catches up and a validator that makes commits are stopped in order and started again.
pub fn orderly_restarts() -> Scenario {
    Scenario::named("orderly restarts")
        .full_nodes(1)
        .commits(80)
        .live(40, millis(200))
        .set("state_sync.commits_per_fetch", 5)
        .at(secs(0))
        .disk_time(full(0), millis(50))
        .at(millis(300))
        .shutdown(full(0))
        .at(millis(1_500))
        .restart(full(0))
        .at(secs(3))
        .shutdown(validator(1))
        .at(secs(5))
        .restart(validator(1))
}

/// A worker of a node that catches up does nothing ever more; its range is fetched by another.
pub fn hung_worker() -> Scenario {
    Scenario::named("hung worker")
        .full_nodes(1)
        .commits(40)
        .set("state_sync.commits_per_fetch", 10)
        .set("state_sync.request_timeout", "2s")
        .at(secs(0))
        .hang(full(0), "sync-worker", "SubDagsChecked", 1)
        // The time of a request and two minutes, then it counts as dead.
        .synced_within(secs(150))
}

/// A worker never processes its peer's answers: a second worker fetches its range.
pub fn worker_that_hangs_on_its_peer() -> Scenario {
    Scenario::named("worker that hangs on its peer")
        .full_nodes(1)
        .commits(40)
        .set("state_sync.commits_per_fetch", 10)
        .at(secs(0))
        .hang(full(0), "sync-worker", "BlocksFetched", 2)
        .synced_within(secs(10))
}

/// Many actors of several nodes panic again and again during a sync, each within its supervisor's tolerance.
pub fn storm_of_panics() -> Scenario {
    let mut scenario = Scenario::named("storm of panics")
        .full_nodes(2)
        .commits(60)
        .live(40, millis(500))
        .commits_per_epoch(20)
        .set("state_sync.commits_per_fetch", 3)
        .synced_within(secs(120));
    for node in [full(0), full(1), validator(0)] {
        let actors = [
            ("verifier", "Submit", 6),
            ("store-writer", "Done", 6),
            ("connections", "Inbound", 2),
            ("connections", "Dialled", 2),
            ("discovery", "Answered", 2),
            ("state-sync", "Target", 4),
            ("peer-heights", "Queried", 3),
            ("grpc-adapter", "Arrived", 6),
            ("sync-worker", "BlocksFetched", 6),
        ];
        for (actor, input, times) in actors {
            scenario = scenario.at(secs(0)).actor_faults(node, actor, input, 3, times, ActorFault::Panic);
        }
    }
    scenario
}

/// Connections and StateSync die, and those that rely on what these have told are made anew with them; Discovery and
/// PeerHeights also die alone.
pub fn group_restarts() -> Scenario {
    Scenario::named("group restarts")
        .full_nodes(1)
        .commits(40)
        .live(20, millis(250))
        .at(secs(0))
        .panic(full(0), "discovery", "Answered", 2)
        .at(secs(0))
        .panic(full(0), "peer-heights", "Queried", 2)
        .at(secs(0))
        .panic(full(0), "connections", "Dialled", 3)
        .at(millis(2_500))
        .panic(full(0), "state-sync", "Target", 1)
}

/// StateSync fails at each input of a kind: first it is made anew, then with PeerHeights, then the system gives up and
/// says why. Whoever runs the node mends it and starts it again.
pub fn system_that_gives_up() -> Scenario {
    Scenario::named("system that gives up")
        .full_nodes(1)
        .commits(40)
        .at(secs(0))
        .actor_faults(full(0), "state-sync", "Target", 2, 1_000, ActorFault::Panic)
        .gives_up(full(0), "state-sync does not stay up: it panicked: planned")
        .at(secs(60))
        .repair(full(0))
        .at(secs(60))
        .shutdown(full(0))
        .at(secs(61))
        .restart(full(0))
}

/// Neither a full node that catches up nor a validator can write for twenty seconds: they tell of nothing that they
/// have not got, and go on as soon as they can.
pub fn disk_that_fails_for_a_while() -> Scenario {
    let mut scenario = Scenario::named("disk that fails for a while").full_nodes(1).commits(80).live(40, millis(500));
    for node in [full(0), validator(0)] {
        for operation in [DiskOperation::Apply, DiskOperation::UpdatePeers] {
            scenario = scenario.at(secs(1)).disk_fault(node, operation, 1, 100_000, DiskFault::Error);
        }
        scenario = scenario.at(secs(21)).repair(node);
    }
    scenario
}

/// Writes fail halfway: half is written, and the caller gets an error.
pub fn disk_that_writes_half() -> Scenario {
    Scenario::named("disk that writes half")
        .full_nodes(1)
        .commits(60)
        .live(20, millis(250))
        .set("state_sync.commits_per_fetch", 7)
        .at(secs(0))
        .disk_fault(full(0), DiskOperation::Apply, 1, 6, DiskFault::ShortWrite)
        .at(secs(0))
        .disk_fault(validator(0), DiskOperation::Apply, 3, 4, DiskFault::ShortWrite)
        .at(millis(2_500))
        .crash(full(0))
        .at(millis(2_600))
        .restart(full(0))
}

/// Reads fail while a node starts, serves and executes, a few times each.
pub fn disk_that_cannot_be_read() -> Scenario {
    let mut scenario = Scenario::named("disk that cannot be read").full_nodes(2).commits(60).live(20, millis(250));
    for node in [full(0), validator(0)] {
        scenario = scenario
            .at(secs(0))
            .disk_fault(node, DiskOperation::Read, 1, 3, DiskFault::Error)
            .at(secs(3))
            .disk_fault(node, DiskOperation::Read, 2, 5, DiskFault::Error);
    }
    scenario.synced_within(secs(60))
}

/// Not in the fixed set: as much as fits into a minute.
pub fn large() -> Scenario {
    let full_nodes = 21;
    let mut scenario = Scenario::named("large")
        .validators(4)
        .full_nodes(full_nodes)
        .commits(1_000)
        .commits_per_epoch(250)
        .latency(millis(20)..millis(80))
        .loss_percent(5.0)
        .synced_within(secs(600));
    for (number, node) in scenario.nodes().into_iter().enumerate() {
        let crash = millis(1_000 + 400 * number as u64);
        scenario = scenario.at(crash).crash(node).at(crash + millis(1_500)).restart(node);
    }
    scenario
}

/// Nodes that keep a short window are joined by nodes that begin after the last ended epoch. One joiner crashes while
/// it skips epochs.
pub fn start_after_the_latest_epoch() -> Scenario {
    Scenario::named("start after the latest epoch")
        .full_nodes(2)
        .commits(400)
        .live(40, millis(250))
        .commits_per_epoch(30)
        .latency(millis(20)..millis(80))
        .set("start", "latest-epoch")
        .set("pruning.commits", 100)
        .at(millis(300))
        .crash(full(0))
        .at(millis(1_500))
        .restart(full(0))
}

/// A network that keeps the last 100 commits and makes 200 more. One full node joins late.
fn pruned_network(name: &str) -> Scenario {
    Scenario::named(name)
        .full_nodes(1)
        .commits(400)
        .live(200, millis(100))
        .commits_per_epoch(30)
        .set("pruning.commits", 100)
        // Nodes start at zero.
        .at(millis(1))
        .crash(full(0))
        .at(secs(14))
        .restart(full(0))
        .synced_within(secs(60))
}

/// All nodes but one prune. A node that joins later gets the past from that one.
pub fn join_where_one_node_keeps_the_past() -> Scenario {
    pruned_network("join where one node keeps the past").keeps_all(validator(2))
}

/// All nodes prune, and write an archive together. A node that joins later gets the past from the archive, and the
/// head from peers.
pub fn past_in_the_archive_alone() -> Scenario {
    pruned_network("past in the archive alone").archive()
}

/// A node is away for longer than its peers keep history, and goes on with the archive.
pub fn absence_longer_than_the_window() -> Scenario {
    Scenario::named("absence longer than the window")
        .full_nodes(1)
        .commits(400)
        .live(300, millis(100))
        .commits_per_epoch(30)
        .archive()
        .set("pruning.commits", 100)
        .at(secs(4))
        .crash(full(0))
        .at(secs(28))
        .restart(full(0))
        .synced_within(secs(60))
}

/// The archive is down, then serves damaged and forged objects, while a node needs it. Nobody prunes meanwhile what
/// the archive lacks.
pub fn archive_outage() -> Scenario {
    pruned_network("archive outage")
        .archive()
        .at(secs(3))
        .archive_fault(ArchiveFault::Unreachable)
        .at(secs(8))
        .archive_works()
        .at(millis(13_900))
        .archive_fault(ArchiveFault::Lies)
        .at(secs(20))
        .archive_fault(ArchiveFault::FlipsBytes)
        .at(secs(25))
        .archive_fault(ArchiveFault::Unreachable)
        .at(secs(40))
        .archive_works()
        // A wrong object is left out for ten minutes.
        .synced_within(secs(1_300))
}
