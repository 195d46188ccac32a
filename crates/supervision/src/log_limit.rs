//! Bounds how often one line is written to the log.

use std::time::Duration;

/// How often a line may be written at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one line of a kind through in ten seconds, and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit {
    last: Option<Duration>,
    left_out: u64,
}

impl LogLimit {
    /// Whether the line may be written at `now`, on the monotonic clock: then how many have been left out since the last.
    pub fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_each_interval_says_how_many_were_left_out() {
        let mut limit = LogLimit::default();
        let at = Duration::from_millis;
        assert_eq!(limit.admit(at(5)), Some(0));
        for ms in 6..106 {
            assert_eq!(limit.admit(at(ms)), None);
        }
        assert_eq!(limit.admit(at(10_004)), None);
        assert_eq!(limit.admit(at(10_005)), Some(101));
        assert_eq!(limit.admit(at(30_000)), Some(0));
    }
}
