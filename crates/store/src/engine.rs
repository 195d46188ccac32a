//! The store above any set of tables: everything that both implementations share.
//!
//! There is one writer at a time ([`Engine::writer`]). Readers take no lock and may run concurrently. Tables may show a
//! batch to readers in parts, so each part is written after the parts that it needs: segments, rounds, votes,
//! committees, commits, and the watermarks last.

use crate::{
    CorruptReason, PeerList, Place, Pruned, Record, Seam, Store, StoreError, VOTES_AHEAD, Watermarks,
    batch::pack,
    commits,
    epoch_proof::make_epoch_proof,
    layout::{
        META_CHAIN_ID, META_LATE_FROM, META_PRUNED, META_WATERMARKS, Table, commit_key, epoch_key, first_beside,
        parse_commit_key, parse_epoch_key,
    },
    plan::{check_skipped_epochs, plan},
    prepend::{self, Prepended},
    progress::{Progress, late_from},
    prune,
    reader::BlockReader,
    sub_dags,
    tables::{Tables, Write},
    votes,
};
use bytes::Bytes;
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, CommittedSubDag, Committee, EndedEpoch, Epoch,
    EpochProof, Genesis, PeerId, TrustedCommit, codec,
};
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
};

/// A [`Store`] over [`Tables`].
pub(crate) struct Engine<T> {
    tables: T,
    genesis: Genesis,
    chain_id: ChainId,
    /// Held by `apply` from reading the watermarks to writing them. It guards no data of its own, so a poisoned lock is
    /// harmless: a writer that panicked has written its whole batch or nothing.
    writer: Mutex<()>,
}

