//! Files of blocks. A sync writes its blocks here, with the commits and votes of the same batches. The database only
//! has their positions.
//!
//! ```text
//!   blocks/00000001.blocks   segment 1.0 | 1.1 | votes | commits 1.. | 16.. | zeros | segment 201.0 | ...
//!   blocks/00000002.blocks   segment 9001.0 | ...
//!                            up to 64 MiB; a batch begins at a multiple of 4 KiB
//! ```
//!
//! A database writes every value first to its journal and later to a table. That was half of the work of a sync
//! (docs/adr/0007). A file to which one thread appends needs no journal: its bytes are synced before the database gets
//! their positions, and unreferenced bytes are garbage.
//!
//! Writes bypass the page cache where possible. A batch of this size belongs to a sync, and its executor gets the
//! blocks from memory. A chain longer than memory would evict data that is read often.
//!
//! A file is never reopened for writing: each process starts a new file at its first write. So no process has to find
//! the torn end of an earlier file.
//!
//! The numbers of files tell their [order](chain_order) in the chain, so that pruning finds the old ones:
//!
//! ```text
//!   2147483649   2147483648   |   00000001   00000002
//!   prepended, the last one   |   applied, the last one
//!   lowest commits                               highest
//! ```

use crate::{
    CorruptReason, Place, Record, StoreError, direct_file::DirectFile, directory::sync_directory, error::io_error,
};
use bytes::{Buf, Bytes};
use rustix::{
    buffer::spare_capacity,
    io::{pread, retry_on_intr},
};
use soma_types::limits::MAX_BLOCK_BYTES;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Directory of the files, in the store's directory.
const DIRECTORY: &str = "blocks";

/// A file ends with the batch that reaches this size. At 64 MiB there are few files, and each is soon free when its
/// part of the chain is no longer needed.
const FILE_BYTES: u64 = 64 << 20;

/// Number of the first file with prepended batches. The later such a file, the lower its commits.
const FIRST_BELOW: u32 = 1 << 31;

/// The end of the chain at which a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Above all other batches.
    Above,
    /// Below all other batches.
    Below,
}

impl Side {
    /// Whether the file has batches of this side.
    fn has(self, number: u32) -> bool {
        (number >= FIRST_BELOW) == (self == Self::Below)
    }

    /// The number before the first file of this side.
    fn before_first(self) -> u32 {
        match self {
            Self::Above => 0,
            Self::Below => FIRST_BELOW - 1,
        }
    }
}

/// Sorts files like their commits: all commits of a file are below those of a file that is later in this order.
fn chain_order(number: u32) -> i64 {
    match Side::Below.has(number) {
        true => -i64::from(number),
        false => i64::from(number),
    }
}

/// Files that stay open for reading. Peers that catch up at the same time each read in sequence in one file. Opening a
/// file for each value was a twentieth of the cost of serving.
const OPEN_FILES: usize = 8;

/// A database value of a table with large batches in files.
///
/// ```text
///   0, the value     or     1, file u32, offset u32, length u32, checksum u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The value itself.
    Here(Bytes),
    /// The value's position in a file.
    Filed(Extent),
}

impl Stored {
    const HERE: u8 = 0;
    const FILED: u8 = 1;

    /// Encodes a value that is in the database, from consecutive `pieces`.
    pub(crate) fn here(pieces: &[&[u8]]) -> Bytes {
        let mut bytes = Vec::with_capacity(1 + pieces.iter().map(|piece| piece.len()).sum::<usize>());
        bytes.push(Self::HERE);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.into()
    }

    /// Encodes a value that is in a file.
    pub(crate) fn filed(extent: Extent) -> Bytes {
        [&[Self::FILED][..], &extent.encode()].concat().into()
    }

