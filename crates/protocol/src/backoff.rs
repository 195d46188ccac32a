//! Waits that double with each repetition.

use std::time::Duration;

/// Repetitions after which a wait no longer doubles.
const MAX_DOUBLINGS: u32 = 16;

/// A wait that doubles with each repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// First wait.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after this many repetitions; the first is after none.
    pub fn wait(&self, repetitions: u32) -> Duration {
        self.min.saturating_mul(1 << repetitions.min(MAX_DOUBLINGS)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(10) };
        let waits = [0, 1, 2, 3, 4, u32::MAX].map(|repetitions| backoff.wait(repetitions).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }
}
