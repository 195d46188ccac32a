//! What must hold, over many seeds.

use super::world::World;
use rand::RngExt;

const SEEDS: u64 = 50;

fn started(seed: u64, size: usize) -> World {
    let mut world = World::new(seed, size, 1_000_000);
    world.start_all();
    world
}

#[test]
fn validators_make_one_chain_whatever_the_order_of_messages() {
    for seed in 0..SEEDS {
        for size in if seed % 5 == 0 { &[1, 7][..] } else { &[4] } {
            let mut world = started(seed, *size);
            world.run(2_000);
            // A round takes the pace of 50 ms or, at most, one delay of 60 ms; the last rounds are on their way.
            assert!(world.lowest() >= 20, "seed {seed}, {size} validators: {}", world.lowest());
        }
    }
}

#[test]
fn chain_goes_on_with_one_of_four_dead() {
    for seed in 0..SEEDS {
        let mut world = started(seed, 4);
        world.run(1_000);
        world.kill(world.rng.clone().random_range(0..4));
        let before = world.lowest();
        world.run(3_000);
        assert!(world.lowest() >= before + 15, "seed {seed}: {} after {before}", world.lowest());
    }
}

#[test]
fn chain_stops_with_two_of_four_dead_and_goes_on_when_they_return() {
    for seed in 0..SEEDS {
        let mut world = started(seed, 4);
        world.run(1_000);
        world.kill(1);
        world.kill(3);
        world.run(1_000);
        let stopped = world.lowest();
        world.run(5_000);
        assert_eq!(world.lowest(), stopped, "seed {seed}: no quorum");
        world.start(3);
        world.start(1);
        world.run(3_000);
        assert!(world.lowest() >= stopped + 20, "seed {seed}: {} after {stopped}", world.lowest());
    }
}

#[test]
fn killed_validator_takes_part_again_and_never_equivocates() {
    for seed in 0..SEEDS {
        let mut world = started(seed, 4);
        let (victim, up_ms, down_ms) = {
            let rng = &mut world.rng;
            (rng.random_range(0..4), rng.random_range(100..1_500), rng.random_range(10..4_000))
        };
        world.run(up_ms);
        world.kill(victim);
        world.run(down_ms);
        world.start(victim);
        world.run(1_500);
        let height = world.lowest();
        world.run(1_500);
        assert!(world.lowest() >= height + 10, "seed {seed}: {} after {height}", world.lowest());
        assert!(world.committed_blocks(victim as u32, height) >= 10, "seed {seed}: validator {victim} is back");
    }
}

#[test]
fn chain_goes_on_after_all_were_killed_at_once() {
    for seed in 0..SEEDS {
        let mut world = started(seed, 4);
        world.run(1_000 + 7 * seed);
        (0..4).for_each(|node| world.kill(node));
        world.run(1_000);
        world.start_all();
        let before = world.lowest();
        world.run(3_000);
        assert!(world.lowest() >= before + 20, "seed {seed}: {} after {before}", world.lowest());
    }
}

#[test]
fn validators_hand_over_from_epoch_to_epoch() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 4, 8);
        world.start_all();
        world.run(3_000);
        let epoch = world.epoch(0);
        assert!(epoch >= 2, "seed {seed}: epoch {epoch}");
        for commit in world.nodes[0].store.iter().filter(|commit| commit.end_of_epoch().is_some()) {
            let epoch = commit.commit.epoch;
            let commits = world.nodes[0].store.iter().filter(|commit| commit.commit.epoch == epoch).count();
            assert!((8..16).contains(&commits), "seed {seed}: {commits} commits in epoch {epoch}");
        }
    }
}

#[test]
fn epochs_change_while_validators_are_killed_and_return() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 4, 6);
        world.start_all();
        for _ in 0..3 {
            let (victim, down_ms) = (world.rng.random_range(0..4), world.rng.random_range(10..3_000));
            world.kill(victim);
            world.run(down_ms);
            world.start(victim);
            let before = world.lowest();
            world.run(2_000);
            assert!(world.lowest() >= before + 6, "seed {seed}: {} after {before}", world.lowest());
        }
        assert!(world.epoch(0) >= 2, "seed {seed}: epoch {}", world.epoch(0));
    }
}

#[test]
fn validator_that_was_cut_off_catches_up_and_takes_part() {
    for seed in 0..SEEDS / 5 {
        let mut world = World::new(seed, 4, 20);
        world.start_all();
        world.run(1_000);
        for other in 0..3 {
            world.cut.extend([(other, 3), (3, other)]);
        }
        world.run(10_000);
        world.cut.clear();
        world.run(2_500);
        let height = world.lowest();
        assert!(height + 10 >= world.height(0), "seed {seed}: {height} of {}", world.height(0));
        world.run(2_000);
        assert!(world.committed_blocks(3, height) >= 10, "seed {seed}");
    }
}

#[test]
fn equivocating_validator_does_not_split_the_chain() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, 4, 12);
        let twin = world.add(3);
        // At random in one half of the seeds; in the other each twin talks to its own part.
        if seed % 2 == 0 {
            world.twins_lose_percent = 0;
            world.cut = [(3, 1), (3, 2), (twin, 0), (twin, 1)].into();
        }
        world.start_all();
        world.run(4_000);
        let honest = (0..3).map(|node| world.height(node)).min().unwrap();
        assert!(honest >= 8, "seed {seed}: {honest}");
    }
}

#[test]
fn equal_seeds_make_equal_chains() {
    let chain = |seed| {
        let mut world = World::new(seed, 4, 10).with_transactions(2);
        world.start_all();
        world.run(2_000);
        assert!(
            world.nodes[0].store.iter().flat_map(|commit| &commit.blocks).any(|block| block.transactions.len() == 2)
        );
        world.nodes[0].store.iter().map(|commit| commit.commit.reference()).collect::<Vec<_>>()
    };
    assert_eq!(chain(7), chain(7));
    assert_ne!(chain(7), chain(8));
}