    /// The value's file, if it is in one.
    pub(crate) fn file(&self) -> Option<u32> {
        match self {
            Self::Here(_) => None,
            Self::Filed(extent) => Some(extent.file),
        }
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            Self::HERE => Some(Self::Here(bytes)),
            Self::FILED => Extent::decode(&bytes).map(Self::Filed),
            _ => None,
        }
    }
}

/// Position, length and checksum of a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Number of the file.
    file: u32,
    /// Offset in the file.
    offset: u32,
    length: u32,
    /// XXH3 of the value. Peers get the bytes undecoded, and damage must not look like a lie of this node.
    checksum: u64,
}

impl Extent {
    const BYTES: usize = 20;

    fn encode(self) -> Vec<u8> {
        let Self { file, offset, length, checksum } = self;
        let numbers = [file, offset, length].map(u32::to_be_bytes);
        [numbers.as_flattened(), &checksum.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (numbers, checksum) = bytes.split_last_chunk::<8>()?;
        let (numbers, _) = numbers.as_chunks::<4>();
        let [file, offset, length] = *numbers else { return None };
        let number = u32::from_be_bytes;
        let checksum = u64::from_be_bytes(*checksum);
        Some(Self { file: number(file), offset: number(offset), length: number(length), checksum })
    }
}

/// The files of one store.
pub(crate) struct BlockFiles {
    /// The store's directory.
    store: PathBuf,
    /// Held while a batch is appended. After a failed append none follows, so a poisoned lock is harmless.
    above: Mutex<End>,
    /// The same for prepended batches.
    below: Mutex<End>,
    /// Files that are open for reading, the last opened first. Held only for a look-up.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
}

/// Position of the next value.
struct End {
    /// The current file, once this process has written.
    file: Option<DirectFile>,
    number: u32,
    offset: u64,
}

impl BlockFiles {
    /// Opens the files of the store at `store`. Writes nothing.
    pub(crate) fn open(store: &Path) -> Result<Self, StoreError> {
        let numbers = numbers(&store.join(DIRECTORY))?;
        let end = |side: Side| {
            let last = numbers.iter().copied().filter(|number| side.has(*number)).max();
            Mutex::new(End { file: None, number: last.unwrap_or(side.before_first()), offset: 0 })
        };
        let (above, below) = (end(Side::Above), end(Side::Below));
        Ok(Self { store: store.to_owned(), above, below, open: Mutex::default() })
    }

