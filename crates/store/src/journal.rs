//! Checks the database's journals before the database reads them.
//!
//! fjall treats the first batch that it cannot parse as a write that was cut off. It silently drops this batch and
//! everything after it. That is right for the last batch, because an incomplete batch was never announced. For any
//! other batch it would lose announced data. Before fjall opens the journals, this check therefore handles:
//!
//! - a broken batch that is followed by others, in its journal or in a later one: an error, and the journal is
//!   unchanged;
//! - a sequence number that is not above the previous one, or a gap between the commits of consecutive batches that
//!   skip no epochs: likewise. A prepended batch must end where the stored commits begin;
//! - a broken batch at the very end: cut off.
//!
//! fjall checks the bytes of the entries by the batch's checksum.

use crate::{
    CorruptReason, Place, Record, StoreError, Watermarks,
    error::io_error,
    layout::{META_PREPENDED, META_WATERMARKS},
    prepend::Prepended,
};
use soma_types::{CommitIndex, codec};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Last bytes of the marker at a batch's end.
const TRAILER: &[u8; 4] = b"FJL\x03";

/// Bytes per read.
const CHUNK_BYTES: usize = 64 << 10;

/// Checks the journals in `database` of the store at `path`, and cuts off an incomplete last batch. Returns the commits
/// directly beside those in the journals: the tables must have them, unless they are pruned.
pub(crate) fn check(path: &Path, database: &Path) -> Result<Vec<CommitIndex>, StoreError> {
    let mut chain = Chain::default();
    let mut torn: Option<(u64, PathBuf, usize)> = None;
    let mut sequence = None;
    for (id, file) in journals(database).map_err(io_error(database, "list it"))? {
        let corrupt = |reason| Record::Journal(id).corrupt(Place::Disk(path.into()), reason);
        let bytes = written(&file).map_err(io_error(&file, "read it"))?;
        let mut rest = &bytes[..];
        while let Some((batch, behind)) = Batch::parse(rest) {
            if let Some((id, _, offset)) = torn {
                let reason = CorruptReason::BrokenBatch { offset };
                return Err(Record::Journal(id).corrupt(Place::Disk(path.into()), reason));
            }
            // No checksum covers the sequence number, and it decides which of two values of a key is valid.
            if Some(batch.sequence) <= sequence {
                return Err(corrupt(CorruptReason::BrokenBatch { offset: bytes.len() - rest.len() }));
            }
            chain.add(&batch).map_err(|(expected, found)| corrupt(CorruptReason::Gap { expected, found }))?;
            sequence = Some(batch.sequence);
            rest = behind;
        }
        if rest.iter().any(|byte| *byte != 0) {
            let offset = bytes.len() - rest.len();
            if is_followed(rest, sequence) {
                return Err(corrupt(CorruptReason::BrokenBatch { offset }));
            }
            torn.get_or_insert((id, file, offset));
        }
    }
    if let Some((_, file, offset)) = torn {
        tracing::warn!(file = %file.display(), offset, "dropping an incomplete write that was never announced");
        let cut = OpenOptions::new().write(true).open(&file).and_then(|file| {
            file.set_len(offset as u64)?;
            file.sync_all()
        });
        cut.map_err(io_error(&file, "drop an incomplete write"))?;
    }
    Ok(chain.beside())
}

/// The part of the chain that the batches so far have written.
#[derive(Default)]
struct Chain {
    /// The first applied commit.
    first: Option<CommitIndex>,
    /// The last commit.
    last: Option<CommitIndex>,
    /// The watermark `lowest_available`.
    lowest: Option<CommitIndex>,
    /// The commit above the first prepended batch.
    above: Option<CommitIndex>,
}

impl Chain {
    /// Adds the commits of the next batch. If some are missing before it, returns the expected commit and the one found.
    fn add(&mut self, batch: &Batch) -> Result<(), (CommitIndex, CommitIndex)> {
        // Damaged watermarks are found when they are read.
        let Some(watermarks) = batch.watermarks else { return Ok(()) };
        let (lowest, highest) = (watermarks.lowest_available, watermarks.highest_synced.index);
        if let Some(Prepended { above, .. }) = batch.prepended {
            if let Some(expected) = self.lowest.filter(|lowest| *lowest != above) {
                return Err((expected, above));
            }
            if let Some(expected) = self.last.filter(|last| *last < highest) {
                return Err((expected.saturating_add(1), highest));
            }
            self.above.get_or_insert(above);
        } else if let Some(expected) = self.lowest.filter(|known| *known > lowest) {
            // Only a prepended batch moves it down.
            return Err((expected, lowest));
        } else if let Some(first) = batch.first_commit {
            let expected = self.last.map_or(first, |last| last.saturating_add(1));
            // The only commit of skipped epochs is their end, so it does not follow the commits before.
            let are_skipped = lowest > highest;
            if first > expected && !are_skipped {
                return Err((expected, first));
            }
            self.first.get_or_insert(first);
            self.last = Some(highest);
        }
        self.lowest = Some(lowest);
        Ok(())
    }

