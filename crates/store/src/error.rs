//! Errors of a store. Every message says what failed, where, and what to do.

mod advice;
mod mismatch;

pub use mismatch::Mismatch;

use crate::segments::SegmentId;
use advice::advice_on_file;
#[cfg(feature = "fjall")]
use advice::{advice_on_database, cause};
use soma_types::{BlockRef, ChainId, CodecError, CommitDigest, CommitIndex, Epoch, GenesisError, Round};
use std::{
    fmt,
    io::{self},
    path::{Path, PathBuf},
};

/// The location of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Disk(Box<Path>),
    /// The memory of this process.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => write!(f, "store {}", path.display()),
            Self::Memory => f.write_str("store in memory"),
        }
    }
}

/// One item that a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Record {
    /// A commit.
    #[error("commit {0}")]
    Commit(CommitIndex),
    /// A block that a stored commit names.
    #[error("block {block} of commit {index}")]
    BlockOfCommit {
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
    },
    /// A segment: blocks that were stored together.
    #[error("segment {0} of the blocks")]
    Segment(SegmentId),
    /// The list of the blocks of a round.
    #[error("the list of blocks of round {round} of epoch {epoch}")]
    Round {
        /// Epoch of the round.
        epoch: Epoch,
        /// The round.
        round: Round,
    },
    /// The list of rounds.
    #[error("the list of rounds")]
    Rounds,
    /// The votes for some neighbouring commits, by the lowest index.
    #[error("the list of votes for commits from {0} on")]
    Votes(CommitIndex),
    /// The block with a vote for a commit.
    #[error("block {block}, which votes for commit {index}")]
    Certifier {
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
    },
    /// A committee.
    #[error("the committee of epoch {0}")]
    Committee(Epoch),
    /// The list of committees.
    #[error("the list of committees")]
    Committees,
    /// The index of an epoch's last commit.
    #[error("the last commit of epoch {0}")]
    LastCommit(Epoch),
    /// An entry of the address book or of the peers' standings.
    #[error("an entry of a list of peers")]
    Peer,
    /// The watermarks.
    #[error("the watermarks")]
    Watermarks,
    /// The progress of pruning.
    #[error("the progress of pruning")]
    Pruned,
    /// The record of prepended commits.
    #[error("the record of commits that were stored below others")]
    Prepended,
    /// The proof of a pruned epoch.
    #[error("the proof of epoch {0}")]
    EpochProof(Epoch),
    /// The chain id inside the database.
    #[error("the chain id in the database")]
    ChainId,
    /// The database as a whole.
    #[error("the database in db")]
    Database,
    /// One of the database's journals, by its number.
    #[error("the journal db/{0}.jnl")]
    Journal(u64),
    /// The file that identifies the database.
    #[error("the database's file db/version")]
    DatabaseVersion,
    /// The file that identifies a directory as a store.
    #[error("the file soma-store")]
    Identity,
}

