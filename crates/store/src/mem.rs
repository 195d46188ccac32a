//! The store in memory: the same behaviour without a disk, for tests and simulations.

use crate::{
    Place, StoreError,
    engine::{Engine, store_by_engine},
    layout::Table,
    segments::Segment,
    tables::{Tables, Write},
};
use bytes::Bytes;
use soma_types::{CommitIndex, Genesis};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

/// A [`Store`](crate::Store) in memory. Cheap and deterministic; its content is lost when it is dropped.
pub struct MemStore {
    engine: Engine<MemTables>,
}

impl MemStore {
    /// A store that only holds the genesis.
    #[expect(clippy::expect_used, reason = "a new store in memory has nothing to fail on")]
    pub fn new(genesis: &Genesis) -> Self {
        let tables = MemTables::default();
        tables.put_all(Engine::<MemTables>::first_writes(genesis));
        let engine = Engine::open(tables, genesis.clone());
        // Reading memory does not fail, and the first writes decode and fit together.
        Self { engine: engine.expect("a new store in memory opens") }
    }

    /// The genesis of the chain.
    pub fn genesis(&self) -> &Genesis {
        self.engine.genesis()
    }
}

store_by_engine!(MemStore);

type Maps = BTreeMap<Table, BTreeMap<Vec<u8>, Bytes>>;

/// One map per table. The lock stands for the disk's own. Batches are written whole under the lock, so a poisoned lock
/// is harmless.
#[derive(Default)]
pub(crate) struct MemTables {
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

    fn keys(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        let maps = self.read();
        let range = (Bound::Included(first), Bound::Included(last));
        let entries = maps.get(&table).into_iter().flat_map(|map| map.range::<[u8], _>(range));
        Ok(entries.map(|(key, _)| Bytes::copy_from_slice(key)).collect())
    }

    fn last_key_within(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let maps = self.read();
        let range = (Bound::Included(first), Bound::Included(last));
        let last = maps.get(&table).and_then(|map| map.range::<[u8], _>(range).next_back());
        Ok(last.map(|(key, _)| Bytes::copy_from_slice(key)))
    }

    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError> {
        let maps = self.read();
        let last = maps.get(&table).and_then(|map| map.last_key_value());
        Ok(last.map(|(key, _)| Bytes::copy_from_slice(key)))
    }

    fn write(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        let segments = segments.iter().map(|segment| Write {
            table: Table::Segments,
            key: segment.id.key().to_vec(),
            value: Some(segment.concat()),
        });
        self.put_all(segments.chain(writes));
        Ok(())
    }

    fn write_below(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        self.write(segments, writes)
    }

    fn write_later(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.write(&[], writes)
    }

    fn reclaim(&self, _: CommitIndex, _: &[CommitIndex]) -> Result<(), StoreError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> Place {
        Place::Memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerList, Store};
    use soma_testkit::{ChainBuilder, ChainSpec};
    use soma_types::{BlockRef, CertifiedCommit};

    /// Calls every method that reads, and the writer, which reads before it adds.
    fn read_all(store: &MemStore, commits: &[CertifiedCommit], next: &CertifiedCommit) {
        let _ = (
            store.watermarks(),
            store.latest_epoch(),
            store.peers(PeerList::Infos),
            store.commits(0..=CommitIndex::MAX),
        );
        for epoch in 0..3 {
            let _ = (store.committee(epoch), store.last_commit_of_epoch(epoch));
        }
        for certified in commits {
            let commit = certified.commit.reference();
            let refs: Vec<BlockRef> = certified.blocks.iter().map(|block| block.reference()).collect();
            let _ = (store.commit(commit.index), store.sub_dag(commit.index), store.votes(commit));
            let _ = (store.block_sizes(&refs), store.blocks_within(&refs, 1_000));
            if let Ok(blocks) = store.blocks(&refs) {
                assert_eq!(blocks.len(), refs.len());
            }
        }
        let _ = crate::serve_commits(store, 1, CommitIndex::MAX, 1 << 20);
        let _ = (store.epoch_proof(0), store.epoch_proof(1));
        let _ = store.apply(std::slice::from_ref(next));
        let _ = store.prune(CommitIndex::MAX);
    }

    #[test]
    fn changed_or_truncated_value_is_an_error_or_harmless_and_never_a_panic() {
        let spec = ChainSpec { commits_per_epoch: 2, payload_bytes: 1, senders: 1, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        let genesis = builder.genesis().clone();
        let commits = builder.build(3);
        let next = builder.next_commit();
        let store = MemStore::new(&genesis);
        store.apply(&commits[..2]).unwrap();
        store.apply(&commits[2..]).unwrap();
        let original = store.engine.tables().read().clone();
        for (table, map) in &original {
            for (key, value) in map {
                let put = |key: &[u8], value: Vec<u8>| {
                    let damaged = MemTables { maps: RwLock::new(original.clone()) };
                    damaged.put_all([Write { table: *table, key: key.to_vec(), value: Some(value.into()) }]);
                    if let Ok(engine) = Engine::open(damaged, genesis.clone()) {
                        read_all(&MemStore { engine }, &commits, &next);
                    }
                };
                // Each byte of short values, and some bytes of long ones.
                let step = (value.len() / 40).max(1);
                for position in (0..value.len()).step_by(step) {
                    put(key, value[..position].to_vec());
                    for byte in [0, 0x7f, 0xff, value[position] ^ 1] {
                        let mut changed = value.to_vec();
                        changed[position] = byte;
                        put(key, changed);
                    }
                }
                put(key, [&value[..], &[0xff]].concat());
                // A key of length zero or another length, after all others.
                put(&[], value.to_vec());
                put(&[0xff; 5], value.to_vec());
            }
        }
    }
}