    fn beside(&self) -> Vec<CommitIndex> {
        self.first.and_then(|first| first.checked_sub(1)).into_iter().chain(self.above).collect()
    }
}

/// The journals in `database`, in the order of their creation.
fn journals(database: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        // fjall refuses other names.
        journals.extend(id.map(|id| (id, entry.path())));
    }
    journals.sort_unstable();
    Ok(journals)
}

/// The bytes of a journal without the zeros at its end: a journal is allocated large and filled from its start.
fn written(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    let zeros = [0; CHUNK_BYTES];
    let mut chunk = zeros;
    let (mut bytes, mut pending) = (Vec::new(), 0);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(bytes),
            read if chunk[..read] == zeros[..read] => pending += read,
            read => {
                bytes.resize(bytes.len() + pending, 0);
                pending = 0;
                bytes.extend_from_slice(&chunk[..read]);
            }
        }
    }
}

/// Whether a whole batch with a higher sequence number follows the broken batch at the start of `bytes`.
///
/// An attacker may hide bytes that look like a batch in a transaction. If that transaction's own write is cut off just
/// after them, the store does not open, but loses nothing.
fn is_followed(bytes: &[u8], sequence: Option<u64>) -> bool {
    (1..bytes.len())
        .any(|start| Batch::parse(&bytes[start..]).is_some_and(|(batch, _)| Some(batch.sequence) > sequence))
}

/// The relevant fields of one batch.
struct Batch {
    /// Sequence number, higher than the previous batch's.
    sequence: u64,
    /// The first commit.
    first_commit: Option<CommitIndex>,
    /// The new watermarks.
    watermarks: Option<Watermarks>,
    /// Set if the commits are below all others.
    prepended: Option<Prepended>,
}

impl Batch {
    /// Parses the batch at the start of `bytes`. Also returns the rest. `None` if the batch is incomplete.
    fn parse(mut bytes: &[u8]) -> Option<(Self, &[u8])> {
        let bytes = &mut bytes;
        if number(bytes, 1)? != 1 {
            return None;
        }
        let entries = number(bytes, 4)?;
        let mut batch = Self { sequence: number(bytes, 8)?, first_commit: None, watermarks: None, prepended: None };
        for _ in 0..entries {
            match number(bytes, 1)? {
                2 => {
                    let is_removal = matches!(bytes.first(), Some(1 | 2));
                    let (key, value) = entry(bytes)?;
                    // Pruning removes commits at the other end of the chain.
                    if is_removal {
                        continue;
                    }
                    // Only commits have keys of four bytes.
                    if let Ok(key) = <[u8; 4]>::try_from(key) {
                        let index = CommitIndex::from_be_bytes(key);
                        batch.first_commit = Some(batch.first_commit.map_or(index, |first| first.min(index)));
                    } else if key == META_PREPENDED {
                        batch.prepended = Prepended::decode(value).ok();
                    } else if key == META_WATERMARKS {
                        batch.watermarks = codec::decode::<Watermarks>(value, "watermarks", 64).ok();
                    }
                }
                // An emptied table.
                4 => drop(number(bytes, 8)?),
                _ => return None,
            }
        }
        let is_end = number(bytes, 1)? == 3;
        number(bytes, 8)?;
        (is_end && take(bytes, TRAILER.len())? == TRAILER).then_some((batch, *bytes))
    }
}

/// Length of the whole batches at the start of `bytes`, and whether a whole batch follows a broken one.
#[cfg(feature = "decoders")]
pub(crate) fn whole(bytes: &[u8]) -> (usize, bool) {
    let (mut rest, mut sequence) = (bytes, None);
    while let Some((batch, behind)) = Batch::parse(rest) {
        (rest, sequence) = (behind, Some(batch.sequence));
    }
    (bytes.len() - rest.len(), is_followed(rest, sequence))
}

/// Parses an entry after its tag. Returns the key and the stored value.
fn entry<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    // Value, removal, weak removal, value in a blob file.
    if !matches!(number(bytes, 1)?, 0 | 1 | 2 | 4) {
        return None;
    }
    let is_compressed = match number(bytes, 1)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    number(bytes, 8)?;
    let key_length = number(bytes, 2)?;
    let (length, stored_length) = (number(bytes, 4)?, number(bytes, 4)?);
    if !is_compressed && length != stored_length {
        return None;
    }
    Some((take(bytes, key_length as usize)?, take(bytes, stored_length as usize)?))
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &mut &[u8], length: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..length].copy_from_slice(take(bytes, length)?);
    Some(u64::from_le_bytes(number))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}
