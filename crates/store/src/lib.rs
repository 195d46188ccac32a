//! The durable chain store: one trait, an embedded implementation on disk and one in memory.
//!
//! ```text
//!   StoreWriter --apply(batch)--> plan (the rules) --> segments of blocks, and where in them each block is
//!                                                        |
//!                                      one atomic, fsynced batch of writes
//!                                                        |
//!      FjallStore: fjall on disk ------------------------+----- MemStore: sorted maps
//!                                                        |
//!   executor, serving, inspect <--sub_dag, commits, blocks, votes, watermarks
//! ```
//!
//! What it owns: commits, their blocks, the votes that those blocks hold, committees, each epoch's last commit, the
//! watermarks, the address book and the standing of peers.
//!
//! What always holds:
//! - **Durable before told.** When [`Store::apply`] returns, its batch survives `kill -9` and a power cut; when it
//!   fails, nothing of it is seen by any reader of this process.
//! - **A chain without gaps.** Every commit from [`Watermarks::lowest_available`] to
//!   [`Watermarks::highest_synced`] is there with all its blocks, each chained to the one before by its digest. A
//!   reader that sees a commit sees its blocks.
//! - **One set of rules.** Both implementations run the same code above a table of bytes, and the same conformance
//!   suite ([`conformance`]).
//! - **A disk that fails loses nothing that was announced.** [`FjallStore`] says what happens then, and what no store
//!   can find out.
//! - **Nothing is guessed.** A stored value that does not decode, or is not what its key names, is
//!   [`StoreError::Corrupt`] and never a panic or a default.
//!
//! How it lies on disk, and why so: docs/adr/0007. In short: blocks go from the wire into segments of about 64 KiB in the
//! order of the chain (in files, with the commits and votes of their batch, or in the database where a batch is small),
//! and from there to peers as slices; nothing is decoded on that way.

#![deny(missing_docs)]

#[cfg(feature = "fjall")]
mod block_files;
mod commits;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "decoders")]
pub mod decoders;
#[cfg(feature = "fjall")]
mod direct_file;
#[cfg(feature = "fjall")]
mod directory;
mod engine;
mod error;
#[cfg(feature = "fjall")]
mod fjall_store;
#[cfg(feature = "fjall")]
mod journal;
mod layout;
mod mem;
mod plan;
mod reader;
mod rounds;
mod segments;
mod serving;
mod sub_dags;
mod votes;

pub use error::{CorruptReason, Mismatch, NotAStoreReason, Place, Record, StoreError};
#[cfg(feature = "fjall")]
pub use fjall_store::FjallStore;
pub use mem::MemStore;
pub use plan::VOTES_AHEAD;
pub use segments::SegmentId;
pub use serving::{NotServed, Served, serve_commits};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, CommittedSubDag, Committee, Epoch, PeerId,
    TrustedCommit,
};
use std::ops::RangeInclusive;

/// What part of the chain a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// The last commit stored; commit 0, the genesis, in a new store. Never moves back.
    pub highest_synced: CommitRef,
    /// The first commit that is stored with its blocks; 1 until something is pruned. One more than
    /// `highest_synced.index` while nothing is stored yet.
    pub lowest_available: CommitIndex,
}

/// A list of peers that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerList {
    /// The address book: signed node infos.
    Infos,
    /// What peers have done, and who is banned; in the form of whoever writes it.
    Standings,
}

