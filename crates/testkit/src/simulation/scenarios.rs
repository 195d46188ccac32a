//! The scenarios by name: the fixed set of CI, and where golden traces come from.

use crate::simulation::{Lie, Scenario, Topology, full, millis, secs, validator};

/// Every scenario of the fixed set.
pub fn all() -> Vec<Scenario> {
    vec![
        startup_and_discovery(),
        cold_sync(),
        worker_crash(),
        lying_peer(),
        epoch_change(),
        partition_and_heal(),
        crash_in_the_middle_of_a_sync(),
        slow_executor(),
        clock_skew(),
        live_head(),
        range_that_only_its_successors_prove(),
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

/// A validator changes bits of what it serves: it is found out and kept out, and nobody else is.
pub fn lying_peer() -> Scenario {
    Scenario::named("lying peer")
        .full_nodes(2)
        .commits(100)
        .set("state_sync.commits_per_fetch", 10)
        .at(secs(0))
        .lie(validator(1), Lie::FlipsBlocks)
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

/// A full node with a slow disk crashes twice while it catches up, and goes on from what was durable.
pub fn crash_in_the_middle_of_a_sync() -> Scenario {
    Scenario::named("crash in the middle of a sync")
        .full_nodes(1)
        .commits(200)
        .set("state_sync.commits_per_fetch", 10)
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

/// Nodes whose wall clocks are off by more than anyone allows still sync.
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

/// Full nodes follow a chain that grows, one of them through another full node only.
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
