//! Finds out what StateSync is doing, or why it makes no progress.

use super::{Progress, StateSync, range::RangeState};

/// Consecutive failures from which on a range counts as retried even while it is being fetched.
const RETRIED_FROM: u32 = 2;

impl StateSync {
    /// What StateSync is doing, or why it makes no progress.
    pub fn progress(&self) -> Progress {
        if let Some(reason) = self.write.error() {
            return Progress::Disk { reason: reason.to_owned() };
        }
        if let Some(skipping) = self.skip_progress() {
            return skipping;
        }
        let needed = self.tip.commit.index + 1;
        let range = self.ranges.range(..=needed).next_back().map(|(_, range)| range);
        if let Some(archive) = self.archive_progress(needed, range) {
            return archive;
        }
        let Some(range) = range else {
            let busy = !self.write.is_empty() || self.horizon() > self.tip.commit.index;
            return match self.slowest_executor() {
                _ if busy => Progress::Syncing,
                Some(next) if self.target() > self.tip.commit.index => Progress::ExecutorBehind { next },
                _ => self.claimed.doubt.map_or(Progress::Synced, |reason| Progress::NoPeer { needed, reason }),
            };
        };
        match (&range.state, &range.no_peer, &range.last_failure) {
            (RangeState::Held { epoch }, ..) => Progress::NoCommittee { epoch: *epoch },
            (RangeState::Waiting { .. } | RangeState::Active(_), Some(reason), _) => {
                Progress::NoPeer { needed, reason: *reason }
            }
            (RangeState::Waiting { .. }, None, Some(reason)) => {
                Progress::Retrying { needed, attempts: range.attempts, reason: reason.clone() }
            }
            // A range that failed repeatedly is no progress while it is fetched once more.
            (RangeState::Active(_), None, Some(reason)) if range.attempts >= RETRIED_FROM => {
                Progress::Retrying { needed, attempts: range.attempts, reason: reason.clone() }
            }
            _ => Progress::Syncing,
        }
    }
}
