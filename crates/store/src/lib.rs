//! The durable chain store: one trait, an embedded implementation on disk and one in memory.
//!
//! ```text
//!   StoreWriter --apply(batch)--> plan (the rules) --> segments of blocks, and each block's location
//!                                                        |
//!                                      one atomic, fsynced batch of writes
//!                                                        |
//!      FjallStore: fjall on disk ------------------------+----- MemStore: sorted maps
//!                                                        |
//!   executor, serving, inspect <--sub_dag, commits, blocks, votes, watermarks
//! ```
//!
//! Contents: commits, their blocks, the votes in those blocks, committees, each epoch's last commit, the watermarks,
//! the address book and the peers' standings.
//!
//! Invariants:
//! - **Durable before announced.** When [`Store::apply`] returns, its batch survives `kill -9` and a power cut. If it
//!   fails, no reader of this process sees any part of the batch.
//! - **A chain without gaps.** Every commit from [`Watermarks::lowest_available`] to [`Watermarks::highest_synced`] is
//!   stored with all its blocks, chained to the previous one by its digest. A reader that sees a commit sees its
//!   blocks.
//! - **One set of rules.** Both implementations run the same code above a table of bytes, and pass the same conformance
//!   suite (feature `conformance`).
//! - **A failing disk loses no announced data.** [`FjallStore`] documents the behaviour, and the limits of every store.
//! - **No guesses.** A stored value that does not decode, or does not match its key, is [`StoreError::Corrupt`], never
//!   a panic or a default.
//!
//! docs/adr/0007 explains the layout on disk. In short: blocks go from the wire into segments of about 64 KiB, in the
//! order of the chain. The segments of a large batch go to files, with its commits and votes; the segments of a small
//! batch go to the database. Peers get blocks as slices of segments, and no step decodes them.

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

mod batch;
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
mod epoch_proof;
mod error;
#[cfg(feature = "fjall")]
mod fjall_store;
#[cfg(feature = "fjall")]
mod journal;
mod layout;
mod mem;
mod objects;
mod plan;
mod prepend;
mod progress;
mod prune;
mod reader;
mod retention;
mod rounds;
mod segments;
mod serving;
mod snapshots;
mod sub_dags;
mod tables;
mod votes;

pub use epoch_proof::{ProofNotServed, make_checkpoint, make_epoch_proof, serve_epoch_proofs};
pub use error::{CorruptReason, Mismatch, NotAStoreReason, Place, Record, StoreError};
#[cfg(feature = "fjall")]
pub use fjall_store::FjallStore;
pub use mem::MemStore;
pub use objects::{DirectoryObjects, MemoryObjects, ObjectBytes, ObjectSource};
pub use plan::{VOTES_AHEAD, check_batch, check_skipped_epochs};
pub use prepend::{Seam, check_prepended};
pub use retention::Retention;
pub use segments::SegmentId;
pub use serving::{NotServed, Served, serve_commits};
pub use snapshots::{OfferedSnapshot, SnapshotAnswer, SnapshotDirectory, SnapshotReader, SnapshotSink, SnapshotWriter};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, CommittedSubDag, Committee, EndedEpoch, Epoch,
    EpochProof, PeerId, TrustedCommit,
};
use std::ops::RangeInclusive;

/// The part of the chain that a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// The last stored commit; commit 0, the genesis, in a new store. Never moves back. Its blocks are not stored if it
    /// ended a [skipped](Store::skip_epochs) epoch.
    pub highest_synced: CommitRef,
    /// The first commit that is stored with its blocks; 1 until commits are [pruned](Store::prune) or
    /// [skipped](Store::skip_epochs). [Prepended](Store::prepend) commits move it down. One more than
    /// `highest_synced.index` while no such commit is stored.
    pub lowest_available: CommitIndex,
}

/// The result of one step of [`Store::prune`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The stored part of the chain.
    pub watermarks: Watermarks,
    /// Whether all data that can be removed is removed. Up to one batch of pruned commits may stay.
    pub is_complete: bool,
}

/// A stored list of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerList {
    /// The address book: signed node infos.
    Infos,
    /// The peers' history and bans, in the encoding of the writer.
    Standings,
}

