//! Dozens of nodes send each other messages in simulation: with churn, a flood, and hostile nodes.
//! `make sim-broadcast` does the same with a thousand nodes.

use soma_testkit::broadcast_simulation::{Outcome, Played, Scenario, Size, Unrest};
use std::time::Duration;

fn size(seed: u64) -> Size {
    Size { nodes: 60, validators: 12, hostile: 0, unrest: Unrest::default(), measured: Duration::from_secs(4), seed }
}

fn play(scenario: Scenario, size: &Size) -> Played {
    let played = scenario.play(size);
    let Outcome { broken, wrong_penalties, .. } = &played.outcome;
    assert_eq!((broken.as_slice(), *wrong_penalties), (&[][..], 0), "seed {}", size.seed);
    played
}

fn reaches_goals(scenario: Scenario, size: &Size) -> Played {
    let played = play(scenario, size);
    for goal in &played.goals {
        assert!(goal.is_met(), "seed {}: {} is {}, at most {}", size.seed, goal.what, goal.value, goal.limit);
    }
    played
}

#[test]
fn small_messages_arrive_within_four_delays_at_few_extra_bytes() {
    // In a small network every validator is a neighbour of each other one: more copies than among a thousand nodes.
    let played = reaches_goals(Scenario::Small, &size(1));
    let certificates = &played.outcome.topics["certificates"];
    assert!(certificates.deliveries > 10_000, "{certificates:?}");
}

#[test]
fn large_messages_hardly_arrive_twice() {
    let played = reaches_goals(Scenario::Large, &size(2));
    assert!(played.outcome.topics["certificates"].deliveries > 200);
}

#[test]
fn flood_of_transactions_does_not_delay_consensus() {
    let small = Size { nodes: 30, measured: Duration::from_secs(1), ..size(3) };
    let played = reaches_goals(Scenario::Flood, &small);
    assert!(played.outcome.dropped > 0, "the flood is more than the links carry");
}

#[test]
fn nodes_that_stay_get_all_messages_despite_churn_and_lost_connections() {
    let unrest = Unrest { leaves_per_minute: 0.5, breaks_per_minute: 0.5, ..Unrest::default() };
    let played = play(Scenario::Churn, &Size { unrest, ..size(4) });
    assert_eq!(played.outcome.topics["certificates"].missing, 0);
    assert!(played.outcome.left > 0 && played.outcome.broken_links > 0 && played.outcome.recovered > 0);
}

#[test]
fn hostile_nodes_delay_honest_ones_by_at_most_half() {
    for seed in 1..=3 {
        let played = reaches_goals(Scenario::Hostile, &Size { hostile: 12, ..size(seed) });
        assert!(!played.outcome.penalties.is_empty(), "the hostile nodes are there");
    }
}

#[test]
fn same_seed_makes_same_deliveries() {
    let small = Size { nodes: 40, hostile: 8, measured: Duration::from_secs(1), ..size(7) };
    for scenario in [Scenario::Churn, Scenario::Hostile] {
        let (one, other) = (play(scenario, &small), play(scenario, &small));
        assert_eq!(one, other);
        assert_ne!(one.outcome.digest, play(scenario, &Size { seed: 8, ..small.clone() }).outcome.digest);
    }
}