/// The damage of a stored value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptReason {
    /// The required value does not exist.
    #[error("it is missing")]
    Missing,
    /// The value does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The key has an invalid length.
    #[error("its key has {bytes} bytes")]
    KeyLength {
        /// Bytes of the key.
        bytes: usize,
    },
    /// The value has an invalid length.
    #[error("it has {bytes} bytes")]
    Length {
        /// Bytes of the value.
        bytes: usize,
    },
    /// The database value is neither a value nor a position in a file.
    #[error("it is neither a value nor a position in a file")]
    NoValue,
    /// The value is shorter than it was.
    #[error("it has {bytes} bytes, and block {block} ends at byte {end}")]
    CutOff {
        /// A block that is not complete.
        block: Box<BlockRef>,
        /// End of that block.
        end: u64,
        /// Bytes of the value.
        bytes: usize,
    },
    /// The value's file of blocks is missing.
    #[error("its file, number {file} in blocks, is missing")]
    FileMissing {
        /// Number of the file.
        file: u32,
    },
    /// The bytes are not the written ones.
    #[error("its bytes in file number {file} in blocks are not those that were written")]
    Checksum {
        /// Number of the file.
        file: u32,
    },
    /// An announced batch cannot be read.
    #[error("the write at byte {offset} cannot be read, and later ones can")]
    BrokenBatch {
        /// Start of the batch.
        offset: usize,
    },
    /// Commits are missing between two batches of the journal.
    #[error("commit {found} is in the place of commit {expected}")]
    Gap {
        /// The missing commit.
        expected: CommitIndex,
        /// The commit in its place.
        found: CommitIndex,
    },
    /// Commits are stored above the watermark: the last writes are partly lost.
    #[error("they end with commit {highest}, but commit {found} is stored")]
    Behind {
        /// Highest commit by the watermark.
        highest: CommitIndex,
        /// The last stored commit.
        found: CommitIndex,
    },
    /// The database panicked on it.
    #[error("the database panicked on it ({message})")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// Another commit is stored under this index.
    #[error("commit {found} is stored in its place")]
    OtherCommit {
        /// Index of that commit.
        found: CommitIndex,
    },
    /// The commit does not have the digest that the watermark or the next commit states.
    #[error("its digest should be {expected}, and is {found}")]
    OtherDigest {
        /// Stated by the watermark or the next commit.
        expected: Box<CommitDigest>,
        /// Digest of the stored commit.
        found: Box<CommitDigest>,
    },
    /// Another block is stored under this reference.
    #[error("block {found} is stored in its place")]
    OtherBlock {
        /// Reference of that block.
        found: Box<BlockRef>,
    },
    /// The committee of another epoch is stored under this epoch.
    #[error("the committee of epoch {found} is stored in its place")]
    OtherEpoch {
        /// Epoch of that committee.
        found: Epoch,
    },
    /// The commit is stated to end an epoch, and none of its blocks names the next committee.
    #[error("none of its blocks ends the epoch")]
    NoEndOfEpoch,
    /// The chain id differs from the one in the file `soma-store`.
    #[error("it is {found}, and the file soma-store has {expected}")]
    OtherChain {
        /// Chain id in the file.
        expected: Box<ChainId>,
        /// Chain id in the database.
        found: Box<ChainId>,
    },
    /// The genesis does not have the stated chain id.
    #[error("its genesis has the digest {found}, and it states {expected}")]
    OtherGenesis {
        /// The stated chain id.
        expected: Box<ChainId>,
        /// Digest of the stored genesis.
        found: Box<ChainId>,
    },
    /// The stored genesis breaks a rule.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// The reason why a directory is not a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAStoreReason {
    /// The path does not exist.
    #[error("there is nothing; give the path of a node's store")]
    Absent,
    /// The path is not a directory.
    #[error("it is not a directory; give the path of a directory")]
    NotADirectory,
    /// The directory is empty, or the creation of a store in it was interrupted.
    #[error("no store was created in it yet; start the node once with its genesis to create it")]
    Empty,
    /// The directory holds other files.
    #[error("it holds something else ({entry:?}); give an empty or a new directory")]
    Foreign {
        /// Name of one file.
        entry: String,
    },
    /// Another program wrote its file `soma-store`.
    #[error("its file soma-store is not one that this program wrote; give another directory")]
    UnknownIdentity,
    /// A part of the store is missing.
    #[error("it has lost its {entry:?}; start the node once with its genesis, or restore the directory from a copy")]
    Incomplete {
        /// Name of the missing part.
        entry: &'static str,
    },
}

