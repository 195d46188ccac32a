//! The store over any set of tables: what both implementations share, which is all but the bytes' home.
//!
//! One writer at a time ([`Engine::writer`]); readers take no lock and may run beside it. Tables need not show a
//! batch to readers all at once, so a batch is written in an order in which every part comes after what it needs:
//! blocks, votes, committees, commits, and the watermarks last.

use crate::{
    CorruptReason, Place, Record, Store, StoreError, Watermarks,
    layout::{
        META_CHAIN_ID, META_WATERMARKS, Table, block_key, commit_key, epoch_key, parse_epoch_key, parse_vote_key,
        vote_key, vote_prefix,
    },
    plan::plan,
};
use bytes::Bytes;
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, Committee, Epoch, Genesis, PeerId, TrustedCommit, codec,
};
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
};

/// One change of one table.
pub(crate) struct Write {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub(crate) value: Option<Bytes>,
}

impl Write {
    fn put(table: Table, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Self {
        Self { table, key: key.into(), value: Some(value.into()) }
    }
}

/// Sorted maps of bytes that change together.
pub(crate) trait Tables: Send + Sync + 'static {
    /// The value at `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Length of the value at `key`.
    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<usize>, StoreError>;
    /// All entries whose keys begin with `prefix`, in order.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// The last key.
    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError>;
    /// Makes all `writes`, which name no key twice, or none of them; durable when it returns. A reader who sees one
    /// of them sees those before it.
    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError>;
    /// Makes durable whatever is not yet.
    fn flush(&self) -> Result<(), StoreError>;
    /// Where the tables are.
    fn place(&self) -> Place;
}

/// A [`Store`] over [`Tables`].
pub(crate) struct Engine<T> {
    tables: T,
    genesis: Genesis,
    chain_id: ChainId,
    /// Held by `apply` from reading the watermark to moving it. Guards no data of its own, so that a poisoned one
    /// is as good as any: a writer that panicked has written its batch whole or not at all.
    writer: Mutex<()>,
}

impl<T: Tables> Engine<T> {
    /// What a new store holds.
    pub(crate) fn first_writes(genesis: &Genesis) -> Vec<Write> {
        let commit = genesis.commit();
        let watermarks = Watermarks { highest_synced: commit.reference(), lowest_available: 1 };
        vec![
            Write::put(Table::Meta, META_CHAIN_ID, codec::encode(&genesis.chain_id())),
            Write::put(Table::Committees, epoch_key(0), codec::encode(&genesis.committee)),
            Write::put(Table::Commits, commit_key(0), commit.bytes().clone()),
            Write::put(Table::Meta, META_WATERMARKS, codec::encode(&watermarks)),
        ]
    }

    /// The store in `tables`, which hold at least the [`first_writes`](Self::first_writes) of `genesis`.
    pub(crate) fn open(tables: T, genesis: Genesis) -> Result<Self, StoreError> {
        let engine = Self { tables, chain_id: genesis.chain_id(), genesis, writer: Mutex::new(()) };
        let found: ChainId =
            engine.decode(Record::ChainId, engine.tables.get(Table::Meta, META_CHAIN_ID)?, |bytes| {
                codec::decode(bytes, "chain id", 32)
            })?;
        if found != engine.chain_id {
            let reason = CorruptReason::OtherChain { expected: Box::new(engine.chain_id), found: Box::new(found) };
            return Err(engine.corrupt(Record::ChainId, reason));
        }
        let highest = engine.watermarks()?.highest_synced;
        // A commit goes with the watermark that names it or a later one: if one is there and the other is not, writes
        // that were announced are lost.
        let record = Record::Watermarks;
        let last = engine.tables.last_key(Table::Commits)?;
        if let Some(found) = last.and_then(|key| Some(CommitIndex::from_be_bytes(key[..].try_into().ok()?)))
            && found > highest.index
        {
            return Err(engine.corrupt(record, CorruptReason::Behind { highest: highest.index, found }));
        }
        let record = Record::Commit(highest.index);
        match engine.commit(highest.index)?.map(|commit| commit.reference().digest) {
            None => Err(engine.corrupt(record, CorruptReason::Missing)),
            Some(found) if found != highest.digest => Err(engine.corrupt(
                record,
                CorruptReason::OtherDigest { expected: Box::new(highest.digest), found: Box::new(found) },
            )),
            Some(_) => Ok(engine),
        }
    }

