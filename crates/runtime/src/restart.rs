//! Whether and when an actor that ended is started again. Pure: time and randomness come in.
//!
//! | exit                                | permanent | transient | temporary |
//! |-------------------------------------|-----------|-----------|-----------|
//! | stopped                             | restart   | stop      | stop      |
//! | failed, panicked, cancelled, killed | restart   | restart   | stop      |
//!
//! More restarts than the intensity allows within its window escalate to the parent.

use crate::exit::ExitReason;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_protocol::Backoff;
use std::{collections::VecDeque, time::Duration};

/// Which ends of an actor call for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always.
    Permanent,
    /// After failures only.
    Transient,
    /// Never.
    Temporary,
}

/// How many restarts are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed ...
    pub max_restarts: usize,
    /// ... within this time.
    pub within: Duration,
}

impl Default for Intensity {
    /// Ten within a minute: with the default backoff a child that always fails reaches that in 11 to 21 seconds.
    fn default() -> Self {
        Self { max_restarts: 10, within: Duration::from_secs(60) }
    }
}

/// Waits before an actor is restarted, where nothing else is said.
pub const RESTART_BACKOFF: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(5) };

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new one, after this time.
    Restart {
        /// The backoff.
        after: Duration,
    },
    /// Nothing.
    Stop,
    /// The parent has to decide: this child does not stay up.
    Escalate,
}

/// Counts restarts of one child and decides.
///
/// ```
/// use soma_runtime::{Decision, ExitReason, Intensity, RESTART_BACKOFF, RestartPolicy, RestartTracker};
/// use std::time::Duration;
///
/// let twice_a_minute = Intensity { max_restarts: 2, within: Duration::from_secs(60) };
/// let mut tracker = RestartTracker::new(RestartPolicy::Transient, twice_a_minute, RESTART_BACKOFF, 7);
/// let crash = ExitReason::Panicked("index out of bounds".into());
/// assert!(matches!(tracker.on_exit(Duration::from_secs(1), &crash), Decision::Restart { .. }));
/// assert!(matches!(tracker.on_exit(Duration::from_secs(2), &crash), Decision::Restart { .. }));
/// assert_eq!(tracker.on_exit(Duration::from_secs(3), &crash), Decision::Escalate);
/// assert_eq!(tracker.on_exit(Duration::from_secs(4), &ExitReason::Normal), Decision::Stop);
/// ```
#[derive(Debug)]
pub struct RestartTracker {
    policy: RestartPolicy,
    intensity: Intensity,
    backoff: Backoff,
    rng: ChaCha8Rng,
    restarts: VecDeque<Duration>,
}

impl RestartTracker {
    /// Starts counting; `seed` is for the jitter.
    pub fn new(policy: RestartPolicy, intensity: Intensity, backoff: Backoff, seed: u64) -> Self {
        Self { policy, intensity, backoff, rng: ChaCha8Rng::seed_from_u64(seed), restarts: VecDeque::new() }
    }

    /// Decides on an exit at `now` (time since any fixed point).
    pub fn on_exit(&mut self, now: Duration, exit: &ExitReason) -> Decision {
        let restart = match self.policy {
            RestartPolicy::Permanent => true,
            RestartPolicy::Transient => *exit != ExitReason::Normal,
            RestartPolicy::Temporary => false,
        };
        if !restart {
            return Decision::Stop;
        }
        while self.restarts.front().is_some_and(|at| *at + self.intensity.within <= now) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.intensity.max_restarts {
            return Decision::Escalate;
        }
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.restarts.push_back(now);
        let wait = self.backoff.wait(restarts);
        Decision::Restart { after: wait.mul_f64(self.rng.random_range(0.5..=1.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(policy: RestartPolicy) -> RestartTracker {
        let intensity = Intensity { max_restarts: 3, within: Duration::from_secs(10) };
        RestartTracker::new(policy, intensity, RESTART_BACKOFF, 1)
    }

    #[test]
    fn the_policy_decides_which_exits_call_for_a_restart() {
        let panicked = ExitReason::Panicked("boom".into());
        let restarts = |policy, exit: &ExitReason| {
            matches!(tracker(policy).on_exit(Duration::ZERO, exit), Decision::Restart { .. })
        };
        assert!(restarts(RestartPolicy::Permanent, &ExitReason::Normal));
        assert!(restarts(RestartPolicy::Permanent, &panicked));
        assert!(!restarts(RestartPolicy::Transient, &ExitReason::Normal));
        assert!(restarts(RestartPolicy::Transient, &panicked));
        assert!(!restarts(RestartPolicy::Temporary, &panicked));
    }

    #[test]
    fn waits_double_and_too_many_restarts_escalate_until_the_window_ends() {
        let mut tracker = tracker(RestartPolicy::Permanent);
        let mut waits = Vec::new();
        for second in 0..3 {
            match tracker.on_exit(Duration::from_secs(second), &ExitReason::Cancelled) {
                Decision::Restart { after } => waits.push(after),
                other => panic!("{other:?}"),
            }
        }
        for (wait, full) in waits.iter().zip([50, 100, 200]) {
            assert!((full / 2..=full).contains(&(wait.as_millis() as u64)), "{waits:?}");
        }
        assert_eq!(tracker.on_exit(Duration::from_secs(5), &ExitReason::Cancelled), Decision::Escalate);
        let later = tracker.on_exit(Duration::from_secs(11), &ExitReason::Cancelled);
        assert!(matches!(later, Decision::Restart { .. }), "the first two restarts are out of the window: {later:?}");
    }
}
