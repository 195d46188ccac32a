//! Plays a scenario, and reports the result.

use crate::simulation::{
    replaying,
    report::{Failure, Report, Taken},
    scenario::{Scenario, SettingsError},
    world,
};
use std::collections::BTreeMap;

impl Scenario {
    /// Plays the scenario once.
    pub fn run(&self, seed: u64) -> Result<Report, Failure> {
        world::play(self, seed)?.result
    }

    /// Plays the scenario once; the trace of all its nodes, as the bytes of a file.
    pub fn record(&self, seed: u64) -> Result<Vec<u8>, SettingsError> {
        world::play(self, seed).map(|played| played.trace)
    }

    /// Plays the scenario once and counts the inputs that actors take, by their kinds.
    pub fn inputs(&self, seed: u64) -> Result<BTreeMap<Taken, u64>, Failure> {
        let played = world::play(self, seed)?;
        played.result.map(|_| played.journal.taken())
    }

    /// Plays the scenario once and tells everything that happened, one line for each event.
    pub fn tell(&self, seed: u64) -> Result<Vec<String>, SettingsError> {
        world::play(self, seed).map(|played| played.journal.in_words())
    }

    /// Plays the scenario twice with one seed: both runs must be the same in every event.
    pub fn run_twice(&self, seed: u64) -> Result<Report, Failure> {
        let (first, second) = (world::play(self, seed)?, world::play(self, seed)?);
        let in_traces = || replaying::difference(&first.trace, &second.trace);
        match first.journal.difference(&second.journal).or_else(in_traces) {
            None => first.result,
            Some((first, second)) => Err(Failure::Diverged { seed, first, second }),
        }
    }
}
