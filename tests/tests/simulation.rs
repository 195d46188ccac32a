//! Whole networks in virtual time: the fixed set that CI runs. `make sim` goes on from here, over many seeds.

use soma_testkit::simulation::{Report, Scenario, random_scenario, scenarios};

/// Plays a scenario twice; both runs must be the same, and every invariant must hold.
fn play(scenario: &Scenario, seed: u64) -> Report {
    match scenario.run_twice(seed) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}\n{scenario}"),
    }
}

#[test]
fn nodes_that_know_only_the_first_find_each_other() {
    play(&scenarios::startup_and_discovery(), 1);
}

#[test]
fn a_node_with_an_empty_disk_catches_up() {
    play(&scenarios::cold_sync(), 1);
}

#[test]
fn ranges_of_workers_that_panic_are_fetched_by_others() {
    assert_eq!(play(&scenarios::worker_crash(), 1).faults, 2);
}

#[test]
fn a_peer_that_lies_holds_nobody_up() {
    play(&scenarios::lying_peer(), 1);
}

#[test]
fn nodes_follow_from_epoch_to_epoch() {
    play(&scenarios::epoch_change(), 1);
}

#[test]
fn a_network_heals_after_a_partition() {
    play(&scenarios::partition_and_heal(), 1);
}

#[test]
fn a_node_that_crashed_goes_on_from_what_was_durable() {
    assert_eq!(play(&scenarios::crash_in_the_middle_of_a_sync(), 1).restarts, 2);
}

#[test]
fn a_slow_executor_gets_every_commit() {
    play(&scenarios::slow_executor(), 1);
}

#[test]
fn wrong_clocks_do_not_stop_a_sync() {
    play(&scenarios::clock_skew(), 1);
}

#[test]
fn full_nodes_follow_the_head() {
    play(&scenarios::live_head(), 1);
}

#[test]
fn a_range_for_whose_end_nobody_has_votes_is_proved_by_what_comes_after_it() {
    play(&scenarios::range_that_only_its_successors_prove(), 382);
}

#[test]
fn random_scenarios_of_fixed_seeds_hold() {
    for seed in 0..10 {
        play(&random_scenario(seed), seed);
    }
}
