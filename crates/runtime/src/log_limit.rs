//! Bounds how often one line is written to the log.

use std::time::Duration;

/// Time over which lines are counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets this many lines of a kind through in each interval, and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    most: u32,
    interval: Duration,
    begun: Option<Duration>,
    lines: u32,
    left_out: u64,
}

impl Default for LogLimit {
    /// One line in ten seconds.
    fn default() -> Self {
        Self::lines(1)
    }
}

impl LogLimit {
    /// This many lines in ten seconds.
    pub fn lines(most: u32) -> Self {
        Self { most, interval: INTERVAL, begun: None, lines: 0, left_out: 0 }
    }

    /// One line in each `interval`.
    pub fn once_in(interval: Duration) -> Self {
        Self { interval, ..Self::default() }
    }

    /// Whether the line may be written at `now`, on the monotonic clock: then how many have been left out since the
    /// last.
    pub fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.begun.is_none_or(|begun| now >= begun + self.interval) {
            (self.begun, self.lines) = (Some(now), 0);
        }
        if self.lines >= self.most {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
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

    #[test]
    fn so_many_lines_in_each_interval_are_written() {
        let mut limit = LogLimit::lines(3);
        let written = |limit: &mut LogLimit, from: u64| {
            (from..from + 50).filter_map(|ms| limit.admit(Duration::from_millis(ms))).collect::<Vec<_>>()
        };
        assert_eq!(written(&mut limit, 0), [0, 0, 0]);
        assert_eq!(written(&mut limit, 10_000), [47, 0, 0]);
    }
}