    /// The genesis of the chain.
    pub(crate) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    fn corrupt(&self, record: Record, reason: impl Into<CorruptReason>) -> StoreError {
        record.corrupt(self.tables.place(), reason)
    }

    /// Decodes a value that must be there.
    fn decode<V>(
        &self,
        record: Record,
        bytes: Option<Bytes>,
        decode: impl FnOnce(&[u8]) -> Result<V, soma_types::CodecError>,
    ) -> Result<V, StoreError> {
        let bytes = bytes.ok_or_else(|| self.corrupt(record, CorruptReason::Missing))?;
        decode(&bytes).map_err(|error| self.corrupt(record, error))
    }
}

impl<T: Tables> Store for Engine<T> {
    fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    fn watermarks(&self) -> Result<Watermarks, StoreError> {
        let bytes = self.tables.get(Table::Meta, META_WATERMARKS)?;
        self.decode(Record::Watermarks, bytes, |bytes| codec::decode(bytes, "watermarks", 64))
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<TrustedCommit>, StoreError> {
        let Some(bytes) = self.tables.get(Table::Commits, &commit_key(index))? else { return Ok(None) };
        let record = Record::Commit(index);
        let commit = TrustedCommit::decode(bytes).map_err(|error| self.corrupt(record, error))?;
        if commit.index != index {
            return Err(self.corrupt(record, CorruptReason::OtherCommit { found: commit.index }));
        }
        Ok(Some(commit))
    }

    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError> {
        range.map_while(|index| self.commit(index).transpose()).collect()
    }

    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError> {
        refs.iter().map(|block| self.tables.get(Table::Blocks, &block_key(block))).collect()
    }

    fn block_sizes(&self, refs: &[BlockRef]) -> Result<Vec<Option<usize>>, StoreError> {
        refs.iter().map(|block| self.tables.size_of(Table::Blocks, &block_key(block))).collect()
    }

    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
        let stored = self.commit(commit.index)?.filter(|stored| stored.reference() == commit);
        let mut voters = Vec::new();
        for (key, _) in self.tables.scan(Table::Votes, &vote_prefix(commit))? {
            let voter = parse_vote_key(&key).ok_or_else(|| {
                self.corrupt(Record::Vote(commit.index), CorruptReason::KeyLength { bytes: key.len() })
            })?;
            if stored.as_ref().is_none_or(|stored| stored.epoch == voter.epoch) {
                voters.push(voter);
            }
        }
        Ok(voters)
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Committee>, StoreError> {
        let Some(bytes) = self.tables.get(Table::Committees, &epoch_key(epoch))? else { return Ok(None) };
        let record = Record::Committee(epoch);
        let committee = Committee::decode(&bytes).map_err(|error| self.corrupt(record, error))?;
        if committee.epoch != epoch {
            return Err(self.corrupt(record, CorruptReason::OtherEpoch { found: committee.epoch }));
        }
        Ok(Some(committee))
    }

    fn latest_epoch(&self) -> Result<Epoch, StoreError> {
        let record = Record::Committees;
        let key = self.tables.last_key(Table::Committees)?;
        let key = key.ok_or_else(|| self.corrupt(record, CorruptReason::Missing))?;
        parse_epoch_key(&key).ok_or_else(|| self.corrupt(record, CorruptReason::KeyLength { bytes: key.len() }))
    }

    fn last_commit_of_epoch(&self, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError> {
        let Some(bytes) = self.tables.get(Table::Epochs, &epoch_key(epoch))? else { return Ok(None) };
        let index = codec::decode(&bytes, "commit index", 4);
        index.map(Some).map_err(|error| self.corrupt(Record::LastCommit(epoch), error))
    }

    fn peers(&self) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        let named = |(key, info): (Bytes, Bytes)| {
            let id = <[u8; 32]>::try_from(&key[..])
                .map_err(|_| self.corrupt(Record::Peer, CorruptReason::KeyLength { bytes: key.len() }))?;
            Ok((PeerId(id), info))
        };
        self.tables.scan(Table::Peers, &[])?.into_iter().map(named).collect()
    }

    fn update_peers(&self, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError> {
        // A map, so that no key is named twice: later entries and removals win.
        let mut changes: BTreeMap<PeerId, Option<Bytes>> = BTreeMap::new();
        changes.extend(put.iter().map(|(peer, info)| (*peer, Some(info.clone()))));
        changes.extend(remove.iter().map(|peer| (*peer, None)));
        if changes.is_empty() {
            return Ok(());
        }
        let write = |(peer, value): (PeerId, _)| Write { table: Table::Peers, key: peer.0.to_vec(), value };
        self.tables.write(changes.into_iter().map(write).collect())
    }

    fn apply(&self, batch: &[CertifiedCommit]) -> Result<Watermarks, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.watermarks()?;
        let planned = plan(&self.tables.place(), before.highest_synced, batch)?;
        let after = Watermarks { highest_synced: planned.highest_synced, ..before };

        let mut writes = Vec::with_capacity(planned.blocks.len() + planned.votes.len() + planned.commits.len() + 3);
        for (block, bytes) in planned.blocks {
            let key = block_key(&block);
            // Its name fixes its bytes, and a certifier block is often committed a little later: written once.
            if self.tables.size_of(Table::Blocks, &key)? != Some(bytes.len()) {
                writes.push(Write::put(Table::Blocks, key, bytes.clone()));
            }
        }
        for (commit, block) in planned.votes {
            writes.push(Write::put(Table::Votes, vote_key(commit, &block), Bytes::new()));
        }
        for (epoch, committee) in planned.committees {
            writes.push(Write::put(Table::Committees, epoch_key(epoch), codec::encode(committee)));
        }
        for (epoch, index) in planned.last_commits {
            writes.push(Write::put(Table::Epochs, epoch_key(epoch), codec::encode(&index)));
        }
        for commit in planned.commits {
            writes.push(Write::put(Table::Commits, commit_key(commit.index), commit.bytes().clone()));
        }
        writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&after)));
        self.tables.write(writes)?;
        Ok(after)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.tables.flush()
    }

    fn place(&self) -> Place {
        self.tables.place()
    }
}

