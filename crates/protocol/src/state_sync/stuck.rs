//! Detects that the node has work and makes no progress.

use super::{Progress, StateSync};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, TimestampMs};
use std::time::Duration;

/// The node counts as stuck after this time without a new durable commit. A request to a silent peer has ended by then.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Time of the last progress.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StuckWatch {
    applied: CommitIndex,
    /// There was no work after the last input.
    was_synced: bool,
    /// When a commit last became durable, or when there last was no work.
    moved: Option<Moved>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Moved {
    at: Duration,
    unix_ms: TimestampMs,
}

impl StuckWatch {
    fn record(&mut self, now: Now, applied: CommitIndex, is_synced: bool) {
        if self.moved.is_none() || self.was_synced || is_synced || applied > self.applied {
            self.moved = Some(Moved { at: now.monotonic, unix_ms: now.unix_ms });
        }
        (self.applied, self.was_synced) = (applied, is_synced);
    }

    /// When the node counts as stuck without progress until then.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.moved.filter(|_| !self.was_synced).map(|moved| moved.at + STUCK_AFTER)
    }

    /// Time of the last progress, if the node is stuck.
    pub(super) fn since_ms(&self, now: Duration) -> Option<TimestampMs> {
        self.wake_at().filter(|at| *at <= now).and(self.moved).map(|moved| moved.unix_ms)
    }
}

impl StateSync {
    /// Records whether there was progress.
    pub(super) fn watch_progress(&mut self, now: Now) {
        let is_synced = matches!(self.progress(), Progress::Synced);
        self.stuck.record(now, self.applied.index, is_synced);
    }
}
