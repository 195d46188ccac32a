//! The directory of a store on disk: its identity, its lock and its creation.
//!
//! ```text
//!   PATH/soma-store        magic, format version, chain id, genesis: the store's identity. Written once, and again when
//!                          a newer program opens a store of an earlier format.
//!   PATH/soma-store.lock   locked while the store is open
//!   PATH/db/               the fjall database
//!   PATH/blocks/           the files of blocks, once there are any
//!   PATH/*.new             the identity or the database during its creation
//! ```
//!
//! Invariants:
//! - A directory is examined before anything in it is written. A directory that is foreign, in use, of another chain or
//!   of another format stays unchanged. (Opening the database would already write, because it repairs its journal.)
//! - Each part appears whole, by a rename. The next open finishes an interrupted creation.

use crate::{CorruptReason, NotAStoreReason, Place, Record, StoreError, error::io_error};
use soma_types::{ChainId, Genesis, limits};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

/// The store format that this program writes. 1 had a value per block, 2 had no files of blocks, 3 had a value per
/// commit, 4 had commits and votes only in the database, 5 could not tell which blocks a later batch commits, and 6 had
/// no prepended commits: its programs would remove files of later commits instead.
pub(crate) const FORMAT_VERSION: u32 = 7;
/// The first format in which the table of late blocks is complete.
const LATE_BLOCKS_FORMAT: u32 = 6;
/// The earliest format that this program reads. Opening such a store moves it to the latest one
/// ([`Directory::finish_upgrade`]).
const OLDEST_FORMAT_VERSION: u32 = 5;

const IDENTITY_FILE: &str = "soma-store";
const IDENTITY_DRAFT: &str = "soma-store.new";
const LOCK_FILE: &str = "soma-store.lock";
const DATABASE: &str = "db";
const DATABASE_DRAFT: &str = "db.new";

/// The first bytes of the identity file, in every format.
const MAGIC: &[u8; 8] = b"SOMASTOR";
/// Bytes of the identity file before the genesis: magic, format version (u32, little-endian), chain id.
const IDENTITY_HEADER_BYTES: usize = 8 + 4 + 32;
/// Upper bound of the identity file's size: a genesis is a committee, a name and a few numbers.
const MAX_IDENTITY_BYTES: u64 = (limits::MAX_COMMITTEE_BYTES + 4_096) as u64;

/// The directory of a store that only this process has open.
pub(crate) struct Directory {
    path: PathBuf,
    identity: Identity,
    _lock: Lock,
}

/// The contents of an identity file.
pub(crate) struct Identity {
    /// The format version of the store.
    pub(crate) format: u32,
    /// The genesis of its chain.
    pub(crate) genesis: Genesis,
}

/// The lock on a store's directory. The operating system releases it when the process ends, even by a kill.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process has a copy of the handle until it executes its own program,
        // and the lock lasts as long as any copy, unless it is released explicitly.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock on the store could not be released");
        }
    }
}

impl Directory {
    /// Opens the store of `genesis` at `path`, or creates it in an absent or empty directory.
    pub(crate) fn open_or_create(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        match survey(path)? {
            Found::Store(stored) => expect_chain(path, &stored.genesis, genesis)?,
            Found::Absent => fs::create_dir_all(path).map_err(io_error(path, "create the directory"))?,
            Found::Empty => {}
        }
        let lock = lock(path, OpenOptions::new().write(true).create(true).truncate(false))?;
        // Examine again under the lock: another process may have created the store meanwhile.
        let identity = match survey(path)? {
            Found::Store(stored) => {
                expect_chain(path, &stored.genesis, genesis)?;
                stored
            }
            Found::Absent | Found::Empty => {
                // Sync here, not where the directory is created: its creator may have been killed before the sync.
                sync_parent(path)?;
                write_identity(path, genesis)?;
                Identity { format: FORMAT_VERSION, genesis: genesis.clone() }
            }
        };
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// Opens the store at `path`. Creates nothing.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let identity = match survey(path)? {
            Found::Store(identity) => identity,
            Found::Absent => return Err(not_a_store(path, NotAStoreReason::Absent)),
            Found::Empty => return Err(not_a_store(path, NotAStoreReason::Empty)),
        };
        for entry in [LOCK_FILE, DATABASE] {
            if !exists(&path.join(entry))? {
                return Err(not_a_store(path, NotAStoreReason::Incomplete { entry }));
            }
        }
        let lock = lock(path, OpenOptions::new().write(true))?;
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// The store's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The genesis of the store's chain.
    pub(crate) fn genesis(&self) -> &Genesis {
        &self.identity.genesis
    }

    /// Whether the store is of an earlier format.
    pub(crate) fn is_of_earlier_format(&self) -> bool {
        self.identity.format < FORMAT_VERSION
    }

    /// Whether every program that wrote the store kept the table of late blocks.
    pub(crate) fn has_late_blocks(&self) -> bool {
        self.identity.format >= LATE_BLOCKS_FORMAT
    }

    /// Marks the store as one of the latest format, once its content is. Earlier programs refuse it from now on.
    pub(crate) fn finish_upgrade(&mut self) -> Result<(), StoreError> {
        write_identity(&self.path, &self.identity.genesis)?;
        tracing::info!(path = %self.path.display(), from = self.identity.format, to = FORMAT_VERSION, "upgraded the store");
        self.identity.format = FORMAT_VERSION;
        Ok(())
    }

