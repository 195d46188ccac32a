//! What a claim can do to a sync: nothing to speak of. Virtual time: equal on every machine.

use soma_testkit::{
    hostile::Behaviour,
    simulation::{Event, Scenario, full, millis, secs, validator},
};
use std::time::Duration;

/// Peers that a node with nothing syncs from, the claimants among them.
const PEERS: u32 = 10;

/// Of each link, so that a sync takes much longer than it takes to find peers.
const BYTES_PER_SECOND: u64 = 25_000;

/// Which peer gets the last range is chance, and one range is a tenth of a sync: claims are to be seen above that.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

/// How long syncs of fresh nodes take, one for each seed, from so many peers, of whom the last `claimants` behave so.
fn synced_after(peers: u32, claimants: u32, behaviour: Behaviour) -> Duration {
    SEEDS.map(|seed| sync(seed, peers, claimants, behaviour)).sum()
}

/// When a fresh node has executed the chain.
fn sync(seed: u64, peers: u32, claimants: u32, behaviour: Behaviour) -> Duration {
    let mut scenario = Scenario::named("claims")
        .validators(peers)
        .committee(4)
        .full_nodes(1)
        .commits(300)
        .latency(millis(30)..millis(30))
        .bandwidth(BYTES_PER_SECOND)
        // Many ranges, so that the last of them is no great part of the whole.
        .set("state_sync.commits_per_fetch", 10)
        .synced_within(secs(300));
    for number in peers - claimants..peers {
        scenario.events.push((Duration::ZERO, Event::Hostile(validator(number), behaviour)));
    }
    let report = scenario.run(seed).unwrap_or_else(|failure| panic!("{failure}\n{scenario}"));
    let honest = scenario.honest_nodes();
    let penalties: Vec<_> = report.penalties.iter().filter(|penalty| honest.contains(&penalty.by)).collect();
    assert!(penalties.is_empty(), "honest peers keep their full score: {penalties:?}");
    report.caught_up[&full(0)]
}

fn expect_no_delay(with: Duration, without: Duration, what: &str) {
    println!("{what}: {with:?} with the claims, {without:?} without");
    assert!(with.as_secs_f64() <= 1.1 * without.as_secs_f64(), "{what}: {with:?}, and {without:?} without them");
}

#[test]
fn overclaiming_peers_that_serve_delay_a_sync_by_at_most_a_tenth() {
    let behaviour = Behaviour::ClaimsEverything;
    let without = synced_after(PEERS, 0, behaviour);
    for claimants in [1, PEERS - 1] {
        let with = synced_after(PEERS, claimants, behaviour);
        expect_no_delay(with, without, &format!("{claimants} of {PEERS} claim and serve"));
    }
}

#[test]
fn one_overclaiming_empty_peer_delays_a_sync_by_at_most_a_tenth() {
    let behaviour = Behaviour::ClaimsWithoutServing;
    let with = synced_after(PEERS, 1, behaviour);
    expect_no_delay(with, synced_after(PEERS - 1, 0, behaviour), "1 of 10 claims only");
}

#[test]
fn majority_of_overclaiming_empty_peers_delays_a_sync_by_at_most_a_tenth() {
    let behaviour = Behaviour::ClaimsWithoutServing;
    let with = synced_after(PEERS, PEERS - 1, behaviour);
    expect_no_delay(with, synced_after(1, 0, behaviour), "9 of 10 claim only");
}
