//! The blocks of each round, and their locations.
//!
//! A round's value is a list of entries of 52 bytes, sorted by their first 36:
//!
//! ```text
//!   author u32, digest (32 bytes), batch u32, number of the segment in it u32, offset u32, length u32
//! ```
//!
//! An entry has the whole digest, so a found block is the requested one. The blocks of a round come in a few
//! consecutive commits. A batch reads a stored round, adds its blocks and writes the round again. That also shows which
//! blocks are already stored.

use crate::{
    CorruptReason, Record, StoreError,
    layout::{Table, parse_round_key, round_key},
    progress::Progress,
    segments::{Location, SegmentId},
    tables::{Tables, Write},
};
use bytes::Bytes;
use soma_types::{BlockRef, Epoch, Round};
use std::collections::{BTreeMap, btree_map};

const NAME_BYTES: usize = 36;
const ENTRY_BYTES: usize = NAME_BYTES + 16;

type Entry = [u8; ENTRY_BYTES];

/// Location of `block` in the value of its round; `None` if it is not stored.
pub(crate) fn find(round: &[u8], block: &BlockRef) -> Result<Option<Location>, CorruptReason> {
    let entries = entries(round)?;
    Ok(position(entries, &name(block)).ok().map(|at| location(&entries[at])))
}

/// The entries of a round that are not in a removed segment; `None` if that are all.
pub(crate) fn without(
    round: &[u8],
    is_removed: impl Fn(SegmentId) -> bool,
) -> Result<Option<Box<[u8]>>, CorruptReason> {
    let entries = entries(round)?;
    let left: Vec<Entry> = entries.iter().filter(|entry| !is_removed(location(entry).segment)).copied().collect();
    Ok((left.len() < entries.len()).then(|| left.as_flattened().into()))
}

/// The rounds that a batch changes.
pub(crate) struct ChangedRounds {
    /// The last stored round. Later rounds need no look-up.
    last_stored: Option<(Epoch, Round)>,
    rounds: BTreeMap<(Epoch, Round), Changed>,
    pruned: Progress,
}

#[derive(Default)]
struct Changed {
    entries: Vec<Entry>,
    is_changed: bool,
}

impl ChangedRounds {
    /// No changes.
    pub(crate) fn new<T: Tables>(tables: &T, pruned: Progress) -> Result<Self, StoreError> {
        let last = tables.last_key(Table::Rounds)?;
        let parse = |key: Bytes| {
            let reason = CorruptReason::KeyLength { bytes: key.len() };
            parse_round_key(&key).ok_or_else(|| Record::Rounds.corrupt(tables.place(), reason))
        };
        Ok(Self { last_stored: last.map(parse).transpose()?, rounds: BTreeMap::new(), pruned })
    }

    /// Adds `block` at the location that `store` returns. If it is already stored, returns its location instead.
    pub(crate) fn add<T: Tables>(
        &mut self,
        tables: &T,
        block: &BlockRef,
        store: impl FnOnce() -> Location,
    ) -> Result<Option<Location>, StoreError> {
        let round = (block.epoch, block.round);
        let changed = match self.rounds.entry(round) {
            btree_map::Entry::Occupied(changed) => changed.into_mut(),
            btree_map::Entry::Vacant(vacant) => {
                let stored = match self.last_stored {
                    Some(last) if round <= last => tables.get(Table::Rounds, &round_key(block.epoch, block.round))?,
                    _ => None,
                };
                let stored = stored.unwrap_or_default();
                let record = Record::Round { epoch: block.epoch, round: block.round };
                let entries = entries(&stored).map_err(|reason| record.corrupt(tables.place(), reason))?;
                vacant.insert(Changed { entries: entries.to_vec(), is_changed: false })
            }
        };
        let name = name(block);
        match position(&changed.entries, &name) {
            Ok(at) => {
                let stored = location(&changed.entries[at]);
                if !self.pruned.has_removed(stored.segment.batch) {
                    return Ok(Some(stored));
                }
                changed.entries[at] = entry(&name, store());
                changed.is_changed = true;
                Ok(None)
            }
            Err(at) => {
                changed.entries.insert(at, entry(&name, store()));
                changed.is_changed = true;
                Ok(None)
            }
        }
    }

    /// The first changed round.
    pub(crate) fn first_changed(&self) -> Option<(Epoch, Round)> {
        self.rounds.iter().find(|(_, changed)| changed.is_changed).map(|(round, _)| *round)
    }

    /// The writes of the changed rounds.
    pub(crate) fn finish(self) -> impl Iterator<Item = Write> {
        self.rounds.into_iter().filter(|(_, changed)| changed.is_changed).map(|((epoch, round), changed)| {
            Write::put(Table::Rounds, round_key(epoch, round), changed.entries.as_flattened())
        })
    }
}

fn entries(round: &[u8]) -> Result<&[Entry], CorruptReason> {
    match round.as_chunks() {
        (entries, []) => Ok(entries),
        _ => Err(CorruptReason::Length { bytes: round.len() }),
    }
}

fn position(entries: &[Entry], name: &[u8; NAME_BYTES]) -> Result<usize, usize> {
    // Blocks mostly come in order.
    if entries.last().is_none_or(|last| last[..NAME_BYTES] < name[..]) {
        return Err(entries.len());
    }
    entries.binary_search_by(|entry| entry[..NAME_BYTES].cmp(name))
}

fn name(block: &BlockRef) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..4].copy_from_slice(&block.author.to_be_bytes());
    name[4..].copy_from_slice(block.digest.as_bytes());
    name
}

fn entry(name: &[u8; NAME_BYTES], location: Location) -> Entry {
    let Location { segment: SegmentId { batch, number }, offset, length } = location;
    let mut entry = [0; ENTRY_BYTES];
    entry[..NAME_BYTES].copy_from_slice(name);
    for (bytes, number) in entry[NAME_BYTES..].chunks_exact_mut(4).zip([batch, number, offset, length]) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    entry
}

fn location(entry: &Entry) -> Location {
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&entry[NAME_BYTES + 4 * at..][..4]);
        u32::from_be_bytes(bytes)
    };
    Location { segment: SegmentId { batch: number(0), number: number(1) }, offset: number(2), length: number(3) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::BlockDigest;

    #[test]
    fn round_finds_exactly_the_blocks_that_were_added() {
        let block = |author, digest| BlockRef { epoch: 1, round: 2, author, digest: BlockDigest([digest; 32]) };
        let place = |offset| Location { segment: SegmentId { batch: 7, number: 258 }, offset, length: 1 << 20 };
        let blocks = [block(0, 9), block(3, 1), block(3, 2), block(256, 0)];
        // Added in mixed order, which must not matter.
        let mut entries: Vec<Entry> = Vec::new();
        for offset in [2, 0, 3, 1] {
            let name = name(&blocks[offset]);
            let at = position(&entries, &name).unwrap_err();
            entries.insert(at, entry(&name, place(offset as u32)));
        }
        let value = entries.as_flattened();
        for (block, offset) in blocks.iter().zip(0..) {
            assert_eq!(find(value, block).unwrap(), Some(place(offset)));
        }
        for other in [block(0, 8), block(1, 9), block(3, 3), block(256, 1)] {
            assert_eq!(find(value, &other).unwrap(), None);
        }
        assert_eq!(find(&[], &blocks[0]).unwrap(), None);
        assert_eq!(find(&value[1..], &blocks[0]), Err(CorruptReason::Length { bytes: 4 * ENTRY_BYTES - 1 }));
    }
}
