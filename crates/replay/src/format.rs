//! The bytes of a trace file.
//!
//! ```text
//!   file   = "SOMATRCE" version:u16 record(Header) record(Record)*
//!   record = length:u32 checksum:u64 payload     integers little-endian; checksum: first 8 bytes of BLAKE3(payload)
//! ```

use crate::encoding::{DecodeError, MAX_RECORD_BYTES, decode, encode};
use crate::record::{Header, Record};

/// First bytes of each file.
const MAGIC: &[u8; 8] = b"SOMATRCE";

/// Version of the format. Files of any other version are refused.
const VERSION: u16 = 2;

/// Bytes before a record's payload: its length and checksum.
const FRAME_BYTES: usize = 12;

/// Bytes of a file that are hashed in search of whole records. In a forged file, every place may look like the start of
/// a long one.
const MAX_SEARCHED_BYTES: usize = 64 << 20;

/// The reason why a file is not a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file does not begin with the magic bytes.
    #[error("not a trace: a trace begins with \"SOMATRCE\"")]
    NotATrace,
    /// The file has another format version.
    #[error("format version {found}; this software reads version {VERSION}")]
    OtherVersion {
        /// The file's version.
        found: u16,
    },
    /// The header record is damaged.
    #[error("the header is damaged")]
    Header,
    /// The header or a record cannot be decoded by this version of the software.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The frame at one offset of a file.
pub(crate) enum Framed<'a> {
    /// A payload with the right checksum, and the offset of the next frame.
    Whole(&'a [u8], usize),
    /// A payload with a wrong checksum, and the offset of the next frame.
    Changed(&'a [u8], usize),
    /// An incomplete frame.
    Torn,
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    checksum
}

fn put_frame(buffer: &mut Vec<u8>, payload: &[u8]) {
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&checksum(payload));
    buffer.extend_from_slice(payload);
}

/// Appends a record.
pub(crate) fn put_record(buffer: &mut Vec<u8>, record: &Record) {
    put_frame(buffer, &encode(record));
}

/// The magic bytes, the version and the header.
pub(crate) fn start_file(header: &Header) -> Vec<u8> {
    let mut buffer = MAGIC.to_vec();
    buffer.extend_from_slice(&VERSION.to_le_bytes());
    put_frame(&mut buffer, &encode(header));
    buffer
}

/// Reads the header. Also returns the offset of the first record.
pub(crate) fn read_header(file: &[u8]) -> Result<(Header, usize), FormatError> {
    let rest = file.strip_prefix(MAGIC).ok_or(FormatError::NotATrace)?;
    let version = rest.first_chunk().ok_or(FormatError::NotATrace)?;
    let found = u16::from_le_bytes(*version);
    if found != VERSION {
        return Err(FormatError::OtherVersion { found });
    }
    match read_frame(file, MAGIC.len() + 2) {
        Framed::Whole(payload, next) => Ok((decode(payload, "header")?, next)),
        _ => Err(FormatError::Header),
    }
}

/// Reads the frame at `offset`.
pub(crate) fn read_frame(file: &[u8], offset: usize) -> Framed<'_> {
    let rest = file.get(offset..).unwrap_or_default();
    let Some((frame, rest)) = rest.split_first_chunk::<FRAME_BYTES>() else { return Framed::Torn };
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > MAX_RECORD_BYTES {
        return Framed::Torn;
    }
    let Some(payload) = rest.get(..length) else { return Framed::Torn };
    let next = offset + FRAME_BYTES + length;
    if frame[4..] == checksum(payload) { Framed::Whole(payload, next) } else { Framed::Changed(payload, next) }
}

/// Where the next whole record begins, from a place on that is none. `None` if the file just ends, as it does after a
/// crash. The end of the file once more than [`MAX_SEARCHED_BYTES`] were `searched`.
pub(crate) fn next_record(file: &[u8], from: usize, searched: &mut usize) -> Option<usize> {
    for offset in from..file.len() {
        match read_frame(file, offset) {
            Framed::Whole(payload, _) if !payload.is_empty() => return Some(offset),
            Framed::Whole(payload, _) | Framed::Changed(payload, _) => *searched += payload.len(),
            Framed::Torn => {}
        }
        if *searched > MAX_SEARCHED_BYTES {
            return Some(file.len());
        }
    }
    None
}
