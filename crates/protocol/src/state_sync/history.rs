//! The beginning of the stored history, and the progress of moving it down.

use serde::{Deserialize, Serialize};
use soma_types::{CommitDigest, CommitIndex, Epoch, TimestampMs};

/// Where the stored history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStart {
    /// The lowest stored commit.
    pub lowest: CommitIndex,
    /// The lowest commit of an epoch whose committee and beginning are known.
    pub target: CommitIndex,
    /// The commits directly below the lowest one, if they can be verified. The shell has their committee.
    pub below: Option<Below>,
}

/// What is known of the commits directly below the stored history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// Their epoch.
    pub epoch: Epoch,
    /// The first commit of that epoch.
    pub first: CommitIndex,
    /// Digest of the last of them, which the lowest stored commit names.
    pub digest: CommitDigest,
    /// Timestamp of the lowest stored commit. The commit below it decides whether it is right.
    pub timestamp_ms: TimestampMs,
    /// Timestamp of the leader block of the lowest stored commit.
    pub leader_timestamp_ms: TimestampMs,
    /// Digest of commit 0.
    pub genesis: CommitDigest,
    /// Timestamp of commit 0.
    pub genesis_timestamp_ms: TimestampMs,
}

/// Progress of fetching the commits before the stored history, backwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// The lowest stored commit. It falls.
    pub lowest: CommitIndex,
    /// The last commit to fetch: 1, or the first commit of the lowest epoch whose committee is known.
    pub target: CommitIndex,
    /// Whether nothing is left to fetch.
    pub is_complete: bool,
    /// The last failure, until a range is stored.
    pub problem: Option<String>,
}
