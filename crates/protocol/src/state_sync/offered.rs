//! Commits that the node's own consensus offers, and why they are refused.

use serde::{Deserialize, Serialize};
use soma_types::{CommitDigest, CommitIndex, CommitRef, Epoch};

/// What a commit of the node's own consensus states, before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Index and digest.
    pub commit: CommitRef,
    /// Digest of the commit before it.
    pub previous: CommitDigest,
    /// Its epoch.
    pub epoch: Epoch,
    /// Bytes of commit, blocks and votes.
    pub bytes: u64,
}

/// Why a commit of the node's own consensus was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LocalCommitError {
    /// Commits before it are missing and being fetched.
    #[error("commit {index} cannot be taken yet: {expected} is the next one, and being fetched from peers")]
    Gap {
        /// Offered.
        index: CommitIndex,
        /// Wanted.
        expected: CommitIndex,
    },
    /// The commit does not follow the chain of this node.
    #[error("commit {index} does not follow commit {previous}, which this node has verified: two chains")]
    Fork {
        /// Offered.
        index: CommitIndex,
        /// The commit that it should follow.
        previous: CommitRef,
    },
    /// The commit is not of the epoch that is due.
    #[error("commit {index} is of epoch {found}, but epoch {expected} is due")]
    OtherEpoch {
        /// Offered.
        index: CommitIndex,
        /// Due.
        expected: Epoch,
        /// Offered.
        found: Epoch,
    },
    /// The commit, one of its blocks or one of its certifier blocks breaks a rule. Every peer would refuse it.
    #[error("commit {index} is invalid: {reason}")]
    Invalid {
        /// Offered.
        index: CommitIndex,
        /// The rule.
        reason: String,
    },
    /// The votes of its certifier blocks are no quorum, so peers could not prove the commit.
    #[error(
        "commit {index} cannot be proved to peers: {reason}; hand it over with the blocks of a quorum that vote for it"
    )]
    NotCertified {
        /// Offered.
        index: CommitIndex,
        /// The missing stake.
        reason: String,
    },
    /// StateSync or the Verifier restarted before the commit was durable. The caller may offer it again.
    #[error("the commit was not stored: a part of the node is starting or restarting, or was stopped")]
    Unavailable,
    /// The budget of bytes in flight is used up.
    #[error("{bytes} bytes wait to be written: the disk is behind, try again")]
    Busy {
        /// Bytes in flight.
        bytes: u64,
    },
}
