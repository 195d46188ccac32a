//! The store in memory: the same behaviour without a disk, for tests and simulations.

use crate::{
    Place, StoreError,
    engine::{Engine, Tables, Write, store_by_engine},
    layout::Table,
    segments::{Segment, SegmentId},
};
use bytes::Bytes;
use soma_types::Genesis;
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

/// A [`Store`](crate::Store) in memory. Cheap and deterministic; gone when dropped.
pub struct MemStore {
    engine: Engine<MemTables>,
}

impl MemStore {
    /// A store that holds nothing but the genesis.
    pub fn new(genesis: &Genesis) -> Self {
        let tables = MemTables::default();
        tables.put_all(Engine::<MemTables>::first_writes(genesis));
        let engine = Engine::open(tables, genesis.clone());
        // Reading memory does not fail, and what was just written decodes and fits together.
        Self { engine: engine.expect("a new store in memory opens") }
    }

    /// The genesis of the chain.
    pub fn genesis(&self) -> &Genesis {
        self.engine.genesis()
    }
}

store_by_engine!(MemStore);

type Maps = BTreeMap<Table, BTreeMap<Vec<u8>, Bytes>>;

/// One map per table. The lock stands for the disk's own: a batch is written under it whole, so that a poisoned
/// one is as good as any.
#[derive(Default)]
struct MemTables {
    maps: RwLock<Maps>,
}

impl MemTables {
    fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_all(&self, writes: impl IntoIterator<Item = Write>) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        for Write { table, key, value } in writes {
            let map = maps.entry(table).or_default();
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
}

impl Tables for MemTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read().get(&table).and_then(|map| map.get(key)).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let maps = self.read();
        let Some(map) = maps.get(&table) else { return Ok(Vec::new()) };
        let entries = map.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(entries.map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect())
    }

    fn walk(
        &self,
        table: Table,
        first: &[u8],
        last: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let maps = self.read();
        let range = (Bound::Included(first), Bound::Included(last));
        let mut entries = maps.get(&table).into_iter().flat_map(|map| map.range::<[u8], _>(range));
        while let Some((key, value)) = entries.next()
            && visit(key, value.clone())
        {}
        Ok(())
    }

    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError> {
        let maps = self.read();
        let last = maps.get(&table).and_then(|map| map.last_key_value());
        Ok(last.map(|(key, _)| Bytes::copy_from_slice(key)))
    }

    fn segment(&self, id: SegmentId) -> Result<Option<Bytes>, StoreError> {
        self.get(Table::Segments, &id.key())
    }

    fn write(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        let segments = segments.iter().map(|segment| Write::put(Table::Segments, segment.id.key(), segment.concat()));
        self.put_all(segments.chain(writes));
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> Place {
        Place::Memory
    }
}
