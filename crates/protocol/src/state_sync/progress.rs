//! Why the sync makes no progress, if it makes none.

use super::{StateSync, plan::RangeState};
use crate::peer_heights::NoPeer;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch};

/// Failed attempts in a row from which on a range is said to be tried again, also while it is being fetched.
const TRIED_AGAIN: u32 = 2;

/// What StateSync is doing, and if nothing, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Progress {
    /// Has every commit that a peer claims.
    Synced,
    /// Fetching or writing.
    Syncing,
    /// No peer can serve the next commit.
    NoPeer {
        /// The next commit.
        needed: CommitIndex,
        /// Why none can.
        reason: NoPeer,
    },
    /// The next commit is said to be of an epoch whose committee is not known.
    NoCommittee {
        /// That epoch.
        epoch: Epoch,
    },
    /// As far ahead of the slowest executor as it may be.
    ExecutorBehind {
        /// The commit that the executor is given next.
        next: CommitIndex,
    },
    /// Commits cannot be written.
    Disk {
        /// The store's error.
        reason: String,
    },
    /// The next range failed and is tried again.
    Retrying {
        /// The next commit.
        needed: CommitIndex,
        /// Attempts so far.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
}

impl Progress {
    /// The name of the cause, as metrics and the status have it.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Syncing => "syncing",
            Self::NoPeer { reason, .. } => reason.name(),
            Self::NoCommittee { .. } => "no-committee",
            Self::ExecutorBehind { .. } => "executor-behind",
            Self::Disk { .. } => "disk",
            Self::Retrying { .. } => "retrying",
        }
    }
}

impl StateSync {
    /// What it is doing, and if nothing, why.
    pub fn progress(&self) -> Progress {
        if let Some(reason) = self.write.error() {
            return Progress::Disk { reason: reason.to_owned() };
        }
        let needed = self.tip.commit.index + 1;
        let Some((_, range)) = self.ranges.range(..=needed).next_back() else {
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
            // What failed again and again is not taken for progress while it is tried once more.
            (RangeState::Active(_), None, Some(reason)) if range.attempts >= TRIED_AGAIN => {
                Progress::Retrying { needed, attempts: range.attempts, reason: reason.clone() }
            }
            _ => Progress::Syncing,
        }
    }
}
