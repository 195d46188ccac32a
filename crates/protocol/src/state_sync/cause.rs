//! What StateSync is doing, or why it makes no progress: the causes, and their names.

use crate::peer_heights::NoPeer;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch};

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
