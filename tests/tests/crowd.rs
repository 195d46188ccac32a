//! Networks of hundreds of nodes find each other and stay in one piece, whatever crashes and whoever is against them. The
//! same with a thousand nodes: `make sim-discovery`.

use soma_testkit::crowd::{Run, Settings, Standing};

fn play(settings: Settings) -> Vec<Standing> {
    let mut standings = Vec::new();
    let kept = Run::new(settings).play(|_, standing| standings.push(standing.clone()));
    kept.unwrap_or_else(|broken| panic!("{broken}"));
    standings
}

fn nodes(nodes: usize, seed: u64) -> Settings {
    Settings { nodes, seed, ..Settings::default() }
}

#[test]
fn nodes_that_each_know_one_of_three_seeds_find_each_other_and_survive_a_crash_of_a_third() {
    for seed in 1..=3 {
        let standings = play(nodes(150, seed));
        let joined = &standings[11];
        assert_eq!((joined.up, joined.at_target), (150, 150));
        assert_eq!(standings[12].up, 105, "30 % have crashed");
        assert_eq!(standings.last().map(|standing| standing.up), Some(150), "and are back");
    }
}

#[test]
fn an_attacker_with_five_hundred_identities_in_two_networks_gets_no_more_than_a_quarter_of_any_nodes_links() {
    for seed in 1..=2 {
        let standings = play(Settings { attackers: 500, ..nodes(80, seed) });
        let most = standings.iter().map(|standing| standing.attacker_links_most).max();
        assert!(most > Some(0), "the attacker is there: {most:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_network() {
    let small = || Settings { attackers: 20, ..nodes(40, 7) };
    assert_eq!(play(small()), play(small()));
}
