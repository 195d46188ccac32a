//! Dozens of nodes send each other messages in simulation: with churn, a flood, and hostile nodes.
//! `make sim-broadcast` does the same with a thousand nodes.

use soma_testkit::broadcast_simulation::{Outcome, Played, Scenario, Size};
use std::time::Duration;

fn size(seed: u64) -> Size {
    Size { nodes: 60, validators: 12, hostile: 0, measured: Duration::from_secs(4), seed }
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
