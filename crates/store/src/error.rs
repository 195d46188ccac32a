//! What can go wrong with a store. Every message says what, where, and what to do about it.

use crate::segments::SegmentId;
use soma_types::{BlockRef, ChainId, CodecError, CommitDigest, CommitIndex, Epoch, GenesisError, Round};
use std::{
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this directory.
    Disk(Box<Path>),
    /// In this process only.
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

/// One thing that a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
        /// Its epoch.
        epoch: Epoch,
        /// The round.
        round: Round,
    },
    /// The list of rounds.
    #[error("the list of rounds")]
    Rounds,
    /// The votes for some neighbouring commits, by the index from which on they are.
    #[error("the list of votes for commits from {0} on")]
    Votes(CommitIndex),
    /// The block that holds a vote for a commit.
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
    /// An entry of the address book, or of the standings of peers.
    #[error("an entry of a list of peers")]
    Peer,
    /// The watermarks.
    #[error("the watermarks")]
    Watermarks,
    /// The chain id inside the database.
    #[error("the chain id in the database")]
    ChainId,
    /// The database as a whole.
    #[error("the database in db")]
    Database,
    /// One of the database's journals, by its number.
    #[error("the journal db/{0}.jnl")]
    Journal(u64),
    /// The file by which the database knows itself.
    #[error("the database's file db/version")]
    DatabaseVersion,
    /// The file that makes a directory a store.
    #[error("the file soma-store")]
    Identity,
}

/// What is wrong with a stored value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptReason {
    /// It must be there and is not.
    #[error("it is missing")]
    Missing,
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its key has a length that no key of its kind has.
    #[error("its key has {bytes} bytes")]
    KeyLength {
        /// Bytes of the key.
        bytes: usize,
    },
    /// It has a length that no value of its kind has.
    #[error("it has {bytes} bytes")]
    Length {
        /// Bytes of the value.
        bytes: usize,
    },
    /// It is neither a value nor the place of one in a file.
    #[error("it is neither a value nor the place of one in a file")]
    NoValue,
    /// It is shorter than it was.
    #[error("it has {bytes} bytes, and block {block} ends at byte {end}")]
    CutOff {
        /// A block that is not all there.
        block: Box<BlockRef>,
        /// Where that block ends.
        end: u64,
        /// Bytes that are there.
        bytes: usize,
    },
    /// The file of blocks that it lies in is gone.
    #[error("its file, number {file} in blocks, is missing")]
    FileMissing {
        /// Number of the file.
        file: u32,
    },
    /// Its bytes are not those that were written.
    #[error("its bytes in file number {file} in blocks are not those that were written")]
    Checksum {
        /// Number of the file.
        file: u32,
    },
    /// A batch that was announced cannot be read.
    #[error("the write at byte {offset} cannot be read, and later ones can")]
    BrokenBatch {
        /// Where the batch begins.
        offset: usize,
    },
    /// Commits are missing between two of its batches.
    #[error("commit {found} comes where commit {expected} must")]
    Gap {
        /// The commit that is missing.
        expected: CommitIndex,
        /// The commit that is there.
        found: CommitIndex,
    },
    /// Commits are stored over the watermark: the last writes are lost in part.
    #[error("they end with commit {highest}, and commit {found} is stored")]
    Behind {
        /// By the watermark.
        highest: CommitIndex,
        /// The last commit that is stored.
        found: CommitIndex,
    },
    /// The database panicked over it.
    #[error("the database cannot make sense of it ({message})")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// A commit stands under another's index.
    #[error("commit {found} stands in its place")]
    OtherCommit {
        /// Its index.
        found: CommitIndex,
    },
    /// The commit is another one than the watermark, or the commit after it, names.
    #[error("its digest should be {expected}, and is {found}")]
    OtherDigest {
        /// Named by the watermark or the next commit.
        expected: Box<CommitDigest>,
        /// Stored.
        found: Box<CommitDigest>,
    },
    /// A block stands under another's name.
    #[error("the bytes in its place are those of block {found}")]
    OtherBlock {
        /// What the bytes are.
        found: Box<BlockRef>,
    },
    /// A committee stands under another epoch.
    #[error("the committee of epoch {found} stands in its place")]
    OtherEpoch {
        /// Its epoch.
        found: Epoch,
    },
    /// The chain id is another one than the file `soma-store` says.
    #[error("it is {found}, and the file soma-store says {expected}")]
    OtherChain {
        /// By the file.
        expected: Box<ChainId>,
        /// By the database.
        found: Box<ChainId>,
    },
    /// The genesis is not the one that the chain id names.
    #[error("its genesis has the digest {found}, and it says {expected}")]
    OtherGenesis {
        /// The chain id that it states.
        expected: Box<ChainId>,
        /// The digest of the genesis in it.
        found: Box<ChainId>,
    },
    /// The genesis in it breaks a rule.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// Why a commit and what comes with it do not fit together or do not fit the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It continues another commit than the one before it.
    #[error("it continues a commit of digest {found}, and the one before it has {expected}")]
    PreviousDigest {
        /// Digest of the commit before.
        expected: CommitDigest,
        /// What the commit says.
        found: CommitDigest,
    },
    /// It comes with more or fewer blocks than it names.
    #[error("it names {expected} blocks and comes with {found}")]
    BlockCount {
        /// Blocks that the commit names.
        expected: usize,
        /// Blocks that came with it.
        found: usize,
    },
    /// One of its blocks is not the one it names in that place.
    #[error("block {position} is {found}, and the commit names {expected}")]
    Block {
        /// Place in the commit's list, from 0.
        position: usize,
        /// The block that the commit names.
        expected: BlockRef,
        /// The block that came.
        found: BlockRef,
    },
    /// The committee that it hands over to is not for the next epoch.
    #[error("it ends epoch {epoch} and hands over to a committee of epoch {found}")]
    NextCommittee {
        /// The commit's epoch.
        epoch: Epoch,
        /// Epoch of the committee.
        found: Epoch,
    },
    /// The chain has no index left.
    #[error("commit indices end here")]
    NoIndexLeft,
}

