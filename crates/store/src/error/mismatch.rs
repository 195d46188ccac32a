//! Why a batch is refused.

use soma_types::{BlockRef, CommitDigest, CommitIndex, Epoch};

/// The reason why a commit does not fit its blocks or the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The epoch is not the next one.
    #[error("epoch {expected} is next, and it ends epoch {found}")]
    SkippedEpoch {
        /// The next epoch.
        expected: Epoch,
        /// The epoch that the commit ends.
        found: Epoch,
    },
    /// The commit is not later than the last one.
    #[error("commit {last} is stored already")]
    NotLater {
        /// The last commit.
        last: CommitIndex,
    },
    /// The commit does not continue the previous commit.
    #[error("it continues a commit of digest {found}, and the one before it has {expected}")]
    PreviousDigest {
        /// Digest of the previous commit.
        expected: CommitDigest,
        /// Digest that the commit names.
        found: CommitDigest,
    },
    /// The commit is not the one that the commit above it continues.
    #[error("its digest is {found}, and the commit above it continues {expected}")]
    Digest {
        /// Digest that the commit above names.
        expected: CommitDigest,
        /// Digest of the commit.
        found: CommitDigest,
    },
    /// The commit above is of another epoch than the one due.
    #[error("epoch {expected} is due after it, and the commit above is of epoch {found}")]
    NextEpoch {
        /// The epoch due.
        expected: Epoch,
        /// The epoch of the commit above.
        found: Epoch,
    },
    /// The commit comes with more or fewer blocks than it names.
    #[error("it names {expected} blocks and has {found}")]
    BlockCount {
        /// Number of blocks that the commit names.
        expected: usize,
        /// Number of blocks that came with it.
        found: usize,
    },
    /// A block is not the one that the commit names at its position.
    #[error("block {position} is {found}, and the commit names {expected}")]
    Block {
        /// Position in the commit's list, from 0.
        position: usize,
        /// The block that the commit names.
        expected: BlockRef,
        /// The block that came.
        found: BlockRef,
    },
    /// The commit hands over to a committee of another epoch than the next.
    #[error("it ends epoch {epoch} and hands over to a committee of epoch {found}")]
    NextCommittee {
        /// The commit's epoch.
        epoch: Epoch,
        /// Epoch of the committee.
        found: Epoch,
    },
    /// The chain has no further index.
    #[error("commit indices end here")]
    NoIndexLeft,
}
