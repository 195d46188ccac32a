//! Reading a trace, damaged files included.

use crate::{
    encoding::decode,
    format::{FormatError, Framed, next_record, put_record, read_frame, read_header, start_file},
    record::{Header, Record},
    ring,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// A trace, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The contents of its files.
    pub items: Vec<Item>,
}

/// One item of a trace.
#[derive(Clone, Debug)]
pub enum Item {
    /// A file that does not continue the previous one: it belongs to another run, or the files between are missing.
    /// Every actor is unknown until its next state.
    Begins(Header),
    /// An undamaged record.
    Record(Record),
    /// A record with a wrong checksum or length.
    Damaged(Damage),
    /// The file ends within a record, as after a crash.
    Torn {
        /// Start of the incomplete record.
        place: Place,
        /// Remaining bytes.
        bytes: usize,
    },
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for a trace in memory.
    pub file: Option<PathBuf>,
    /// Offset in bytes.
    pub offset: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}, byte {}", file.display(), self.offset),
            None => write!(f, "byte {}", self.offset),
        }
    }
}

/// A record with a wrong checksum.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Where it stands.
    pub place: Place,
    /// The damaged record, if it can be decoded.
    pub says: Option<Record>,
    /// Number of the last undamaged record before it.
    pub after: Option<u64>,
    /// The record's actor. A replay sets this field.
    pub actor: Option<String>,
}

/// The reason why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A file or directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The directory has no trace files.
    #[error("{}: no trace files (*.{}) in this directory", .0.display(), ring::EXTENSION)]
    Empty(PathBuf),
    /// Not a trace, or a trace that this version cannot read.
    #[error("{place}: {source}")]
    Format {
        /// Position of the failure.
        place: Place,
        /// The reason.
        source: FormatError,
    },
}

impl Trace {
    /// Reads a trace file, or all trace files in a directory.
    ///
    /// # Errors
    /// Fails if a file cannot be read, is not a trace or cannot be decoded, or if the directory has no trace file.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TraceError::Io { path, source }
        };
        let is_directory = fs::metadata(path).map_err(failed(path))?.is_dir();
        let files = if is_directory { ring::files(path).map_err(failed(path))? } else { vec![path.to_path_buf()] };
        if files.is_empty() {
            return Err(TraceError::Empty(path.to_path_buf()));
        }
        let mut reader = Reader::default();
        for file in files {
            let bytes = fs::read(&file).map_err(failed(&file))?;
            reader.read(Some(&file), &bytes)?;
        }
        Ok(Self { items: reader.items })
    }

    /// Reads a trace from the bytes of one file.
    ///
    /// # Errors
    /// Fails if the bytes are not a trace, or if a record with the right checksum cannot be decoded.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        let mut reader = Reader::default();
        reader.read(None, bytes)?;
        Ok(Self { items: reader.items })
    }

    /// Encodes records as one file, to keep or change a part of a trace.
    pub fn write<'r>(header: &Header, records: impl IntoIterator<Item = &'r Record>) -> Vec<u8> {
        let mut file = start_file(header);
        records.into_iter().for_each(|record| put_record(&mut file, record));
        file
    }

    /// All undamaged records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            _ => None,
        })
    }
}

#[derive(Default)]
struct Reader {
    items: Vec<Item>,
    /// Run and number of the file that would continue the previous one.
    expected: Option<(u64, u64)>,
}

impl Reader {
    fn read(&mut self, file: Option<&Path>, bytes: &[u8]) -> Result<(), TraceError> {
        let place = |offset| Place { file: file.map(Path::to_path_buf), offset };
        let (header, mut offset) = match read_header(bytes) {
            Ok(read) => read,
            // The process ended while it wrote the header.
            Err(_) if bytes.len() < 64 && b"SOMATRCE".starts_with(&bytes[..bytes.len().min(8)]) => {
                self.items.push(Item::Torn { place: place(0), bytes: bytes.len() });
                self.expected = None;
                return Ok(());
            }
            Err(source) => return Err(TraceError::Format { place: place(0), source }),
        };
        if self.expected != Some((header.run, header.file)) {
            self.items.push(Item::Begins(header.clone()));
        }
        // A forged header can have the greatest number, which no file continues.
        self.expected = header.file.checked_add(1).map(|next| (header.run, next));
        let (mut last, mut searched) = (None, 0);
        while offset < bytes.len() {
            let damaged = |says| Item::Damaged(Damage { place: place(offset), says, after: last, actor: None });
            let format = |source| TraceError::Format { place: place(offset), source: FormatError::Decode(source) };
            offset = match read_frame(bytes, offset) {
                Framed::Whole(payload, next) => {
                    let record: Record = decode(payload, "record").map_err(format)?;
                    last = Some(record.number());
                    self.items.push(Item::Record(record));
                    next
                }
                Framed::Changed(payload, next) => {
                    self.items.push(damaged(decode(payload, "record").ok()));
                    next
                }
                // A crash leaves nothing behind a torn record. A wrong length looks the same, but others follow it.
                Framed::Torn => match next_record(bytes, offset + 1, &mut searched) {
                    Some(next) => {
                        self.items.push(damaged(None));
                        next
                    }
                    None => {
                        self.items.push(Item::Torn { place: place(offset), bytes: bytes.len() - offset });
                        self.expected = None;
                        return Ok(());
                    }
                },
            };
        }
        Ok(())
    }
}
