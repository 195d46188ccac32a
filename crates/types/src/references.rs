//! How blocks and commits name each other.

use crate::{AuthorityIndex, BlockDigest, CommitDigest, CommitIndex, Epoch, Round};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Identifies one block by its position in the DAG and the digest of its bytes, signature included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// Epoch of the block.
    pub epoch: Epoch,
    /// Round within the epoch.
    pub round: Round,
    /// The author's position in the epoch's committee.
    pub author: AuthorityIndex,
    /// Digest of body and signature.
    pub digest: BlockDigest,
}

impl BlockRef {
    /// Encoded length in bytes.
    pub const BYTES: usize = 48;
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}r{}a{}:{:?}", self.epoch, self.round, self.author, self.digest)
    }
}

impl fmt::Debug for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Identifies one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitRef {
    /// The commit's index on the chain.
    pub index: CommitIndex,
    /// Digest of the commit's bytes.
    pub digest: CommitDigest,
}

impl fmt::Display for CommitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.index, self.digest)
    }
}
