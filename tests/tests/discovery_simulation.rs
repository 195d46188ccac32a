//! Hundreds of nodes find each other and stay connected, despite crashes and an attacker.
//! `make sim-discovery` does the same with a thousand nodes.

use soma_testkit::discovery_simulation::{Progress, Run, Settings};

fn play(settings: Settings) -> Vec<Progress> {
    let mut steps = Vec::new();
    let kept = Run::new(settings).play(|_, progress| steps.push(progress.clone()));
    kept.unwrap_or_else(|broken| panic!("{broken}"));
    steps
}

fn nodes(nodes: usize, seed: u64) -> Settings {
    Settings { nodes, seed, ..Settings::default() }
}

#[test]
fn nodes_find_each_other_from_one_seed_each_and_survive_mass_crash() {
    for seed in 1..=3 {
        let steps = play(nodes(150, seed));
        let joined = &steps[11];
        assert_eq!((joined.up, joined.at_target), (150, 150));
        assert_eq!(steps[12].up, 105, "30 % have crashed");
        assert_eq!(steps.last().map(|progress| progress.up), Some(150), "and are back");
    }
}

#[test]
fn sybil_attacker_gets_at_most_a_quarter_of_a_nodes_links() {
    for seed in 1..=2 {
        let steps = play(Settings { attackers: 500, ..nodes(80, seed) });
        let most = steps.iter().map(|progress| progress.attacker_links_most).max();
        assert!(most > Some(0), "the attacker is there: {most:?}");
    }
}

#[test]
fn same_seed_makes_same_network() {
    let small = || Settings { attackers: 20, ..nodes(40, 7) };
    assert_eq!(play(small()), play(small()));
}