/// The durable chain of one node.
///
/// Calls block on the disk, so an actor must not make them on its own thread. All methods may run concurrently. Methods
/// that return a `Result` fail with [`StoreError`] if the store cannot be read or is damaged.
pub trait Store: Send + Sync + 'static {
    /// Id of the stored chain.
    fn chain_id(&self) -> ChainId;

    /// The stored part of the chain.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn watermarks(&self) -> Result<Watermarks, StoreError>;

    /// The commit at `index`, if stored and not pruned. Commit 0 and the last commit are always stored.
    ///
    /// # Errors
    /// Fails if the commit cannot be read or is damaged.
    fn commit(&self, index: CommitIndex) -> Result<Option<TrustedCommit>, StoreError>;

    /// The commits of `range` from its start on, up to the first that is not stored.
    ///
    /// The caller bounds the range, because all its commits are in memory at once.
    ///
    /// # Errors
    /// Fails if a commit of the range cannot be read or is damaged.
    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError>;

    /// The stored bytes of the commits of `range` from its start on. Ends before the first commit that is not stored,
    /// cannot be read, or would exceed `max_bytes` in total.
    ///
    /// The bytes may be slices of a stored value of up to 16 KiB, which each slice keeps in memory. The same holds for
    /// [`commit`](Self::commit) and [`commits`](Self::commits).
    ///
    /// # Errors
    /// Fails if the first commit cannot be read.
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

    /// The stored bytes of `refs` in the given order; `None` for a block that is not stored.
    ///
    /// The order of the chain is the cheapest: neighbours are read together. Each block may be a slice that keeps up to
    /// 64 KiB in memory, or its own length if it is longer.
    ///
    /// # Errors
    /// Fails if a block cannot be read or is damaged.
    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Like [`blocks`](Self::blocks), but only the leading `refs` whose blocks have at most `max_bytes` in total, and
    /// at least the first.
    ///
    /// # Errors
    /// Fails if a block cannot be read or is damaged.
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

    /// The lengths of `refs` in bytes, in the given order; `None` for a block that is not stored. Cheaper than
    /// [`blocks`](Self::blocks) if the store keeps lengths separately.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn block_sizes(&self, refs: &[BlockRef]) -> Result<Vec<Option<usize>>, StoreError> {
        Ok(self.blocks(refs)?.into_iter().map(|bytes| bytes.map(|bytes| bytes.len())).collect())
    }

    /// Stored blocks that vote for exactly this commit (index and digest), in the order of their references.
    ///
    /// For a stored commit, only blocks of its own epoch are returned. For a commit that is not stored the epoch is
    /// unknown, so voters of all epochs are returned.
    ///
    /// # Errors
    /// Fails if the votes cannot be read or are damaged.
    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError>;

    /// The commit at `index` with its blocks, as the executor's input; `None` if the commit is not stored.
    ///
    /// # Errors
    /// Fails with [`StoreError::Pruned`] if the commit was pruned.
    /// Fails with [`StoreError::Corrupt`] if a block is missing or damaged. The error names both the commit and the
    /// block, or the container of the block.
    fn sub_dag(&self, index: CommitIndex) -> Result<Option<CommittedSubDag>, StoreError> {
        Ok(self.sub_dags(index..=index, usize::MAX)?.pop())
    }

    /// The [`sub_dag`](Self::sub_dag) of each commit of `range` from its start on, with blocks of at most `max_bytes`
    /// in total. Returns at least the first if it is stored, and may return fewer than fit. Cheaper than single calls,
    /// because neighbours are read together.
    ///
    /// Ends before the first commit that is damaged or not stored.
    ///
    /// # Errors
    /// Fails if the first commit is damaged, and with [`StoreError::Pruned`] if it was pruned.
    fn sub_dags(
        &self,
        range: RangeInclusive<CommitIndex>,
        max_bytes: usize,
    ) -> Result<Vec<CommittedSubDag>, StoreError>;

    /// The committee of `epoch`, if known.
    ///
    /// # Errors
    /// Fails if the committee cannot be read or is damaged.
    fn committee(&self, epoch: Epoch) -> Result<Option<Committee>, StoreError>;

    /// The highest epoch with a known committee.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn latest_epoch(&self) -> Result<Epoch, StoreError>;

    /// Index of the last commit of `epoch`; `None` while it is not stored.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn last_commit_of_epoch(&self, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError>;

    /// The entries of a list of peers, in the order of their ids.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError>;

    /// Updates a list of peers: sets every entry of `put` (the last one for a peer counts), then removes every peer of
    /// `remove`. Atomic and durable.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError>;

    /// Stores `batch` in one atomic and durable step. Returns the new watermarks.
    ///
    /// The batch must continue the chain: its first commit has the next index, and each commit has the digest of the
    /// previous one. The `blocks` of each commit must be exactly the commit's blocks, in its order. Signatures and
    /// quorums are not checked again: that is the verifier's task.
    ///
    /// The store keeps the commits, their blocks, the certifier blocks and the votes in all these blocks, except votes
    /// for commits more than [`VOTES_AHEAD`] above the batch's last one: those are lies, and would fill the disk. If
    /// a block ends the epoch, it also keeps the next committee and the epoch's last commit.
    ///
    /// # Errors
    /// Fails with [`StoreError::OutOfOrder`], [`StoreError::EmptyBatch`] or [`StoreError::Mismatch`] if the batch does
    /// not fit; nothing is written then. Fails with other errors if the store cannot be written.
    fn apply(&self, batch: &[CertifiedCommit]) -> Result<Watermarks, StoreError> {
        self.apply_refs(&batch.iter().collect::<Vec<_>>())
    }

    /// [`apply`](Self::apply) for commits that are not contiguous in memory.
    ///
    /// # Errors
    /// Like [`apply`](Self::apply).
    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError>;

    /// Moves the chain's end past whole epochs, without their commits, in one atomic and durable step. Returns the new
    /// watermarks.
    ///
    /// Only a store without commits beyond the genesis can skip epochs, again and again. It keeps the proofs, the last
    /// commit and the next committees. The first epoch may be any later one. Proofs are not checked again: that is the
    /// verifier's task.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotEmpty`] if the store holds commits with blocks, with [`StoreError::EmptyBatch`]
    /// without an epoch, and with [`StoreError::Mismatch`] if the epochs are not consecutive; nothing is written then.
    /// Fails with other errors if the store cannot be written.
    fn skip_epochs(&self, ended: &[EndedEpoch]) -> Result<Watermarks, StoreError>;

    /// Stores `batch` directly below the lowest commit, in one atomic and durable step. Returns the new watermarks:
    /// [`Watermarks::lowest_available`] is the first commit of the batch.
    ///
    /// The batch must end with the commit that the lowest one continues, by index and digest; while no commit with
    /// blocks is stored, with [`Watermarks::highest_synced`]. Each commit of it has the digest of the previous one, and
    /// commit 1 that of the genesis. Epochs follow each other. All else is as in [`apply`](Self::apply).
    ///
    /// The store keeps the same as in [`apply`](Self::apply). What it already holds stays as it is.
    ///
    /// # Errors
    /// Fails with [`StoreError::OutOfOrder`], [`StoreError::EmptyBatch`] or [`StoreError::Mismatch`] if the batch does
    /// not fit, and with [`StoreError::HasPruned`] if the store has pruned commits and cannot take them back; nothing is
    /// written then. Fails with other errors if the store cannot be written.
    fn prepend(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError>;

    /// The first commit for executors: the first one that was [applied](Self::apply), unless it is pruned.
    /// [Prepended](Self::prepend) commits do not move it.
    ///
    /// A store that prepends must override it.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn began_at(&self) -> Result<CommitIndex, StoreError> {
        Ok(self.watermarks()?.lowest_available)
    }

    /// Removes the commits below `lowest`, with their blocks and votes, in bounded steps. Each call takes one step;
    /// call it again until [`Pruned::is_complete`].
    ///
    /// [`Watermarks::lowest_available`] moves first, in a durable write of its own, and this call never moves it back.
    /// The last commit always stays. Blocks that a remaining commit names stay, too, and so does the [proof](Self::epoch_proof) of each
    /// ended epoch. A kill between or during steps loses nothing: the next call goes on.
    ///
    /// # Errors
    /// Fails if the store cannot be read or written, or is damaged.
    fn prune(&self, lowest: CommitIndex) -> Result<Pruned, StoreError>;

    /// What proves how `epoch` ended: its last commit, the votes for it, and the block that names the next committee.
    /// `None` while the epoch has not ended, or if the stored votes are no quorum.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    fn epoch_proof(&self, epoch: Epoch) -> Result<Option<EpochProof>, StoreError>;

    /// Makes all writes durable. [`apply`](Self::apply) needs no flush.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    fn flush(&self) -> Result<(), StoreError>;

    /// The store's location, for errors and logs.
    fn place(&self) -> Place {
        Place::Memory
    }
}