/// The chain as one node has it, durably.
///
/// Calls block on the disk: call them off an actor's thread. All of them may be called at once from many threads.
pub trait Store: Send + Sync + 'static {
    /// The chain that this store holds.
    fn chain_id(&self) -> ChainId;

    /// What part of the chain is there.
    fn watermarks(&self) -> Result<Watermarks, StoreError>;

    /// The commit at `index`, if stored. Commit 0 is always there.
    fn commit(&self, index: CommitIndex) -> Result<Option<TrustedCommit>, StoreError>;

    /// The commits of `range` from its start on, up to the first that is not stored.
    ///
    /// The caller bounds the range: everything in it is held in memory at once.
    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError>;

    /// The stored bytes of the commits of `range`, from its start on, up to the first that is not stored, cannot be read, or with
    /// which they would have more than `max_bytes` bytes together. It is an error if the very first cannot be read.
    ///
    /// They may be slices of what the store keeps together, up to 16 KiB, which stays in memory with each of them; so may
    /// those of [`commit`](Self::commit) and [`commits`](Self::commits).
    fn commit_bytes(&self, range: RangeInclusive<CommitIndex>, max_bytes: usize) -> Result<Vec<Bytes>, StoreError> {
        let (mut commits, mut room) = (Vec::new(), max_bytes);
        for index in range {
            let Some(commit) = self.commit(index)? else { break };
            let Some(left) = room.checked_sub(commit.bytes().len()) else { break };
            room = left;
            commits.push(commit.bytes().clone());
        }
        Ok(commits)
    }

    /// The stored bytes of `refs` in the order asked, `None` where a block is missing.
    ///
    /// Cheapest in the order of the chain: blocks that are neighbours there are read together. Each may be a slice of
    /// what was read, and keep that in memory: 64 KiB at most, unless it is longer itself.
    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// As [`blocks`](Self::blocks), for as many of `refs`, from the first on, as have at most `max_bytes` bytes together;
    /// for the first one in any case.
    fn blocks_within(&self, refs: &[BlockRef], max_bytes: usize) -> Result<Vec<Option<Bytes>>, StoreError> {
        let (mut blocks, mut total) = (Vec::new(), 0);
        for reference in refs {
            let block = self.blocks(std::slice::from_ref(reference))?.pop().flatten();
            total += block.as_ref().map_or(0, Bytes::len);
            if total > max_bytes && !blocks.is_empty() {
                break;
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// The lengths in bytes of `refs` in the order asked, `None` where a block is missing. Cheaper than
    /// [`blocks`](Self::blocks) where the store keeps lengths apart from bytes.
    fn block_sizes(&self, refs: &[BlockRef]) -> Result<Vec<Option<usize>>, StoreError> {
        Ok(self.blocks(refs)?.into_iter().map(|bytes| bytes.map(|bytes| bytes.len())).collect())
    }

    /// Stored blocks that vote for exactly this commit, index and digest, in the order of their refs.
    ///
    /// Only blocks of the commit's own epoch count, so for a stored commit no others are named. For a commit that
    /// is not stored the epoch is not known, and all are.
    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError>;

    /// The commit at `index` with its blocks, as the executor takes it; `None` if the commit is not stored.
    ///
    /// A commit whose block is missing or damaged is [`StoreError::Corrupt`], which names both, or what that block was
    /// stored in.
    fn sub_dag(&self, index: CommitIndex) -> Result<Option<CommittedSubDag>, StoreError> {
        Ok(self.sub_dags(index..=index, usize::MAX)?.pop())
    }

    /// [`sub_dag`](Self::sub_dag) of commits of `range`, from its start on, whose blocks have at most `max_bytes` bytes together;
    /// maybe of fewer, and at least of the first one if it is stored. Cheaper than one by one, for neighbours are read together.
    ///
    /// Ends before the first commit that is damaged or not stored. It is an error if the very first is damaged.
    fn sub_dags(
        &self,
        range: RangeInclusive<CommitIndex>,
        max_bytes: usize,
    ) -> Result<Vec<CommittedSubDag>, StoreError>;

    /// The committee of `epoch`, if known.
    fn committee(&self, epoch: Epoch) -> Result<Option<Committee>, StoreError>;

    /// The highest epoch whose committee is known.
    fn latest_epoch(&self) -> Result<Epoch, StoreError>;

    /// Index of the last commit of `epoch`; `None` while it is not stored.
    fn last_commit_of_epoch(&self, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError>;

    /// What is kept of peers, in the order of their ids.
    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError>;

    /// Changes what is kept of peers: sets every entry of `put` (the last one for a peer counts), then drops every
    /// peer of `remove`. Atomic and durable.
    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError>;

    /// Stores `batch` in one atomic and durable step and returns where the chain now ends.
    ///
    /// The batch continues the chain: its first commit is the next to be stored and each has the digest of the one
    /// before, in index order. The `blocks` of each are exactly those that the commit names, in its order. Otherwise
    /// the call fails with [`StoreError::OutOfOrder`], [`StoreError::EmptyBatch`] or [`StoreError::Mismatch`] and
    /// writes nothing. Signatures and quorums are the verifier's: they are not checked again.
    ///
    /// With the commits go their blocks, the certifier blocks, the votes that any of these blocks hold, and, where a
    /// block ends the epoch, the next committee and the epoch's last commit.
    fn apply(&self, batch: &[CertifiedCommit]) -> Result<Watermarks, StoreError> {
        self.apply_refs(&batch.iter().collect::<Vec<_>>())
    }

    /// [`apply`](Self::apply) of commits that do not lie side by side.
    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError>;

    /// Makes durable whatever is not yet. [`apply`](Self::apply) needs no flush after it.
    fn flush(&self) -> Result<(), StoreError>;

    /// Where this store is, for errors and logs.
    fn place(&self) -> Place {
        Place::Memory
    }
}
