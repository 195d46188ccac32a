//! Hostile peers in virtual time: one honest peer is enough, whatever the others do. `make sim SCENARIO=hostile` goes
//! on from here, over more seeds.

use soma_testkit::{
    hostile::Behaviour,
    simulation::{
        Event, LINK_DELAYS, NodeName, Report, Scenario, delays_under_attack, fresh_among_silent, full,
        hostile_scenario, silent_majority, validator,
    },
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// How many mixes of behaviours are played.
const SEEDS: u64 = 200;

/// Threads that play them.
const THREADS: usize = 2;

fn behaviours(scenario: &Scenario) -> BTreeSet<Behaviour> {
    let behaviours = scenario.events.iter().filter_map(|(_, event)| match event {
        Event::Hostile(_, behaviour) => Some(*behaviour),
        _ => None,
    });
    behaviours.collect()
}

/// What holds of each mix, beside every invariant: all commits were executed, in order, each with the digest that it
/// has on the chain.
fn check(scenario: &Scenario, seed: u64, report: &Report) {
    let honest = |name: &NodeName| scenario.honest_nodes().contains(name);
    let penalties: Vec<_> = report.penalties.iter().filter(|penalty| honest(&penalty.by)).collect();
    assert!(penalties.is_empty(), "seed {seed}: an honest peer keeps its full score: {penalties:?}\n{scenario}");
    assert!(report.caught_up.contains_key(&full(0)), "seed {seed}: {report}");
    assert!(report.actors_lost.is_empty(), "seed {seed}: {:?}", report.actors_lost);
}

#[test]
fn one_honest_peer_among_nine_hostile_suffices_for_a_simulated_sync() {
    let next = AtomicU64::new(0);
    let play = || {
        let mut slowest = (Duration::ZERO, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                break slowest;
            }
            let scenario = hostile_scenario(seed);
            assert_eq!(scenario.honest_nodes(), [validator(0), full(0)]);
            match scenario.run(seed) {
                Ok(report) => {
                    check(&scenario, seed, &report);
                    slowest = slowest.max((report.caught_up[&full(0)], seed));
                }
                Err(failure) => panic!("{failure}\n{scenario}"),
            }
        }
    };
    let slowest = thread::scope(|scope| {
        let playing: Vec<_> = (0..THREADS).map(|_| scope.spawn(play)).collect();
        playing.into_iter().map(|thread| thread.join().expect("a mix that is as it must be")).max()
    });
    let (time, seed) = slowest.expect("at least one thread");
    println!("the slowest sync took {time:?} of virtual time, with seed {seed}");
    let played: BTreeSet<_> = (0..SEEDS).flat_map(|seed| behaviours(&hostile_scenario(seed))).collect();
    assert_eq!(played, Behaviour::ALL.into(), "every behaviour has its part in some mix");
}

#[test]
fn a_run_among_hostile_peers_is_the_same_each_time() {
    for seed in [0, 1, 2] {
        let scenario = hostile_scenario(seed);
        scenario.run_twice(seed).unwrap_or_else(|failure| panic!("{failure}\n{scenario}"));
    }
}

/// Seeds of the majorities that are played here; `make sim SCENARIO=silent` goes on.
const MAJORITIES: u64 = 8;

#[test]
fn twenty_silent_peers_of_twenty_nine_hold_up_no_commit_for_a_second() {
    let next = AtomicU64::new(0);
    let play = || {
        let mut delays = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= MAJORITIES {
                break delays;
            }
            let scenario = silent_majority(seed);
            let report = scenario.run(seed).unwrap_or_else(|failure| panic!("{failure}\n{scenario}"));
            delays.extend(delays_under_attack(&report, full(0)));
        }
    };
    let mut delays: Vec<_> = thread::scope(|scope| {
        let playing: Vec<_> = (0..THREADS).map(|_| scope.spawn(play)).collect();
        playing.into_iter().flat_map(|thread| thread.join().expect("a network that goes on")).collect()
    });
    delays.sort_unstable();
    let (p99, most) = (delays[delays.len() * 99 / 100], delays[delays.len() - 1]);
    println!("of {} commits: p50 {:?}, p99 {p99:?}, at most {most:?}", delays.len(), delays[delays.len() / 2]);
    assert!(p99 < Duration::from_millis(250) + LINK_DELAYS, "{p99:?}");
    assert!(most < Duration::from_secs(1) + LINK_DELAYS, "{most:?}");
}

#[test]
fn fresh_node_among_silent_peers_keeps_four_fifths_of_its_speed() {
    for seed in 0..4 {
        let attacked = fresh_among_silent(seed);
        let undisturbed = Scenario { events: Vec::new(), ..attacked.clone() };
        let [attacked, undisturbed] = [attacked, undisturbed].map(|scenario| {
            let report = scenario.run(seed).unwrap_or_else(|failure| panic!("{failure}\n{scenario}"));
            report.caught_up[&full(0)]
        });
        println!("seed {seed}: {attacked:?}, and {undisturbed:?} without silent peers");
        assert!(attacked * 4 <= undisturbed * 5, "seed {seed}: {attacked:?}, and {undisturbed:?} without silent peers");
    }
}
