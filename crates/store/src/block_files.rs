//! Files of blocks: what a sync writes lies here, with the commits and votes of the same batches, and in the database only
//! where.
//!
//! ```text
//!   blocks/00000001.blocks   segment 1.0 | 1.1 | votes | commits 1.. | 16.. | zeros | segment 201.0 | ...   up to 256 MiB
//!   blocks/00000002.blocks   segment 9001.0 | ...                   a batch begins at a multiple of 4 KiB
//! ```
//!
//! A database writes every value to its journal first and to a table later. That was half of the work of a sync (docs/adr/0007),
//! and a file to which one thread appends needs no journal: bytes are synced here before the database is told of them, and
//! what it was not told of is nobody's.
//!
//! They are written past the page cache where that is possible. A batch of this size is one of a sync, whose executor gets the blocks from
//! memory; a chain longer than memory would push out what is read again and again.
//!
//! A file is never opened for writing again: each process begins one of its own when it first has something for it. So
//! nobody has to find out where the last one was torn.

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

/// The directory of the files in that of the store.
const DIRECTORY: &str = "blocks";

/// A file ends with the batch that reaches it: 256 MiB, so that there are few, and each is soon free when its chain is
/// not needed any more.
const FILE_BYTES: u64 = 256 << 20;

/// Files that stay open for reading: peers who catch up at the same time are in one each, and go on from there. Opening one for
/// each value took a twentieth of what serving costs.
const OPEN_FILES: usize = 8;

/// A value of a table of which large batches have theirs in files, as the database has it.
///
/// ```text
///   0, the value     or     1, file u32, offset u32, length u32, checksum u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The value itself.
    Here(Bytes),
    /// Where it is.
    Filed(Extent),
}

impl Stored {
    const HERE: u8 = 0;
    const FILED: u8 = 1;

    /// The value that is `pieces`, one behind the other, stored here.
    pub(crate) fn here(pieces: &[&[u8]]) -> Bytes {
        let mut bytes = Vec::with_capacity(1 + pieces.iter().map(|piece| piece.len()).sum::<usize>());
        bytes.push(Self::HERE);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.into()
    }

    /// The value that is in a file.
    pub(crate) fn filed(extent: Extent) -> Bytes {
        [&[Self::FILED][..], &extent.encode()].concat().into()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            Self::HERE => Some(Self::Here(bytes)),
            Self::FILED => Extent::decode(&bytes).map(Self::Filed),
            _ => None,
        }
    }
}

/// Where a value lies, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Number of the file.
    file: u32,
    /// Where in the file it begins.
    offset: u32,
    length: u32,
    /// XXH3 of its bytes. Peers are served what is read, undecoded: damage must not look like a lie of ours.
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
    /// Held while a batch is appended. After one that failed nothing is appended any more, so that its lock may be poisoned.
    end: Mutex<End>,
    /// Files that are open for reading, first the one that was opened last. Held for a look only.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
}

/// Where the next value goes.
struct End {
    /// The file that is written, once this process has written any.
    file: Option<DirectFile>,
    number: u32,
    offset: u64,
}

impl BlockFiles {
    /// The files of the store at `store`. Writes nothing.
    pub(crate) fn open(store: &Path) -> Result<Self, StoreError> {
        let directory = store.join(DIRECTORY);
        let mut number = 0;
        match fs::read_dir(&directory) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(io_error(&directory, "list it"))?.file_name();
                    let named = name.to_str().and_then(|name| name.strip_suffix(".blocks")?.parse().ok());
                    number = number.max(named.unwrap_or(0));
                }
            }
            // Made with the first file.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&directory, "list it")(error)),
        }
        let end = Mutex::new(End { file: None, number, offset: 0 });
        Ok(Self { store: store.to_owned(), end, open: Mutex::default() })
    }

    /// Writes `values`, each the pieces that it consists of, and makes them durable. Where each is.
    ///
    /// After a failure nobody can tell what is on the disk: nothing may be appended any more.
    pub(crate) fn append<'a>(
        &self,
        values: impl Iterator<Item = &'a [&'a [u8]]> + Clone,
    ) -> Result<Vec<Extent>, StoreError> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, mut offset) = (end.number, end.offset);
        let (mut file, number, is_new) = match end.file.take() {
            Some(file) if offset < FILE_BYTES => (file, number, false),
            _ => {
                offset = 0;
                // A name that somebody put there may have the greatest number.
                let exhausted = || {
                    io_error(&self.path(number), "begin a file behind it")(io::Error::other(
                        "it has the greatest number",
                    ))
                };
                let number = number.checked_add(1).ok_or_else(exhausted)?;
                (self.create(number)?, number, true)
            }
        };
        let path = self.path(number);
        let mut extents = Vec::new();
        for pieces in values.clone() {
            let mut checksum = Xxh3::new();
            pieces.iter().for_each(|piece| checksum.update(piece));
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            // Offsets are below `FILE_BYTES` and a batch: far from 4 GiB. So is a value.
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

    /// The bytes of `record`, which are where `extent` says.
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

    /// A file to be read.
    fn opened(&self, number: u32) -> io::Result<Arc<File>> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open().iter().find(|(open, _)| *open == number) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(number))?);
        let mut open = open();
        // Somebody else may have been faster.
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
        // Also if it was there: whoever made it may have been killed before its name was on the disk.
        sync_directory(&self.store)?;
        let path = self.path(number);
        DirectFile::create(&path).map_err(io_error(&path, "create it"))
    }
}

/// The bytes that are in `file` where `extent` says, fewer if it is shorter.
fn read(file: &File, extent: Extent) -> io::Result<Vec<u8>> {
    let length = extent.length as usize;
    // Not made as long as the extent says: that may be damaged, too.
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
