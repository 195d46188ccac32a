//! Throughput does not fall with latency while what may be on the way covers bandwidth times delay. Virtual time: equal
//! on every machine. `make bench-latency` tells more.

use soma_testkit::{
    BlockKind,
    simulation::{Scenario, full, millis, secs},
};
use std::time::Duration;

/// Of each link: 20 Mbit/s.
const BYTES_PER_SECOND: u64 = 2_500_000;

/// When a fresh node has executed a chain that four peers serve, which their links carry in eight seconds.
fn synced_after(latency: Duration) -> Duration {
    let peers = 4;
    let blocks = 8 * peers * BYTES_PER_SECOND / BlockKind::L.block_bytes() as u64;
    let report = Scenario::named("latency")
        .validators(peers as u32)
        .full_nodes(1)
        .commits((blocks / peers) as u32)
        .commits_per_epoch(u32::MAX)
        .blocks(BlockKind::L)
        .latency(latency..latency)
        .bandwidth(BYTES_PER_SECOND)
        .synced_within(secs(60))
        .run(1);
    report.unwrap_or_else(|failure| panic!("{failure}")).caught_up[&full(0)]
}

#[test]
fn a_tenth_of_a_second_on_each_link_costs_less_than_a_fifth_of_the_throughput() {
    let (near, far) = (synced_after(millis(0)), synced_after(millis(100)));
    assert!(near.as_secs_f64() >= 0.8 * far.as_secs_f64(), "{near:?} without latency, {far:?} with it");
}