/// Implements [`Store`] for a type whose field `engine` is one.
macro_rules! store_by_engine {
    ($store:ty) => {
        crate::engine::store_by_engine! { $store:
            fn chain_id() -> soma_types::ChainId;
            fn watermarks() -> Result<crate::Watermarks, crate::StoreError>;
            fn commit(index: soma_types::CommitIndex)
                -> Result<Option<soma_types::TrustedCommit>, crate::StoreError>;
            fn commits(range: std::ops::RangeInclusive<soma_types::CommitIndex>)
                -> Result<Vec<soma_types::TrustedCommit>, crate::StoreError>;
            fn blocks(refs: &[soma_types::BlockRef]) -> Result<Vec<Option<bytes::Bytes>>, crate::StoreError>;
            fn block_sizes(refs: &[soma_types::BlockRef]) -> Result<Vec<Option<usize>>, crate::StoreError>;
            fn votes(commit: soma_types::CommitRef) -> Result<Vec<soma_types::BlockRef>, crate::StoreError>;
            fn committee(epoch: soma_types::Epoch)
                -> Result<Option<soma_types::Committee>, crate::StoreError>;
            fn latest_epoch() -> Result<soma_types::Epoch, crate::StoreError>;
            fn last_commit_of_epoch(epoch: soma_types::Epoch)
                -> Result<Option<soma_types::CommitIndex>, crate::StoreError>;
            fn peers() -> Result<Vec<(soma_types::PeerId, bytes::Bytes)>, crate::StoreError>;
            fn update_peers(put: &[(soma_types::PeerId, bytes::Bytes)], remove: &[soma_types::PeerId])
                -> Result<(), crate::StoreError>;
            fn apply(batch: &[soma_types::CertifiedCommit]) -> Result<crate::Watermarks, crate::StoreError>;
            fn flush() -> Result<(), crate::StoreError>;
            fn place() -> crate::Place;
        }
    };
    ($store:ty: $(fn $name:ident($($arg:ident: $kind:ty),*) -> $result:ty;)*) => {
        impl crate::Store for $store {
            $(fn $name(&self, $($arg: $kind),*) -> $result {
                self.engine.$name($($arg),*)
            })*
        }
    };
}
pub(crate) use store_by_engine;
