//! Commits: the chain that orders blocks.

use crate::{
    BlockRef, ChainId, CodecError, CommitDigest, CommitIndex, CommitRef, EndOfEpoch, Epoch, TimestampMs, VerifiedBlock,
    codec, epoch_genesis_refs, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Deref};

/// One step of the chain: a leader block, and the part of its history that earlier commits do not contain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The previous commit's index plus one.
    pub index: CommitIndex,
    /// Digest of the previous commit; the chain id for commit 0.
    pub previous_digest: CommitDigest,
    /// See [`timestamp_after`](Self::timestamp_after).
    pub timestamp_ms: TimestampMs,
    /// The block that this commit commits.
    pub leader: BlockRef,
    /// All blocks, ordered by (round, author). The leader is the last.
    #[serde(deserialize_with = "codec::list")]
    pub blocks: Vec<BlockRef>,
    /// Epoch of the leader and of every block.
    pub epoch: Epoch,
}

impl Commit {
    /// The timestamp of a commit: the later of the leader's and the previous commit's, so that time never goes back.
    pub fn timestamp_after(leader_ms: TimestampMs, previous_ms: TimestampMs) -> TimestampMs {
        leader_ms.max(previous_ms)
    }

    /// Commit 0 of a chain. Its `previous_digest` is the chain id, so its digest identifies the chain.
    pub fn genesis(chain: ChainId, timestamp_ms: TimestampMs, committee_size: usize) -> TrustedCommit {
        let blocks = epoch_genesis_refs(0, committee_size);
        let leader =
            blocks.last().copied().unwrap_or(BlockRef { epoch: 0, round: 0, author: 0, digest: Default::default() });
        TrustedCommit::assume_trusted(Self {
            index: 0,
            previous_digest: CommitDigest(chain.0),
            timestamp_ms,
            leader,
            blocks,
            epoch: 0,
        })
    }
}

/// A commit with its bytes and digest. It is a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedCommit {
    commit: Commit,
    digest: CommitDigest,
    bytes: Bytes,
}

impl UnverifiedCommit {
    /// Decodes received bytes and computes the commit's digest.
    ///
    /// # Errors
    /// Fails if the bytes are not a commit, or are longer than [`limits::MAX_COMMIT_BYTES`].
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let commit: Commit = codec::decode(&bytes, "commit", limits::MAX_COMMIT_BYTES)?;
        Ok(Self { commit, digest: CommitDigest::of(&[&bytes]), bytes })
    }

    /// Index and digest.
    pub fn reference(&self) -> CommitRef {
        CommitRef { index: self.commit.index, digest: self.digest }
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Encodes and hashes a commit that this node has made.
impl From<Commit> for UnverifiedCommit {
    fn from(commit: Commit) -> Self {
        let bytes = Bytes::from(codec::encode(&commit));
        Self { commit, digest: CommitDigest::of(&[&bytes]), bytes }
    }
}

impl Deref for UnverifiedCommit {
    type Target = Commit;

    fn deref(&self) -> &Commit {
        &self.commit
    }
}

/// A commit that a quorum certified, directly or through a later commit that chains to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedCommit(UnverifiedCommit);

impl TrustedCommit {
    /// Declares `commit` proven. Only the verifier, the consensus that made the commit, and the store may call this.
    /// The store accepts only trusted commits, and checks every commit that it reads.
    pub fn assume_trusted(commit: impl Into<UnverifiedCommit>) -> Self {
        Self(commit.into())
    }

    /// Index and digest.
    pub fn reference(&self) -> CommitRef {
        self.0.reference()
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &Bytes {
        self.0.bytes()
    }
}

impl Deref for TrustedCommit {
    type Target = Commit;

    fn deref(&self) -> &Commit {
        &self.0
    }
}

/// The executor's input: one commit with its blocks, in execution order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedSubDag {
    /// The block that the commit commits.
    pub leader: BlockRef,
    /// All blocks, in the commit's order.
    pub blocks: Vec<VerifiedBlock>,
    /// The commit's timestamp.
    pub timestamp_ms: TimestampMs,
    /// The commit's index and digest.
    pub commit_ref: CommitRef,
    /// Digest of the previous commit.
    pub previous_digest: CommitDigest,
}

impl CommittedSubDag {
    /// Joins a commit with its blocks, which must be the commit's blocks in the commit's order.
    pub fn new(commit: &TrustedCommit, blocks: Vec<VerifiedBlock>) -> Self {
        Self {
            leader: commit.leader,
            blocks,
            timestamp_ms: commit.timestamp_ms,
            commit_ref: commit.reference(),
            previous_digest: commit.previous_digest,
        }
    }
}

/// A commit that can be stored and served: with its blocks and its certifier blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedCommit {
    /// The commit.
    pub commit: TrustedCommit,
    /// The commit's blocks, in its order.
    pub blocks: Vec<VerifiedBlock>,
    /// Certifier blocks: blocks of the same epoch that vote for this commit. A sync delivers them for the last commit
    /// of each response; consensus delivers them with every commit.
    pub certifiers: Vec<VerifiedBlock>,
}

impl CertifiedCommit {
    /// Bytes of the commit, its blocks and its certifier blocks.
    pub fn size(&self) -> usize {
        let blocks = self.blocks.iter().chain(&self.certifiers);
        self.commit.bytes().len() + blocks.map(|block| block.bytes().len()).sum::<usize>()
    }

    /// The handover to the next epoch, if this is the last commit of its epoch.
    pub fn end_of_epoch(&self) -> Option<&EndOfEpoch> {
        self.blocks.iter().find_map(|block| block.end_of_epoch.as_ref())
    }

    /// The executor's input for this commit.
    pub fn sub_dag(&self) -> CommittedSubDag {
        CommittedSubDag::new(&self.commit, self.blocks.clone())
    }
}

/// A running digest over applied sub-dags, to compare the input of two executors. It covers every commit and every byte
/// of every block, in order. An executor can save the digest and continue from it later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubDagDigest([u8; 32]);

impl SubDagDigest {
    /// Adds the next sub-dag.
    pub fn push(&mut self, sub_dag: &CommittedSubDag) {
        let mut hasher = blake3::Hasher::new_derive_key("soma-p2p 2026 v1 applied sub-dags");
        hasher.update(&self.0);
        hasher.update(&codec::encode(&(
            sub_dag.commit_ref,
            sub_dag.previous_digest,
            sub_dag.timestamp_ms,
            sub_dag.leader,
            sub_dag.blocks.len() as u64,
        )));
        for block in &sub_dag.blocks {
            hasher.update(block.bytes());
        }
        self.0 = *hasher.finalize().as_bytes();
    }
}

impl fmt::Display for SubDagDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for SubDagDigest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}