impl<T: Tables> Engine<T> {
    /// The contents of a new store.
    pub(crate) fn first_writes(genesis: &Genesis) -> Vec<Write> {
        let commit = genesis.commit();
        let watermarks = Watermarks { highest_synced: commit.reference(), lowest_available: 1 };
        let mut writes = vec![
            Write::put(Table::Meta, META_CHAIN_ID, codec::encode(&genesis.chain_id())),
            Write::put(Table::Committees, epoch_key(0), codec::encode(genesis.committee())),
            Write::put(Table::Meta, META_LATE_FROM, codec::encode(&CommitIndex::MIN)),
        ];
        writes.extend(commits::writes([&commit]));
        writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&watermarks)));
        writes
    }

    /// Opens the store in `tables`, which hold at least the [`first_writes`](Self::first_writes) of `genesis`.
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
        // A commit is written together with its watermark. If one exists without the other, announced writes are lost.
        // A value has commits of one batch only, so its first commit shows it.
        let record = Record::Watermarks;
        let last = engine.tables.last_key(Table::Commits)?;
        if let Some(found) = last.and_then(|key| parse_commit_key(&key))
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

    /// The tables.
    #[cfg(any(feature = "fjall", test))]
    pub(crate) fn tables(&self) -> &T {
        &self.tables
    }

    fn corrupt(&self, record: Record, reason: impl Into<CorruptReason>) -> StoreError {
        record.corrupt(self.tables.place(), reason)
    }

    /// Whether the commit is pruned. The last commit never is.
    fn is_pruned(&self, index: CommitIndex) -> Result<bool, StoreError> {
        let Watermarks { highest_synced, lowest_available } = self.watermarks()?;
        Ok(index < lowest_available && index != highest_synced.index)
    }

    /// Fails if the commit was pruned.
    fn expect_kept(&self, index: CommitIndex) -> Result<(), StoreError> {
        let lowest = self.watermarks()?.lowest_available;
        if index == 0 || index >= lowest {
            return Ok(());
        }
        Err(StoreError::Pruned { place: self.tables.place(), index, lowest })
    }

    /// Moves the watermark `lowest_available` up to `lowest`, together with the proofs of the epochs that it passes. It
    /// stops earlier if the proofs are large.
    fn raise_lowest(&self, before: Watermarks, lowest: CommitIndex) -> Result<Watermarks, StoreError> {
        let index = before.lowest_available;
        let first = self.commit(index)?.ok_or_else(|| self.corrupt(Record::Commit(index), CorruptReason::Missing))?;
        let (mut writes, mut bytes, mut raised) = (Vec::new(), 0, lowest);
        for epoch in first.epoch.. {
            let Some(last) = self.last_commit_of_epoch(epoch)?.filter(|last| *last < lowest) else { break };
            // Skipped and prepended later: the proof is stored already.
            if self.stored_proof(epoch)?.is_some() {
                continue;
            }
            match make_epoch_proof(self, last)?.map(|proof| proof.encode()) {
                Some(proof) => {
                    bytes += proof.len();
                    writes.push(Write::put(Table::Proofs, epoch_key(epoch), proof));
                }
                None => tracing::warn!(epoch, "no proof of a pruned epoch: a quorum of votes is missing"),
            }
            if bytes >= prune::STEP_BYTES {
                raised = last + 1;
                break;
            }
        }
        let after = Watermarks { lowest_available: raised, ..before };
        writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&after)));
        self.tables.write(&[], writes)?;
        Ok(after)
    }

    fn stored_proof(&self, epoch: Epoch) -> Result<Option<EpochProof>, StoreError> {
        let Some(bytes) = self.tables.get(Table::Proofs, &epoch_key(epoch))? else { return Ok(None) };
        let proof = EpochProof::decode(&bytes);
        proof.map(Some).map_err(|error| self.corrupt(Record::EpochProof(epoch), error))
    }

    /// Decodes a value that must exist.
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
        Ok(self.commits(index..=index)?.pop())
    }

    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError> {
        let start = *range.start();
        // Its value may have later commits, too.
        if start > 0 && self.is_pruned(start)? {
            return Ok(Vec::new());
        }
        let (stored, whole) = commits::read(&self.tables, range, usize::MAX);
        match whole {
            // Pruning has removed them meanwhile.
            Err(error) if prune::is_gone(&error) && self.is_pruned(start)? => return Ok(Vec::new()),
            whole => whole?,
        }
        let decode = |(index, bytes)| commits::decode(&self.tables.place(), index, bytes);
        let commits = (start..=CommitIndex::MAX).zip(stored).map(decode).collect::<Result<Vec<_>, _>>()?;
        match commits::first_unlinked(&commits) {
            Some((index, reason)) => Err(self.corrupt(Record::Commit(index), reason)),
            None => Ok(commits),
        }
    }

    fn commit_bytes(&self, range: RangeInclusive<CommitIndex>, max_bytes: usize) -> Result<Vec<Bytes>, StoreError> {
        if *range.start() > 0 && self.is_pruned(*range.start())? {
            return Ok(Vec::new());
        }
        commits::read_first(&self.tables, range, max_bytes)
    }

    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.blocks_within(refs, usize::MAX)
    }

    fn sub_dags(
        &self,
        range: RangeInclusive<CommitIndex>,
        max_bytes: usize,
    ) -> Result<Vec<CommittedSubDag>, StoreError> {
        let start = *range.start();
        self.expect_kept(start)?;
        sub_dags::read(&self.tables, range, max_bytes).or_else(|error| self.expect_kept(start).and(Err(error)))
    }

    fn blocks_within(&self, refs: &[BlockRef], max_bytes: usize) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut reader = BlockReader::new(&self.tables)?;
        let (mut blocks, mut total) = (Vec::new(), 0);
        for (position, block) in refs.iter().enumerate() {
            let location = reader.locate(&refs[position..])?;
            total += location.map_or(0, |location| location.length as usize);
            if total > max_bytes && !blocks.is_empty() {
                break;
            }
            let Some(location) = location else {
                blocks.push(None);
                continue;
            };
            match reader.read(block, location) {
                Ok(bytes) => blocks.push(Some(bytes)),
                // Pruning removes a segment before the entries of all its blocks.
                Err(error) if prune::is_gone(&error) && self.is_pruned(location.segment.batch)? => blocks.push(None),
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    fn block_sizes(&self, refs: &[BlockRef]) -> Result<Vec<Option<usize>>, StoreError> {
        let mut reader = BlockReader::new(&self.tables)?;
        let size = |position| Ok(reader.locate(&refs[position..])?.map(|location| location.length as usize));
        (0..refs.len()).map(size).collect()
    }

    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
        let mut voters = Vec::new();
        let values = match self.tables.scan(Table::Votes, &votes::prefix(commit.index)) {
            // Votes from a pruned batch.
            Err(error) if prune::is_gone(&error) && self.is_pruned(commit.index.saturating_sub(VOTES_AHEAD))? => {
                self.tables.scan(Table::Votes, &votes::prefix(commit.index))?
            }
            values => values?,
        };
        for (_, value) in values {
            let more = votes::voters(&value, commit);
            voters.extend(more.map_err(|reason| self.corrupt(Record::Votes(first_beside(commit.index)), reason))?);
        }
        // A block may be in several batches: first as a certifier block, then committed.
        voters.sort_unstable();
        voters.dedup();
        // The digest identifies the stored commit. Decoding the voters would only tell their epoch.
        let stored = self.commit(commit.index)?.filter(|stored| stored.reference() == commit);
        voters.retain(|voter| stored.as_ref().is_none_or(|stored| stored.epoch == voter.epoch));
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

    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        let named = |(key, value): (Bytes, Bytes)| {
            let id = <[u8; 32]>::try_from(&key[..])
                .map_err(|_| self.corrupt(Record::Peer, CorruptReason::KeyLength { bytes: key.len() }))?;
            Ok((PeerId(id), value))
        };
        self.tables.scan(Table::of(list), &[])?.into_iter().map(named).collect()
    }

    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError> {
        // A map, so that no key occurs twice: later entries and removals win.
        let mut changes: BTreeMap<PeerId, Option<Bytes>> = BTreeMap::new();
        changes.extend(put.iter().map(|(peer, value)| (*peer, Some(value.clone()))));
        changes.extend(remove.iter().map(|peer| (*peer, None)));
        if changes.is_empty() {
            return Ok(());
        }
        let write = |(peer, value): (PeerId, Option<Bytes>)| Write {
            table: Table::of(list),
            key: peer.0.to_vec(),
            value: value.map(|value| Bytes::copy_from_slice(&value)),
        };
        self.tables.write(&[], changes.into_iter().map(write).collect())
    }

    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.watermarks()?;
        let planned = plan(&self.tables.place(), before.highest_synced, batch)?;
        let after = Watermarks { highest_synced: planned.highest_synced, ..before };

        let packed = pack(&self.tables, (planned.first, planned.highest_synced.index), batch)?;
        let mut writes = packed.locations;
        if late_from(&self.tables)?.is_none() {
            writes.push(Write::put(Table::Meta, META_LATE_FROM, codec::encode(&planned.first)));
        }
        writes.extend(packed.votes);
        writes.extend(planned.epochs());
        writes.extend(commits::writes(batch.iter().map(|certified| &certified.commit)));
        writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&after)));
        self.tables.write(&packed.segments, writes)?;
        Ok(after)
    }

    fn prepend(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.watermarks()?;
        let planned = prepend::plan(&self.tables.place(), &Seam::of(self)?, batch)?;
        let packed = pack(&self.tables, (planned.first, planned.highest_synced.index), batch)?;
        let place = (planned.first, packed.first_round);
        let (last_writes, after) = prepend::writes(&self.tables, before, place, batch)?;
        let mut writes = packed.locations;
        writes.extend(packed.votes);
        writes.extend(planned.epochs());
        writes.extend(last_writes);
        self.tables.write_below(&packed.segments, writes)?;
        Ok(after)
    }

    fn began_at(&self) -> Result<CommitIndex, StoreError> {
        let lowest = self.watermarks()?.lowest_available;
        Ok(Prepended::read(&self.tables)?.map_or(lowest, |prepended| prepended.began.max(lowest)))
    }

    fn skip_epochs(&self, ended: &[EndedEpoch]) -> Result<Watermarks, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.watermarks()?;
        let highest_synced = check_skipped_epochs(&self.tables.place(), before, self.latest_epoch()?, ended)?;
        // No index is beyond the last one that there can be, which the check refuses.
        let lowest_available = highest_synced.index + 1;
        let mut writes = Vec::new();
        for EndedEpoch { proof, last_commit, next_committee } in ended {
            let (epoch, next) = (epoch_key(last_commit.epoch), epoch_key(next_committee.epoch));
            writes.push(Write::put(Table::Committees, next, codec::encode(next_committee)));
            writes.push(Write::put(Table::Epochs, epoch, codec::encode(&last_commit.index)));
            writes.push(Write::put(Table::Proofs, epoch, proof.encode()));
        }
        let last = ended.last().map(|ended| &ended.last_commit);
        let round = last.map_or((0, 0), |last| (last.epoch + 1, 0));
        let progress = Progress { next: lowest_available, batch: lowest_available, round, pinned: Vec::new() };
        writes.push(Write::put(Table::Meta, META_PRUNED, codec::encode(&progress)));
        writes.extend(commits::writes(last));
        let after = Watermarks { highest_synced, lowest_available };
        writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&after)));
        if before.highest_synced.index > 0 {
            writes.push(Write::remove(Table::Commits, commit_key(before.highest_synced.index)));
        }
        self.tables.write(&[], writes)?;
        Ok(after)
    }

    fn prune(&self, lowest: CommitIndex) -> Result<Pruned, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.watermarks()?;
        let lowest = lowest.min(before.highest_synced.index).max(before.lowest_available);
        let watermarks = if lowest > before.lowest_available { self.raise_lowest(before, lowest)? } else { before };
        let is_raised = watermarks.lowest_available == lowest;
        let Some(step) = prune::next_step(&self.tables, watermarks.lowest_available)? else {
            return Ok(Pruned { watermarks, is_complete: is_raised });
        };
        self.tables.write_later(step.writes)?;
        self.tables.reclaim(step.kept_from, &step.pinned)?;
        Ok(Pruned { watermarks, is_complete: is_raised && step.is_last })
    }

    fn epoch_proof(&self, epoch: Epoch) -> Result<Option<EpochProof>, StoreError> {
        if let Some(stored) = self.stored_proof(epoch)? {
            return Ok(Some(stored));
        }
        let Some(last) = self.last_commit_of_epoch(epoch)? else { return Ok(None) };
        match make_epoch_proof(self, last) {
            // Pruning may have stored the proof meanwhile.
            Ok(None) => self.stored_proof(epoch),
            made => made,
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.tables.flush()
    }

    fn place(&self) -> Place {
        self.tables.place()
    }
}

