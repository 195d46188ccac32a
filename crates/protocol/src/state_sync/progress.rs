//! What StateSync is doing, or why it makes no progress.

use super::{StateSync, range::RangeState};
use crate::peer_heights::NoPeer;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch};

/// Consecutive failures from which on a range counts as retried even while it is being fetched.
const RETRIED_FROM: u32 = 2;

/// What StateSync is doing, or why it makes no progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Progress {
    /// This node has every advertised commit.
    Synced,
    /// Fetching or writing.
    Syncing,
    /// Learning from epoch proofs where the latest epoch begins.
    SkippingEpochs {
        /// The first epoch without a known end.
        epoch: Epoch,
    },
    /// Fetching the next commit from the archive.
    FetchingArchive {
        /// The next commit.
        needed: CommitIndex,
    },
    /// No peer can serve the next commit, and the archive cannot be used.
    ArchiveUnreachable {
        /// The next commit.
        needed: CommitIndex,
        /// The archive's last error.
        reason: String,
    },
    /// No peer can serve the next commit.
    NoPeer {
        /// The next commit.
        needed: CommitIndex,
        /// Why no peer can.
        reason: NoPeer,
    },
    /// The next commit states an epoch with an unknown committee.
    NoCommittee {
        /// The stated epoch.
        epoch: Epoch,
    },
    /// The slowest executor lags by the configured maximum.
    ExecutorBehind {
        /// The next commit of that executor.
        next: CommitIndex,
    },
    /// The store cannot write commits.
    Disk {
        /// The store's error.
        reason: String,
    },
    /// The next range failed and is being retried.
    Retrying {
        /// The next commit.
        needed: CommitIndex,
        /// Failed attempts so far.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
}

impl Progress {
    /// Name of the cause in metrics and status.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Syncing => "syncing",
            Self::SkippingEpochs { .. } => "skipping-epochs",
            Self::FetchingArchive { .. } => "fetching-archive",
            Self::ArchiveUnreachable { .. } => "archive-unreachable",
            Self::NoPeer { reason, .. } => reason.name(),
            Self::NoCommittee { .. } => "no-committee",
            Self::ExecutorBehind { .. } => "executor-behind",
            Self::Disk { .. } => "disk",
            Self::Retrying { .. } => "retrying",
        }
    }
}

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
