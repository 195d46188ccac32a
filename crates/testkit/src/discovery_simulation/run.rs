//! The course of a run, and the promises that are checked after each interval.

use super::{progress::Progress, settings::Settings, world::World};
use std::{fmt, ops::RangeInclusive};

/// All nodes start at once; later some crash at once and restart one after the other.
#[derive(Clone, Debug)]
pub struct Run {
    /// The nodes and the attacker.
    pub settings: Settings,
    /// Intervals until the nodes must know each other. Then the crash happens.
    pub join_within: u32,
    /// Share of the honest nodes that crash, in percent.
    pub crash_percent: usize,
    /// Intervals after the crash in which the nodes restart.
    pub back: RangeInclusive<u32>,
    /// Intervals of the whole run.
    pub intervals: u32,
}

impl Run {
    /// Twelve intervals to find each other; then 30 % crash, stay down for two intervals, and restart within four.
    pub fn new(settings: Settings) -> Self {
        Self { settings, join_within: 12, crash_percent: 30, back: 2..=5, intervals: 20 }
    }

    /// Plays the run. Calls `report` after each interval; stops at the first broken promise.
    pub fn play(&self, mut report: impl FnMut(u32, &Progress)) -> Result<(), Broken> {
        let mut world = World::new(self.settings.clone());
        for node in 0..world.nodes() {
            world.start(node);
        }
        let mut down = Vec::new();
        for interval in 1..=self.intervals {
            world.run_until(self.settings.interval * interval);
            let progress = world.progress();
            report(interval, &progress);
            self.check(interval, &progress)?;
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

    fn check(&self, interval: u32, progress: &Progress) -> Result<(), Broken> {
        let target = self.settings.target_connections.min(self.settings.nodes - 1);
        let most_of_attacker = self.settings.target_connections / 4;
        let has_joined = interval >= self.join_within;
        let promises = [
            (
                progress.attacker_links_most <= most_of_attacker,
                "no node has more than a quarter of its links to the attacker",
            ),
            (interval == 1 || progress.honest_least > 0, "every node has an honest peer"),
            (!has_joined || progress.parts == 1, "the graph of the honest nodes is connected"),
            (!has_joined || progress.known_least >= 99.0, "every node knows 99 % of the others"),
            (interval != self.join_within || progress.links_least >= target, "every node has the links that it wants"),
            (
                interval < self.intervals || progress.links_least >= target,
                "every node has the links that it wants again",
            ),
        ];
        match promises.into_iter().find(|(holds, _)| !holds) {
            Some((_, promise)) => Err(Broken { interval, promise, progress: progress.clone() }),
            None => Ok(()),
        }
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The interval after which the promise did not hold.
    pub interval: u32,
    /// The promise.
    pub promise: &'static str,
    /// How far the nodes had got.
    pub progress: Progress,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after interval {} it does not hold that {}: {:?}", self.interval, self.promise, self.progress)
    }
}

impl std::error::Error for Broken {}