/// Why a directory is no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAStoreReason {
    /// There is nothing.
    #[error("there is nothing; give the path of a node's store")]
    Absent,
    /// It is a file or the like.
    #[error("it is not a directory; give the path of a directory")]
    NotADirectory,
    /// It is an empty directory, or one where creating a store was interrupted.
    #[error("no store was created in it yet; start the node once with its genesis to create it")]
    Empty,
    /// It holds files of something else.
    #[error("it holds something else ({entry:?}); give an empty or a new directory")]
    Foreign {
        /// One of its entries.
        entry: String,
    },
    /// Its file `soma-store` was not written by this program.
    #[error("its file soma-store is not one that this program wrote; give another directory")]
    UnknownIdentity,
    /// Part of it is gone.
    #[error("it has lost its {entry:?}; start the node once with its genesis, or restore the directory from a copy")]
    Incomplete {
        /// What is missing.
        entry: &'static str,
    },
}

/// Why a store refused or failed. Large parts are boxed: it travels in every result.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The batch does not begin where the chain ends, or skips or repeats an index.
    #[error("{place}: commit {found} came where commit {expected} is next; nothing was written, plan again from there")]
    OutOfOrder {
        /// The store.
        place: Place,
        /// The index that must come.
        expected: CommitIndex,
        /// The index that came.
        found: CommitIndex,
    },
    /// A batch without commits.
    #[error("{place}: an empty batch came where commit {expected} is next; nothing was written")]
    EmptyBatch {
        /// The store.
        place: Place,
        /// The index that must come.
        expected: CommitIndex,
    },
    /// A commit does not fit the chain or its blocks. Whoever verified it let it through: our own fault.
    #[error("{place}: commit {index} does not fit: {what}; nothing was written, fetch it again")]
    Mismatch {
        /// The store.
        place: Place,
        /// The commit.
        index: CommitIndex,
        /// What does not fit.
        what: Box<Mismatch>,
    },
    /// A stored value is not what it must be: the disk or somebody changed it.
    #[error(
        "{place}: {record} is damaged: {reason}; check the disk, then restore the store from a copy or remove it and \
         sync anew"
    )]
    Corrupt {
        /// The store.
        place: Place,
        /// What is damaged.
        record: Record,
        /// How.
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
        /// The chain of the genesis given.
        expected: ChainId,
        /// The chain of the store.
        found: ChainId,
    },
    /// Somebody has the store open, in this process or in another.
    #[error("store {} is in use by another process, or twice by this one; stop the other or give another directory", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// There is no store at the path. Nothing was written.
    #[error("{} is no store: {reason}", path.display())]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        reason: NotAStoreReason,
    },
    /// A newer program wrote the store. Nothing was written.
    #[error("store {} has format version {found}, and this program reads up to {supported}; use a newer one", path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// An older program wrote the store, in a format that this one does not read. Nothing was written.
    #[error(
        "store {} has format version {found}, and this program reads {supported} only; remove the store and sync anew, or \
         use the program that wrote it", path.display()
    )]
    OlderFormat {
        /// The store.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The one that this program reads.
        supported: u32,
    },
    /// The file system refused.
    #[error("{}: cannot {doing}: {source}; {}", path.display(), advice_on_file(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A write failed earlier. After that nobody can tell what is on the disk, and nothing more is written until the
    /// store is opened again; what is stored can still be read.
    #[error("{place} takes no more writes since one failed: {first}")]
    Stopped {
        /// The store.
        place: Place,
        /// The first failure, and what to do about it.
        first: Box<str>,
    },
    /// The database failed.
    #[error("{place}: cannot {doing}: {}; {}", cause(source), advice_on_database(source))]
    Database {
        /// The store.
        place: Place,
        /// What was tried.
        doing: &'static str,
        /// The database's reason.
        source: Box<fjall::Error>,
    },
}

