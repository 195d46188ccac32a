//! Whole networks in virtual time: the fixed set that CI runs. `make sim` goes on from here, over many seeds.

use soma_testkit::simulation::{Report, Scenario, full, random_scenario, scenarios, secs};

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
fn nodes_begin_after_the_latest_epoch_although_one_crashes_meanwhile() {
    let report = play(&scenarios::start_after_the_latest_epoch(), 1);
    // Full nodes execute the current epoch alone.
    assert!(report.executed < 4 * 400 + 2 * 100, "{} commits", report.executed);
}

#[test]
fn one_node_that_keeps_everything_is_enough_for_a_node_that_joins_late() {
    let report = play(&scenarios::join_where_one_node_keeps_the_past(), 1);
    assert_eq!(report.executed, 4 * 400 + 400);
}

#[test]
fn node_that_joins_late_gets_the_past_from_the_archive_alone() {
    let report = play(&scenarios::past_in_the_archive_alone(), 1);
    assert_eq!(report.executed, 4 * 400 + 400);
    assert!(report.segments_written >= 12 && report.segments_read >= 7, "{report}");
    assert_eq!(report.penalties, []);
}

#[test]
fn node_that_was_away_for_too_long_goes_on_with_the_archive() {
    let report = play(&scenarios::absence_longer_than_the_window(), 1);
    assert_eq!((report.executed, report.restarts), (4 * 400 + 400, 1));
    assert!(report.segments_read >= 2, "{report}");
}

#[test]
fn outage_and_lies_of_the_archive_cost_time_and_nothing_else() {
    let report = play(&scenarios::archive_outage(), 1);
    assert_eq!((report.executed, report.penalties), (4 * 400 + 400, vec![]));
}

#[test]
fn a_network_heals_after_a_partition() {
    play(&scenarios::partition_and_heal(), 1);
}

#[test]
fn messages_of_every_node_are_heard_by_all_after_crashes_a_panic_and_a_partition() {
    let report = play(&scenarios::messages_and_churn(), 1);
    assert_eq!(report.penalties, []);
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
fn range_without_votes_for_its_end_is_proved_by_its_successors() {
    play(&scenarios::range_that_only_its_successors_prove(), 382);
}

#[test]
fn orderly_shutdown_leaves_nothing_and_nodes_resume_after_restart() {
    let report = play(&scenarios::orderly_restarts(), 1);
    assert_eq!((report.restarts, report.penalties), (2, vec![]));
}

#[test]
fn the_range_of_a_worker_that_hangs_is_fetched_by_another() {
    let report = play(&scenarios::hung_worker(), 1);
    assert_eq!((report.actors_lost.len(), report.penalties), (1, vec![]));
    assert!(report.actors_lost[0].exit.contains("no sign of life"), "{:?}", report.actors_lost);
}

#[test]
fn a_worker_that_hangs_on_its_peer_is_overtaken_by_another_within_seconds() {
    let report = play(&scenarios::worker_that_hangs_on_its_peer(), 1);
    assert_eq!((report.actors_lost, report.penalties), (vec![], vec![]));
}

#[test]
fn nodes_sync_while_many_of_their_actors_panic_again_and_again() {
    let report = play(&scenarios::storm_of_panics(), 1);
    assert_eq!((report.faults, report.actors_lost.len()), (105, 105));
    assert_eq!((report.gave_up, report.penalties), (0, vec![]));
}

#[test]
fn actor_failure_restarts_exactly_its_dependent_actors() {
    let report = play(&scenarios::group_restarts(), 1);
    assert_eq!(report.faults, 4);
    // Discovery and PeerHeights once alone, and once each with the one before it.
    let made_anew = [("connections", 1), ("discovery", 2), ("state-sync", 1), ("peer-heights", 2)];
    assert_eq!(report.actors_restarted, made_anew.map(|(actor, times)| (full(0), actor.to_owned(), times)));
    assert_eq!(report.penalties, []);
}

#[test]
fn system_with_failing_actor_gives_up_with_reason_and_works_once_repaired() {
    let report = play(&scenarios::system_that_gives_up(), 1);
    assert_eq!((report.gave_up, report.restarts, report.penalties), (1, 1, vec![]));
}

#[test]
fn node_with_failing_disk_announces_only_durable_commits_and_catches_up() {
    let report = play(&scenarios::disk_that_fails_for_a_while(), 1);
    assert!(report.disk_faults > 2, "{report}");
    assert_eq!((report.actors_lost, report.penalties), (vec![], vec![]));
}

#[test]
fn a_write_that_fails_halfway_is_gone_on_from_where_it_ended() {
    let report = play(&scenarios::disk_that_writes_half(), 1);
    assert_eq!((report.disk_faults, report.actors_lost, report.penalties), (10, vec![], vec![]));
}

#[test]
fn reads_that_fail_hold_a_node_up_and_no_more() {
    let report = play(&scenarios::disk_that_cannot_be_read(), 1);
    assert_eq!((report.disk_faults, report.gave_up), (16, 0));
}

#[test]
fn peers_that_fall_silent_during_a_sync_are_penalised() {
    // Otherwise it would say nothing that nobody was blamed elsewhere.
    let slow = Scenario::named("peers that are not heard from").full_nodes(1).commits(500).bandwidth(20_000);
    let silent = slow.at(secs(3)).partition([full(0)]).at(secs(60)).heal();
    let report = play(&silent.synced_within(secs(200)), 1);
    assert!(!report.penalties.is_empty(), "{report}");
}

#[test]
fn random_scenarios_of_fixed_seeds_hold() {
    for seed in 0..10 {
        play(&random_scenario(seed), seed);
    }
}