/// Implements [`Store`] for a type with an [`Engine`] in the field `engine`.
macro_rules! store_by_engine {
    ($store:ty) => {
        crate::engine::store_by_engine! { $store:
            fn chain_id() -> soma_types::ChainId;
            fn watermarks() -> Result<crate::Watermarks, crate::StoreError>;
            fn commit(index: soma_types::CommitIndex)
                -> Result<Option<soma_types::TrustedCommit>, crate::StoreError>;
            fn commits(range: std::ops::RangeInclusive<soma_types::CommitIndex>)
                -> Result<Vec<soma_types::TrustedCommit>, crate::StoreError>;
            fn commit_bytes(range: std::ops::RangeInclusive<soma_types::CommitIndex>, max_bytes: usize)
                -> Result<Vec<bytes::Bytes>, crate::StoreError>;
            fn blocks_within(refs: &[soma_types::BlockRef], max_bytes: usize)
                -> Result<Vec<Option<bytes::Bytes>>, crate::StoreError>;
            fn blocks(refs: &[soma_types::BlockRef]) -> Result<Vec<Option<bytes::Bytes>>, crate::StoreError>;
            fn sub_dags(range: std::ops::RangeInclusive<soma_types::CommitIndex>, max_bytes: usize)
                -> Result<Vec<soma_types::CommittedSubDag>, crate::StoreError>;
            fn block_sizes(refs: &[soma_types::BlockRef]) -> Result<Vec<Option<usize>>, crate::StoreError>;
            fn votes(commit: soma_types::CommitRef) -> Result<Vec<soma_types::BlockRef>, crate::StoreError>;
            fn committee(epoch: soma_types::Epoch)
                -> Result<Option<soma_types::Committee>, crate::StoreError>;
            fn latest_epoch() -> Result<soma_types::Epoch, crate::StoreError>;
            fn last_commit_of_epoch(epoch: soma_types::Epoch)
                -> Result<Option<soma_types::CommitIndex>, crate::StoreError>;
            fn peers(list: crate::PeerList) -> Result<Vec<(soma_types::PeerId, bytes::Bytes)>, crate::StoreError>;
            fn update_peers(
                list: crate::PeerList, put: &[(soma_types::PeerId, bytes::Bytes)], remove: &[soma_types::PeerId]
            )
                -> Result<(), crate::StoreError>;
            fn apply_refs(batch: &[&soma_types::CertifiedCommit]) -> Result<crate::Watermarks, crate::StoreError>;
            fn prepend(batch: &[&soma_types::CertifiedCommit]) -> Result<crate::Watermarks, crate::StoreError>;
            fn began_at() -> Result<soma_types::CommitIndex, crate::StoreError>;
            fn skip_epochs(ended: &[soma_types::EndedEpoch]) -> Result<crate::Watermarks, crate::StoreError>;
            fn prune(lowest: soma_types::CommitIndex) -> Result<crate::Pruned, crate::StoreError>;
            fn epoch_proof(epoch: soma_types::Epoch) -> Result<Option<soma_types::EpochProof>, crate::StoreError>;
            fn flush() -> Result<(), crate::StoreError>;
            fn place() -> crate::Place;
        }
    };
    ($store:ty: $(fn $name:ident($($arg:ident: $kind:ty),* $(,)?) -> $result:ty;)*) => {
        impl crate::Store for $store {
            $(fn $name(&self, $($arg: $kind),*) -> $result {
                self.engine.$name($($arg),*)
            })*
        }
    };
}
pub(crate) use store_by_engine;
