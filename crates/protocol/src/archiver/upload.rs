//! Writing the history: which commits come next, and when.

use super::{Config, Effect, Failure, State, Written};
use crate::{Backoff, core::Now};
use serde::{Deserialize, Serialize};
use soma_types::CommitIndex;
use std::time::Duration;

/// Waits after failures. The node loses nothing meanwhile: it prunes no commit that is not archived.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

/// The state of writing.
#[derive(Serialize, Deserialize)]
pub(super) struct Upload {
    step: Step,
    /// The first commit that the archive lacks.
    pub(super) next: Option<CommitIndex>,
    /// The last durable commit.
    highest: CommitIndex,
    /// The last commit of the latest epoch that ended since the start.
    ended: Option<CommitIndex>,
    /// Bytes of blocks that became durable since the last attempt found no complete segment.
    bytes: u64,
    pub(super) failure: Option<Failure>,
    pub(super) segments: u64,
    pub(super) bytes_written: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Step {
    Off,
    /// Locate at this time.
    Locate(Duration),
    Locating,
    /// Write at this time.
    Write(Duration),
    Writing {
        since: Duration,
    },
    /// Write once a segment is complete.
    Waiting,
}

impl Upload {
    pub(super) fn new(writes: bool, highest: CommitIndex) -> Self {
        Self {
            step: if writes { Step::Locate(Duration::ZERO) } else { Step::Off },
            next: None,
            highest,
            ended: None,
            bytes: 0,
            failure: None,
            segments: 0,
            bytes_written: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.step {
            Step::Off => State::Off,
            _ if self.failure.is_some() => State::Failing,
            Step::Locate(_) | Step::Locating => State::Locating,
            Step::Write(_) | Step::Writing { .. } => State::Writing,
            Step::Waiting => State::UpToDate,
        }
    }

    pub(super) fn behind(&self) -> Option<CommitIndex> {
        Some((self.highest + 1).saturating_sub(self.next?))
    }

    /// What StoreWriter is to know, if anything is known.
    pub(super) fn archived(&self) -> Option<Effect> {
        self.next.map(|next| Effect::Archived { next })
    }

    pub(super) fn on_durable(&mut self, config: &Config, highest: CommitIndex, bytes: u64, ended: Option<CommitIndex>) {
        self.highest = self.highest.max(highest);
        self.ended = self.ended.max(ended);
        self.bytes = self.bytes.saturating_add(bytes);
        if matches!(self.step, Step::Waiting) && self.may_be_complete(config) {
            self.step = Step::Write(Duration::ZERO);
        }
    }

    /// Whether the next segment is complete, as far as known without reading the store.
    fn may_be_complete(&self, config: &Config) -> bool {
        let Some(next) = self.next else { return false };
        let has_commits = self.behind() >= Some(config.segment_commits);
        has_commits || self.bytes >= config.segment_bytes || self.ended.is_some_and(|ended| ended >= next)
    }

    pub(super) fn on_located(&mut self, now: Now, result: Result<CommitIndex, String>) -> Option<Effect> {
        if !matches!(self.step, Step::Locating) {
            return None;
        }
        match result {
            Ok(next) => {
                (self.next, self.failure) = (Some(next), None);
                self.step = Step::Write(now.monotonic);
                self.archived()
            }
            Err(reason) => {
                self.fail(now, reason);
                None
            }
        }
    }

    pub(super) fn on_written(&mut self, now: Now, config: &Config, result: Result<Written, String>) -> Option<Effect> {
        let Step::Writing { since } = self.step else { return None };
        match result {
            Ok(Written::Segment { last, bytes, is_new }) => {
                (self.next, self.failure) = (last.checked_add(1), None);
                if is_new {
                    self.segments += 1;
                    self.bytes_written += bytes;
                    self.step = Step::Write(since + time_for(bytes, config.max_bytes_per_second));
                } else {
                    // The other writer may be further ahead.
                    self.step = Step::Locate(now.monotonic);
                }
                self.archived()
            }
            Ok(Written::NotYet) => {
                (self.step, self.failure, self.bytes) = (Step::Waiting, None, 0);
                None
            }
            Err(reason) => {
                self.fail(now, reason);
                None
            }
        }
    }

    /// Begins anew after a wait: the archive may have changed, and the store may have been pruned by hand.
    fn fail(&mut self, now: Now, reason: String) {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts);
        Failure::add(&mut self.failure, now, reason);
        self.step = Step::Locate(now.monotonic + RETRY.wait(attempts));
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.step {
            Step::Locate(at) | Step::Write(at) => Some(at),
            _ => None,
        }
    }

    /// Starts what is due.
    pub(super) fn advance(&mut self, now: Now) -> Option<Effect> {
        if self.wake_at()? > now.monotonic {
            return None;
        }
        match (self.step, self.next) {
            (Step::Write(_), Some(first)) => {
                self.step = Step::Writing { since: now.monotonic };
                Some(Effect::Write { first })
            }
            _ => {
                self.step = Step::Locating;
                Some(Effect::Locate)
            }
        }
    }
}

/// How long the bandwidth limit allows for so many bytes.
fn time_for(bytes: u64, per_second: u64) -> Duration {
    match per_second {
        0 => Duration::ZERO,
        _ => Duration::from_millis(bytes.saturating_mul(1_000) / per_second),
    }
}