impl StoreError {
    /// Whether the store itself is at fault (disk, damage, another owner) and not what it was asked to do.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::OutOfOrder { .. } | Self::EmptyBatch { .. } | Self::Mismatch { .. })
    }
}

/// The system's reason for a failure of the database, if that is what it was.
fn system_error(error: &fjall::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = error.source();
    }
    None
}

fn cause(error: &fjall::Error) -> String {
    match (system_error(error), error) {
        (Some(error), _) => error.to_string(),
        (None, fjall::Error::Poisoned) => {
            "a write of the database's own failed, and it takes no more (the log has its error)".to_owned()
        }
        (None, error) => format!("{error:?}"),
    }
}

/// What to do about a failure of the disk.
fn advice_on_disk(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk is full: free space on it, then restart the node"
        }
        _ => "check the disk, then restart the node",
    }
}

fn advice_on_file(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename
        | ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem => "check that the path is right and that this user may write there",
        _ => advice_on_disk(error),
    }
}

fn advice_on_database(error: &fjall::Error) -> &'static str {
    match (system_error(error), error) {
        // What a file that is cut off or missing leads to, and an offset that is none: its files, not the disk's calls.
        (Some(error), _)
            if !matches!(
                error.kind(),
                ErrorKind::UnexpectedEof
                    | ErrorKind::InvalidData
                    | ErrorKind::InvalidInput
                    | ErrorKind::NotFound
                    | ErrorKind::Other
            ) =>
        {
            advice_on_disk(error)
        }
        (None, fjall::Error::Poisoned) => "free space on the disk or check the disk, then restart the node",
        _ => "check the disk, then restore the store from a copy or remove it and sync anew",
    }
}

/// The error for a failed call of the file system on `path`.
pub(crate) fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), doing, source }
}

impl Record {
    /// The error for a damaged `self`.
    pub(crate) fn corrupt(self, place: Place, reason: impl Into<CorruptReason>) -> StoreError {
        StoreError::Corrupt { place, record: self, reason: reason.into() }
    }
}
