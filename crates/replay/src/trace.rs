//! Reading a trace back, whatever became of its files.

use crate::{
    encoding::decode,
    format::{FormatError, Framed, put_record, read_frame, read_header, start_file},
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
    /// What its files hold.
    pub items: Vec<Item>,
}

/// What is found in a trace.
#[derive(Clone, Debug)]
pub enum Item {
    /// A file that does not continue what came before: of another run, or files before it are gone. Nothing is known
    /// of any actor until its next state.
    Begins(Header),
    /// A record in order.
    Record(Record),
    /// A record that was changed after it was written.
    Damaged(Damage),
    /// The file ends within a record, as after a crash, or cannot be read on.
    Torn {
        /// Where.
        place: Place,
        /// Bytes that are left over.
        bytes: usize,
    },
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for a trace in memory.
    pub file: Option<PathBuf>,
    /// Bytes before it.
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

/// A record whose checksum is wrong.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Where it stands.
    pub place: Place,
    /// What it says now, if that is still a record.
    pub says: Option<Record>,
    /// Number of the record before it.
    pub after: Option<u64>,
    /// The actor that it tells of, once a replay has found out.
    pub actor: Option<String>,
}

/// Why there is no trace to read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A file or directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Nothing is there.
    #[error("{}: no trace files (*.{}) in this directory", .0.display(), ring::EXTENSION)]
    Empty(PathBuf),
    /// Not a trace, or not one that this version reads.
    #[error("{place}: {source}")]
    Format {
        /// Where.
        place: Place,
        /// What is wrong.
        source: FormatError,
    },
}

impl Trace {
    /// Reads a trace file, or all that are in a directory.
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

    /// Reads the bytes of one file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        let mut reader = Reader::default();
        reader.read(None, bytes)?;
        Ok(Self { items: reader.items })
    }

    /// The bytes of one file with these records: to keep a part of a trace, or to change one.
    pub fn write<'r>(header: &Header, records: impl IntoIterator<Item = &'r Record>) -> Vec<u8> {
        let mut file = start_file(header);
        records.into_iter().for_each(|record| put_record(&mut file, record));
        file
    }

    /// The records that are in order.
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
    /// The file that would continue what was read: run and number.
    expected: Option<(u64, u64)>,
}

impl Reader {
    fn read(&mut self, file: Option<&Path>, bytes: &[u8]) -> Result<(), TraceError> {
        let place = |offset| Place { file: file.map(Path::to_path_buf), offset };
        let (header, mut offset) = match read_header(bytes) {
            Ok(read) => read,
            // The process ended while it began the file.
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
        // None continues a file of the greatest number: a header may say anything.
        self.expected = header.file.checked_add(1).map(|next| (header.run, next));
        let mut last = None;
        while offset < bytes.len() {
            let format = |source| TraceError::Format { place: place(offset), source: FormatError::Decode(source) };
            offset = match read_frame(bytes, offset) {
                Framed::Whole(payload, next) => {
                    let record: Record = decode(payload, "record").map_err(format)?;
                    last = Some(record.number());
                    self.items.push(Item::Record(record));
                    next
                }
                Framed::Changed(payload, next) => {
                    let says = decode(payload, "record").ok();
                    self.items.push(Item::Damaged(Damage { place: place(offset), says, after: last, actor: None }));
                    next
                }
                Framed::Torn => {
                    self.items.push(Item::Torn { place: place(offset), bytes: bytes.len() - offset });
                    self.expected = None;
                    return Ok(());
                }
            };
        }
        Ok(())
    }
}