/// An error of a store. Large parts are boxed, because every result carries it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The batch does not begin at the end of the chain, or skips or repeats an index.
    #[error(
        "{place}: received commit {found}, but commit {expected} is next; nothing was written, plan again from there"
    )]
    OutOfOrder {
        /// The store.
        place: Place,
        /// The next index.
        expected: CommitIndex,
        /// The index in the batch.
        found: CommitIndex,
    },
    /// The batch has no commits.
    #[error("{place}: received an empty batch, but commit {expected} is next; nothing was written")]
    EmptyBatch {
        /// The store.
        place: Place,
        /// The next index.
        expected: CommitIndex,
    },
    /// A commit does not fit the chain or its blocks. This is a fault of this node's verification.
    #[error("{place}: commit {index} does not fit: {what}; nothing was written, fetch it again")]
    Mismatch {
        /// The store.
        place: Place,
        /// The commit.
        index: CommitIndex,
        /// The mismatch.
        what: Box<Mismatch>,
    },
    /// The store holds commits with blocks, so it cannot skip epochs.
    #[error(
        "{place}: holds commits {lowest} to {highest}, and only an empty store can skip epochs; nothing was written, \
         sync from there or give another directory"
    )]
    NotEmpty {
        /// The store.
        place: Place,
        /// The first commit with blocks.
        lowest: CommitIndex,
        /// The last commit.
        highest: CommitIndex,
    },
    /// The store has pruned commits, so it cannot store earlier ones.
    #[error(
        "{place}: has pruned the commits before {lowest} and takes none of them back; nothing was written, begin with an \
         empty store to have them"
    )]
    HasPruned {
        /// The store.
        place: Place,
        /// The lowest available commit.
        lowest: CommitIndex,
    },
    /// The commit was pruned.
    #[error("{place}: commit {index} is pruned; commits from {lowest} on are available")]
    Pruned {
        /// The store.
        place: Place,
        /// The commit.
        index: CommitIndex,
        /// The lowest available commit.
        lowest: CommitIndex,
    },
    /// A stored value is damaged: the disk or another program changed it.
    #[error(
        "{place}: {record} is damaged: {reason}; check the disk, then restore the store from a copy or remove it and \
         sync anew"
    )]
    Corrupt {
        /// The store.
        place: Place,
        /// The damaged item.
        record: Record,
        /// The damage.
        reason: CorruptReason,
    },
    /// The store belongs to another chain. Nothing was written.
    #[error(
        "store {} is of chain {found}, and the genesis given is of chain {expected}; give that chain's genesis or \
         another directory", path.display()
    )]
    OtherChain {
        /// The store.
        path: PathBuf,
        /// The chain of the given genesis.
        expected: ChainId,
        /// The chain of the store.
        found: ChainId,
    },
    /// The store is already open, in this process or in another.
    #[error(
        "store {} is in use by another process, or twice by this one; stop the other or give another directory",
        path.display()
    )]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The path is not a store. Nothing was written.
    #[error("{} is no store: {reason}", path.display())]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: NotAStoreReason,
    },
    /// A newer program wrote the store. Nothing was written.
    #[error(
        "store {} has format version {found}, and this program reads up to {supported}; use a newer one",
        path.display()
    )]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format version that this program reads.
        supported: u32,
    },
    /// An older program wrote the store in a format that this program cannot read. Nothing was written.
    #[error(
        "store {} has format version {found}, and this program reads none before {supported}; remove the store and sync \
         anew, or use the program that wrote it", path.display()
    )]
    OlderFormat {
        /// The store.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The earliest format version that this program reads.
        supported: u32,
    },
    /// A call of the file system failed.
    #[error("{}: cannot {doing}: {source}; {}", path.display(), advice_on_file(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The attempted operation.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A write failed earlier. The state of the disk is unknown since then, so the store writes nothing until it is
    /// reopened. Stored data can still be read.
    #[error("{place} takes no more writes since one failed: {first}")]
    Stopped {
        /// The store.
        place: Place,
        /// The first failure, and what to do about it.
        first: Box<str>,
    },
    #[cfg(feature = "fjall")]
    /// The database failed.
    #[error("{place}: cannot {doing}: {}; {}", cause(source), advice_on_database(source))]
    Database {
        /// The store.
        place: Place,
        /// The attempted operation.
        doing: &'static str,
        /// The database's reason.
        source: Box<fjall::Error>,
    },
}

impl StoreError {
    /// Whether the store itself failed (disk, damage, another owner), and not the request.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::OutOfOrder { .. }
                | Self::EmptyBatch { .. }
                | Self::Mismatch { .. }
                | Self::HasPruned { .. }
                | Self::Pruned { .. }
        )
    }
}

#[cfg(feature = "fjall")]
/// The error of a failed file system call on `path`.
pub(crate) fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), doing, source }
}

impl Record {
    /// The error for a damaged `self`.
    pub(crate) fn corrupt(self, place: Place, reason: impl Into<CorruptReason>) -> StoreError {
        StoreError::Corrupt { place, record: self, reason: reason.into() }
    }
}
