//! Verifier: how much may be on the CPU pool at once, and what waits for it.
//!
//! A job runs when fewer than [`Config::permits`] do; up to [`Config::max_waiting`] wait, those that others wait for
//! first; further ones are refused, and whoever asked tries again later.

use crate::core::{Core, Now};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// How the Verifier works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Jobs on the pool at once: one for each thread and one more that is ready when it ends.
    pub permits: usize,
    /// Jobs waiting for a permit. Each holds at most one answer's bytes.
    pub max_waiting: usize,
}

/// How soon a job is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// A range's commits and votes: nothing of the range can go on without.
    High,
    /// Blocks and node infos.
    Normal,
}

/// What can happen to the Verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From workers and Discovery: check this.
    Submit {
        /// Under which the shell keeps job and answer's address.
        job: u64,
        /// How soon.
        priority: Priority,
    },
    /// From the pool: the job is done, or panicked.
    Done {
        /// Which.
        job: u64,
        /// Whether it panicked.
        panicked: bool,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Put the job on the pool.
    Run(u64),
    /// Tell whoever asked that there is too much to do.
    Refuse(u64),
}

/// The Verifier as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Jobs on the pool.
    pub running: usize,
    /// Jobs waiting.
    pub waiting: usize,
    /// Jobs done since start.
    pub done: u64,
    /// Jobs refused since start.
    pub refused: u64,
    /// Jobs that panicked since start.
    pub panicked: u64,
}

/// The core of the Verifier.
#[derive(Serialize, Deserialize)]
pub struct Verifier {
    config: Config,
    running: BTreeSet<u64>,
    high: VecDeque<u64>,
    normal: VecDeque<u64>,
    done: u64,
    refused: u64,
    panicked: u64,
}

impl Verifier {
    /// Starts idle.
    pub fn new(config: Config) -> Self {
        let (high, normal) = (VecDeque::new(), VecDeque::new());
        Self { config, running: BTreeSet::new(), high, normal, done: 0, refused: 0, panicked: 0 }
    }
}

impl Core for Verifier {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "verifier";

    fn handle(&mut self, _now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Submit { job, .. } if self.high.len() + self.normal.len() >= self.config.max_waiting => {
                self.refused += 1;
                effects.push(Effect::Refuse(job));
            }
            Input::Submit { job, priority: Priority::High } => self.high.push_back(job),
            Input::Submit { job, priority: Priority::Normal } => self.normal.push_back(job),
            Input::Done { job, panicked } => {
                self.running.remove(&job);
                self.done += 1;
                self.panicked += u64::from(panicked);
            }
        }
        while self.running.len() < self.config.permits {
            let Some(job) = self.high.pop_front().or_else(|| self.normal.pop_front()) else { break };
            self.running.insert(job);
            effects.push(Effect::Run(job));
        }
        effects
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            running: self.running.len(),
            waiting: self.high.len() + self.normal.len(),
            done: self.done,
            refused: self.refused,
            panicked: self.panicked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Now = Now { monotonic: Duration::ZERO, unix_ms: 0 };

    fn submit(core: &mut Verifier, job: u64, priority: Priority) -> Vec<Effect> {
        core.handle(NOW, Input::Submit { job, priority })
    }

    #[test]
    fn jobs_wait_for_permits_the_wanted_ones_first_and_beyond_the_bound_are_refused() {
        let mut core = Verifier::new(Config { permits: 1, max_waiting: 2 });
        assert_eq!(submit(&mut core, 1, Priority::Normal), [Effect::Run(1)]);
        assert_eq!(submit(&mut core, 2, Priority::Normal), []);
        assert_eq!(submit(&mut core, 3, Priority::High), []);
        assert_eq!(submit(&mut core, 4, Priority::High), [Effect::Refuse(4)]);
        assert_eq!(core.handle(NOW, Input::Done { job: 1, panicked: true }), [Effect::Run(3)]);
        assert_eq!(core.handle(NOW, Input::Done { job: 3, panicked: false }), [Effect::Run(2)]);
        let snapshot = core.snapshot();
        assert_eq!((snapshot.done, snapshot.refused, snapshot.panicked), (2, 1, 1));
    }
}