    /// Writes `values`, each a list of pieces, and makes them durable. Returns the extent of each value.
    ///
    /// After a failure the state of the disk is unknown, so nothing may be appended any more.
    pub(crate) fn append<'a>(
        &self,
        side: Side,
        values: impl Iterator<Item = &'a [&'a [u8]]> + Clone,
    ) -> Result<Vec<Extent>, StoreError> {
        let end = match side {
            Side::Above => &self.above,
            Side::Below => &self.below,
        };
        let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, mut offset) = (end.number, end.offset);
        let (mut file, number, is_new) = match end.file.take() {
            Some(file) if offset < FILE_BYTES => (file, number, false),
            _ => {
                offset = 0;
                // A file that another program put there may have the greatest number.
                let exhausted = || {
                    io_error(&self.path(number), "begin a file behind it")(io::Error::other(
                        "it has the greatest number",
                    ))
                };
                let number = number.checked_add(1).filter(|number| side.has(*number)).ok_or_else(exhausted)?;
                (self.create(number)?, number, true)
            }
        };
        let path = self.path(number);
        let mut extents = Vec::new();
        for pieces in values.clone() {
            let mut checksum = Xxh3::new();
            pieces.iter().for_each(|piece| checksum.update(piece));
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            // Offsets are below `FILE_BYTES` plus a batch, far below 4 GiB. So is the length of a value.
            let (start, length) = (offset as u32, bytes as u32);
            extents.push(Extent { file: number, offset: start, length, checksum: checksum.digest() });
            offset += bytes as u64;
        }
        let pieces = values.flatten().copied();
        file.append(pieces).map_err(io_error(&path, "write blocks"))?;
        file.sync().map_err(io_error(&path, "sync blocks"))?;
        if is_new {
            sync_directory(&self.store.join(DIRECTORY))?;
        }
        *end = End { file: Some(file), number, offset: DirectFile::aligned(offset) };
        Ok(extents)
    }

    /// Reads the bytes of `record` at `extent`.
    pub(crate) fn read(&self, record: Record, extent: Extent) -> Result<Bytes, StoreError> {
        let corrupt = |reason| record.corrupt(Place::Disk(self.store.as_path().into()), reason);
        let bytes = match self.opened(extent.file).and_then(|file| read(&file, extent)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(corrupt(CorruptReason::FileMissing { file: extent.file }));
            }
            Err(error) => return Err(io_error(&self.path(extent.file), "read blocks")(error)),
        };
        if bytes.len() != extent.length as usize || xxh3_64(&bytes) != extent.checksum {
            return Err(corrupt(CorruptReason::Checksum { file: extent.file }));
        }
        Ok(bytes.into())
    }

    /// Whether there are files with lower commits than file `first`, except those with the numbers `kept`.
    pub(crate) fn has_before(&self, first: u32, kept: &[u32]) -> Result<bool, StoreError> {
        let is_old = |number: &u32| chain_order(*number) < chain_order(first) && !kept.contains(number);
        Ok(numbers(&self.store.join(DIRECTORY))?.iter().any(is_old))
    }

    /// Removes the files with lower commits than file `first`, except those with the numbers `kept`. A reader that has one open may
    /// still read it.
    pub(crate) fn remove_before(&self, first: u32, kept: &[u32]) -> Result<(), StoreError> {
        let is_old = |number: u32| chain_order(number) < chain_order(first) && !kept.contains(&number);
        let directory = self.store.join(DIRECTORY);
        for number in numbers(&directory)?.into_iter().filter(|number| is_old(*number)) {
            let path = self.path(number);
            match fs::remove_file(&path) {
                Ok(()) => tracing::debug!(file = %path.display(), "removed a file of pruned blocks"),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(&path, "remove it")(error)),
            }
        }
        // An open file keeps its space.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(number, _)| !is_old(*number));
        Ok(())
    }

    /// Opens a file for reading, or returns the open one.
    fn opened(&self, number: u32) -> io::Result<Arc<File>> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open().iter().find(|(open, _)| *open == number) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(number))?);
        let mut open = open();
        // Another thread may have opened the file meanwhile.
        open.retain(|(other, _)| *other != number);
        open.truncate(OPEN_FILES - 1);
        open.push_front((number, file.clone()));
        Ok(file)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.store.join(DIRECTORY).join(format!("{number:08}.blocks"))
    }

    fn create(&self, number: u32) -> Result<DirectFile, StoreError> {
        let directory = self.store.join(DIRECTORY);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error(&directory, "create the directory")(error)),
        }
        // Sync an existing directory too: its creator may have been killed before the name was durable.
        sync_directory(&self.store)?;
        let path = self.path(number);
        DirectFile::create(&path).map_err(io_error(&path, "create it"))
    }
}

/// The numbers of the files in `directory`; none if it does not exist. The first append creates it.
fn numbers(directory: &Path) -> Result<Vec<u32>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(directory, "list it")(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error(directory, "list it"))?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".blocks")?.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// Reads the bytes at `extent`; fewer if the file is shorter.
fn read(file: &File, extent: Extent) -> io::Result<Vec<u8>> {
    let length = extent.length as usize;
    // The extent's length may be damaged too, so it does not determine the allocation.
    let mut bytes = Vec::with_capacity(length.min(MAX_BLOCK_BYTES));
    while bytes.len() < length {
        bytes.reserve(1);
        let offset = u64::from(extent.offset) + bytes.len() as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut bytes), offset))? == 0 {
            break;
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}
