//! What a network is put through, and what it promises meanwhile.

use super::{Settings, Standing, World};
use std::{fmt, ops::RangeInclusive};

/// All start at once; later some crash at once and come back one after the other.
#[derive(Clone, Debug)]
pub struct Run {
    /// Who is there.
    pub settings: Settings,
    /// Intervals by which everybody is to know everybody.
    pub join_within: u32,
    /// How many of a hundred honest nodes crash then.
    pub crash_percent: usize,
    /// Intervals after the crash in which they come back.
    pub back: RangeInclusive<u32>,
    /// Intervals in all.
    pub intervals: u32,
}

impl Run {
    /// Twelve intervals to find each other; then 30 % crash, stay away for two intervals, and come back within five.
    pub fn new(settings: Settings) -> Self {
        Self { settings, join_within: 12, crash_percent: 30, back: 2..=6, intervals: 22 }
    }

    /// Plays it. Calls `told` after each interval; ends with the first promise that is broken.
    pub fn play(&self, mut told: impl FnMut(u32, &Standing)) -> Result<(), Broken> {
        let mut world = World::new(self.settings.clone());
        for node in 0..world.nodes() {
            world.start(node);
        }
        let mut down = Vec::new();
        for interval in 1..=self.intervals {
            world.run_until(self.settings.interval * interval);
            let standing = world.standing();
            told(interval, &standing);
            self.check(interval, &standing)?;
            if interval == self.join_within {
                down = world.some_up(world.nodes() * self.crash_percent / 100);
                down.iter().for_each(|node| world.crash(*node));
            }
            let since_crash = interval.saturating_sub(self.join_within);
            if self.back.contains(&since_crash) {
                let left = (self.back.end() - since_crash + 1) as usize;
                for node in down.split_off(down.len() - down.len().div_ceil(left)) {
                    world.start(node);
                }
            }
        }
        Ok(())
    }

    fn check(&self, interval: u32, standing: &Standing) -> Result<(), Broken> {
        let target = self.settings.target_connections.min(self.settings.nodes - 1);
        let most_of_attacker = self.settings.target_connections / 4;
        let has_joined = interval >= self.join_within;
        let promises = [
            (
                standing.attacker_links_most <= most_of_attacker,
                "no node has more than a quarter of its links to the attacker",
            ),
            (interval == 1 || standing.honest_least > 0, "every node has an honest peer"),
            (!has_joined || standing.parts == 1, "the graph of the honest nodes is connected"),
            (!has_joined || standing.known_least >= 99.0, "every node knows 99 % of the others"),
            (interval != self.join_within || standing.links_least >= target, "every node has the links that it wants"),
            (
                interval < self.intervals || standing.links_least >= target,
                "every node has the links that it wants again",
            ),
        ];
        match promises.into_iter().find(|(holds, _)| !holds) {
            Some((_, promise)) => Err(Broken { interval, promise, standing: standing.clone() }),
            None => Ok(()),
        }
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// After which interval.
    pub interval: u32,
    /// Which.
    pub promise: &'static str,
    /// How far the nodes had got.
    pub standing: Standing,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after interval {} it does not hold that {}: {:?}", self.interval, self.promise, self.standing)
    }
}

impl std::error::Error for Broken {}