    /// Path of the database.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Creates the database with `make`, unless it exists. `make` gets an absent path, and must have closed the
    /// database when it returns.
    pub(crate) fn create_database(&self, make: impl FnOnce(&Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let database = self.database();
        if exists(&database)? {
            // The process that moved it here may have stopped before the sync. Without the sync, a power cut could
            // remove the name, and with it data that is announced from now on.
            return sync_directory(&self.path);
        }
        let draft = self.path.join(DATABASE_DRAFT);
        if exists(&draft)? {
            tracing::info!(path = %draft.display(), "removing a database whose creation was interrupted");
            fs::remove_dir_all(&draft).map_err(io_error(&draft, "remove the unfinished database"))?;
        }
        make(&draft)?;
        fs::rename(&draft, &database).map_err(io_error(&database, "move the new database into place"))?;
        sync_directory(&self.path)
    }
}

/// The contents of a path.
enum Found {
    /// The path does not exist.
    Absent,
    /// A directory that is empty or only has the first files of a store.
    Empty,
    /// A readable store.
    Store(Identity),
}

/// Examines `path` without a change.
fn survey(path: &Path) -> Result<Found, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(not_a_store(path, NotAStoreReason::NotADirectory)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(io_error(path, "look at it")(error)),
    }
    let file = path.join(IDENTITY_FILE);
    match File::open(&file) {
        Ok(identity) => return read_identity(path, identity).map(Found::Store),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(&file, "read it")(error)),
    }
    for entry in fs::read_dir(path).map_err(io_error(path, "list it"))? {
        let entry = entry.map_err(io_error(path, "list it"))?.file_name();
        if entry != LOCK_FILE && entry != IDENTITY_DRAFT {
            let entry = entry.to_string_lossy().into_owned();
            return Err(not_a_store(path, NotAStoreReason::Foreign { entry }));
        }
    }
    Ok(Found::Empty)
}

fn read_identity(path: &Path, identity: File) -> Result<Identity, StoreError> {
    let mut bytes = Vec::new();
    let file = path.join(IDENTITY_FILE);
    identity.take(MAX_IDENTITY_BYTES).read_to_end(&mut bytes).map_err(io_error(&file, "read it"))?;
    decode_identity(path, &bytes)
}

/// Decodes the identity file of the store at `path`.
pub(crate) fn decode_identity(path: &Path, bytes: &[u8]) -> Result<Identity, StoreError> {
    let unknown = || not_a_store(path, NotAStoreReason::UnknownIdentity);
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(unknown)?;
    let (version, rest) = rest.split_first_chunk().ok_or_else(unknown)?;
    let format = u32::from_le_bytes(*version);
    if format > FORMAT_VERSION {
        return Err(StoreError::NewerFormat { path: path.to_owned(), found: format, supported: FORMAT_VERSION });
    }
    if format < OLDEST_FORMAT_VERSION {
        let supported = OLDEST_FORMAT_VERSION;
        return Err(StoreError::OlderFormat { path: path.to_owned(), found: format, supported });
    }
    let (chain, genesis) = rest.split_first_chunk().ok_or_else(unknown)?;
    let corrupt = |reason| Record::Identity.corrupt(Place::Disk(path.into()), reason);
    let (expected, found) = (ChainId(*chain), ChainId::of(&[genesis]));
    if found != expected {
        return Err(corrupt(CorruptReason::OtherGenesis { expected: Box::new(expected), found: Box::new(found) }));
    }
    let genesis = Genesis::decode(genesis).map_err(|error| corrupt(error.into()))?;
    Ok(Identity { format, genesis })
}

/// Encodes the identity file of a store of the latest format.
pub(crate) fn encode_identity(genesis: &Genesis) -> Vec<u8> {
    let encoded = genesis.encode();
    let mut bytes = Vec::with_capacity(IDENTITY_HEADER_BYTES + encoded.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(genesis.chain_id().as_bytes());
    bytes.extend_from_slice(&encoded);
    bytes
}

fn write_identity(path: &Path, genesis: &Genesis) -> Result<(), StoreError> {
    let bytes = encode_identity(genesis);
    let draft = path.join(IDENTITY_DRAFT);
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path.join(IDENTITY_FILE))
    };
    write().map_err(io_error(&draft, "write it"))?;
    sync_directory(path)
}

fn expect_chain(path: &Path, stored: &Genesis, given: &Genesis) -> Result<(), StoreError> {
    let (expected, found) = (given.chain_id(), stored.chain_id());
    if expected != found {
        return Err(StoreError::OtherChain { path: path.to_owned(), expected, found });
    }
    Ok(())
}

/// Makes the name of the store's directory durable.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        // The parent of a bare name is the empty path, which system calls reject.
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => Ok(()),
    }
}

fn lock(path: &Path, options: &OpenOptions) -> Result<Lock, StoreError> {
    let file = path.join(LOCK_FILE);
    let lock = options.open(&file).map_err(io_error(&file, "open it"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(&file, "lock it")(error)),
    }
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(io_error(path, "look at it"))
}

/// Bytes that all files below `path` take on the disk. A file that is removed meanwhile counts as none.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64, StoreError> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(io_error(path, "list it"))? {
        let entry = entry.map_err(io_error(path, "list it"))?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path())?,
            // A journal is longer than its content.
            Ok(metadata) => metadata.blocks() * 512,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error(&entry.path(), "look at it")(error)),
        };
    }
    Ok(bytes)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path, "make its entries durable"))
}

fn not_a_store(path: &Path, reason: NotAStoreReason) -> StoreError {
    StoreError::NotAStore { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_store_is_free_while_a_child_process_has_copies_of_its_handles() {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
        let held = lock(directory.path(), &options).unwrap();
        // Like fork.
        let _copy = held.0.try_clone().unwrap();
        assert!(matches!(lock(directory.path(), &options), Err(StoreError::InUse { .. })));
        drop(held);
        assert!(lock(directory.path(), &options).is_ok());
    }
}
