//! Finds and reads blocks one after another: `round -> place -> segment -> slice`.
//!
//! Neighbours in the order of the chain are in the same round and the same segment as a rule, or in one of two: those
//! stay at hand, so that a run of blocks costs one read for each round and one for each segment.

use crate::{
    CorruptReason, Record, StoreError,
    engine::Tables,
    layout::{Table, round_key},
    rounds,
    segments::{Location, SegmentId},
};
use bytes::Bytes;
use soma_types::{BlockRef, Epoch, Round};

/// Reads for one call. What it has looked up may be out of date in the next one.
pub(crate) struct BlockReader<'a, T> {
    tables: &'a T,
    /// Values of rounds, empty where there is none.
    rounds: Recent<(Epoch, Round)>,
    segments: Recent<SegmentId>,
}

impl<'a, T: Tables> BlockReader<'a, T> {
    pub(crate) fn new(tables: &'a T) -> Self {
        Self { tables, rounds: Recent::default(), segments: Recent::default() }
    }

    /// Where `block` is; `None` if it is not stored.
    pub(crate) fn locate(&mut self, block: &BlockRef) -> Result<Option<Location>, StoreError> {
        let BlockRef { epoch, round, .. } = *block;
        let value = self.rounds.get((epoch, round), || {
            Ok(self.tables.get(Table::Rounds, &round_key(epoch, round))?.unwrap_or_default())
        })?;
        rounds::find(value, block).map_err(|reason| Record::Round { epoch, round }.corrupt(self.tables.place(), reason))
    }

    /// The bytes of `block`, which is at `location`: a slice of its segment.
    pub(crate) fn read(&mut self, block: &BlockRef, location: Location) -> Result<Bytes, StoreError> {
        let id = location.segment;
        let corrupt = |reason| Record::Segment(id).corrupt(self.tables.place(), reason);
        let segment =
            self.segments.get(id, || self.tables.segment(id)?.ok_or_else(|| corrupt(CorruptReason::Missing)))?;
        let end = u64::from(location.offset) + u64::from(location.length);
        if end > segment.len() as u64 {
            return Err(corrupt(CorruptReason::CutOff { block: Box::new(*block), end, bytes: segment.len() }));
        }
        Ok(segment.slice(location.offset as usize..end as usize))
    }
}

/// The last two values that were used.
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
            // The one that was used last before this one is in the other place by now.
            _ => (key, load()?),
        };
        Ok(&self.last.insert(found).1)
    }
}
