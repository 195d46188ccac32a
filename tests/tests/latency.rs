//! Throughput does not fall with latency while what may be on the way covers bandwidth times delay, and no peer's
//! link lies idle while others have answers in line. Virtual time: equal on every machine. `make bench-latency` tells
//! more.

use soma_testkit::{
    BlockKind,
    simulation::{Scenario, full, millis, secs},
};
use std::time::Duration;

/// Of each link: 20 Mbit/s.
const BYTES_PER_SECOND: u64 = 2_500_000;

/// In which the links of all four peers carry the chain.
const CHAIN_SECONDS: u64 = 8;

/// When a fresh node has executed a chain that four peers serve.
fn synced_after(latency: Duration) -> Duration {
    let peers = 4;
    let blocks = CHAIN_SECONDS * peers * BYTES_PER_SECOND / BlockKind::L.block_bytes() as u64;
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
fn latency_of_100_ms_costs_less_than_a_fifth_of_the_throughput() {
    let (near, far) = (synced_after(millis(0)), synced_after(millis(100)));
    assert!(near.as_secs_f64() >= 0.8 * far.as_secs_f64(), "{near:?} without latency, {far:?} with it");
}

#[test]
fn links_of_four_peers_reach_three_quarters_utilisation_at_100_ms() {
    let took = synced_after(millis(100));
    assert!(
        CHAIN_SECONDS as f64 >= 0.75 * took.as_secs_f64(),
        "{took:?} for what the links carry in {CHAIN_SECONDS} s"
    );
}
