//! Finds and reads blocks in sequence: `round -> location -> segment -> slice`.
//!
//! Neighbours in the order of the chain are in the same or the next round, and usually in the same segment or in one of
//! two. A run of blocks costs one search for all its rounds and one read per segment.

use crate::{
    CorruptReason, Record, StoreError,
    layout::{Table, parse_round_key, round_key},
    progress::Progress,
    rounds,
    segments::{Location, SegmentId},
    tables::Tables,
};
use bytes::Bytes;
use soma_types::{BlockRef, Epoch, Round};
use std::collections::BTreeMap;

/// Maximum number of rounds per look-up: one search for a usual range.
const ROUNDS_AT_ONCE: u32 = 128;

/// Bytes of rounds that end a look-up: the rounds of a large committee are long.
const ROUNDS_BYTES: usize = 256 << 10;

/// A reader for one call. Its cached rounds may be out of date in the next call.
pub(crate) struct BlockReader<'a, T> {
    tables: &'a T,
    /// Rounds of the last look-up; empty for a round that is not stored.
    rounds: BTreeMap<(Epoch, Round), Bytes>,
    segments: Recent<SegmentId>,
    pruned: Progress,
}

impl<'a, T: Tables> BlockReader<'a, T> {
    pub(crate) fn new(tables: &'a T) -> Result<Self, StoreError> {
        let pruned = Progress::read(tables)?;
        Ok(Self { tables, rounds: BTreeMap::new(), segments: Recent::default(), pruned })
    }

    /// Location of the first of `blocks`; `None` if it is not stored. The others are the blocks of the next calls.
    pub(crate) fn locate(&mut self, blocks: &[BlockRef]) -> Result<Option<Location>, StoreError> {
        let Some(block) = blocks.first() else { return Ok(None) };
        let BlockRef { epoch, round, .. } = *block;
        if !self.rounds.contains_key(&(epoch, round)) {
            self.look_up(epoch, round, blocks)?;
        }
        let value = self.rounds.get(&(epoch, round)).map_or(&[][..], |value| value);
        let found = rounds::find(value, block)
            .map_err(|reason| Record::Round { epoch, round }.corrupt(self.tables.place(), reason))?;
        // An entry of a later round may outlive its segment for a while.
        Ok(found.filter(|location| !self.pruned.has_removed(location.segment.batch)))
    }

    /// Looks up a round together with the neighbouring rounds of `blocks`.
    fn look_up(&mut self, epoch: Epoch, round: Round, blocks: &[BlockRef]) -> Result<(), StoreError> {
        let (mut first, mut last) = (round, round);
        for next in blocks.iter().take_while(|next| next.epoch == epoch).map(|next| next.round) {
            // Blocks of a commit and of neighbouring commits are in neighbouring rounds. Do not read rounds in between.
            let (from, to) = (first.min(next), last.max(next));
            if from.saturating_add(1) < first || last.saturating_add(1) < to || to - from >= ROUNDS_AT_ONCE {
                break;
            }
            (first, last) = (from, to);
        }
        self.rounds = (first..=last).map(|round| ((epoch, round), Bytes::new())).collect();
        let (rounds, mut bytes, mut seen) = (&mut self.rounds, 0, last);
        self.tables.walk(Table::Rounds, &round_key(epoch, first), &round_key(epoch, last), &mut |key, value| {
            let Some((_, found)) = parse_round_key(key) else { return true };
            bytes += value.len();
            rounds.insert((epoch, found), value);
            // The lookup must reach the requested round.
            let goes_on = bytes < ROUNDS_BYTES || found < round;
            if !goes_on {
                seen = found;
            }
            goes_on
        })?;
        // Rounds beyond the end of the look-up are unknown.
        if let Some(next) = seen.checked_add(1) {
            drop(self.rounds.split_off(&(epoch, next)));
        }
        Ok(())
    }

    /// The bytes of `block` at `location`: a slice of its segment.
    pub(crate) fn read(&mut self, block: &BlockRef, location: Location) -> Result<Bytes, StoreError> {
        let id = location.segment;
        let corrupt = |reason| Record::Segment(id).corrupt(self.tables.place(), reason);
        let segment = self
            .segments
            .get(id, || self.tables.get(Table::Segments, &id.key())?.ok_or_else(|| corrupt(CorruptReason::Missing)))?;
        let end = u64::from(location.offset) + u64::from(location.length);
        if end > segment.len() as u64 {
            return Err(corrupt(CorruptReason::CutOff { block: Box::new(*block), end, bytes: segment.len() }));
        }
        Ok(segment.slice(location.offset as usize..end as usize))
    }
}

/// A cache of the last two values.
struct Recent<K> {
    last: Option<(K, Bytes)>,
    before: Option<(K, Bytes)>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self { last: None, before: None }
    }
}

impl<K: PartialEq> Recent<K> {
    fn get(&mut self, key: K, load: impl FnOnce() -> Result<Bytes, StoreError>) -> Result<&Bytes, StoreError> {
        let is = |slot: &Option<(K, Bytes)>| slot.as_ref().is_some_and(|(held, _)| *held == key);
        if !is(&self.last) {
            std::mem::swap(&mut self.last, &mut self.before);
        }
        let found = match self.last.take() {
            Some(found) if found.0 == key => found,
            // The previously used value is in the other slot now.
            _ => (key, load()?),
        };
        Ok(&self.last.insert(found).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mem::MemTables, rounds::ChangedRounds};
    use soma_types::BlockDigest;

    #[test]
    fn blocks_are_found_in_rounds_of_any_length_and_in_any_order() {
        let tables = MemTables::default();
        // 150 rounds of 5,200 bytes: more than one look-up, in number and in bytes.
        let block = |round, author| BlockRef { epoch: 1, round, author, digest: BlockDigest([author as u8; 32]) };
        let place =
            |round, author| Location { segment: SegmentId { batch: round, number: 0 }, offset: author, length: 1 };
        let mut changed = ChangedRounds::new(&tables, Progress::default()).unwrap();
        let mut blocks: Vec<_> = (1..=150).flat_map(|round| (0..100).map(move |author| block(round, author))).collect();
        for block in &blocks {
            changed.add(&tables, block, || place(block.round, block.author)).unwrap();
        }
        tables.write(&[], changed.finish().collect()).unwrap();

        for _ in 0..3 {
            let mut reader = BlockReader::new(&tables).unwrap();
            for (position, block) in blocks.iter().enumerate().step_by(7) {
                assert_eq!(reader.locate(&blocks[position..]).unwrap(), Some(place(block.round, block.author)));
            }
            // In reverse, then in mixed order.
            blocks.reverse();
            blocks.sort_by_key(|block| (block.round % 3, block.author));
        }
        let mut reader = BlockReader::new(&tables).unwrap();
        assert_eq!(reader.locate(&[block(7, 100), block(8, 1)]).unwrap(), None, "no such block");
        assert_eq!(reader.locate(&[block(151, 1), block(150, 1)]).unwrap(), None, "no such round");
        assert_eq!(reader.locate(&[block(150, 1)]).unwrap(), Some(place(150, 1)));
    }
}
