//! The store: sorted maps in memory. A store on disk implements the same trait.
#![expect(clippy::disallowed_types, reason = "threads of the system share a store; no actor's state is in it")]

use bytes::Bytes;
use soma_p2p::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, CommittedSubDag, Committee, EndedEpoch, EpochProof,
    Genesis, PeerId, PeerList, Place, Pruned, Store, StoreError, TrustedCommit, VerifiedBlock, Watermarks,
    make_epoch_proof,
    store::{Seam, VOTES_AHEAD, check_batch, check_prepended, check_skipped_epochs},
    types::Epoch,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

pub(crate) struct TableStore {
    chain: ChainId,
    tables: RwLock<Tables>,
}

struct Tables {
    highest: CommitRef,
    lowest: CommitIndex,
    /// The lowest commit before others were stored below it.
    began: Option<CommitIndex>,
    commits: BTreeMap<CommitIndex, TrustedCommit>,
    /// Each with the last commit that came with it: as one of its own, or with a vote for it.
    blocks: BTreeMap<BlockRef, (CommitIndex, VerifiedBlock)>,
    votes: BTreeMap<CommitRef, BTreeSet<BlockRef>>,
    committees: BTreeMap<Epoch, Committee>,
    last_commits: BTreeMap<Epoch, CommitIndex>,
    /// Proofs of epochs, made before the last commit was pruned.
    proofs: BTreeMap<Epoch, EpochProof>,
    infos: BTreeMap<PeerId, Bytes>,
    standings: BTreeMap<PeerId, Bytes>,
}

impl TableStore {
    /// An empty store of the chain with this genesis.
    pub(crate) fn new(genesis: &Genesis) -> Self {
        let tables = Tables {
            highest: genesis.commit().reference(),
            lowest: 1,
            began: None,
            commits: BTreeMap::from([(0, genesis.commit())]),
            blocks: BTreeMap::new(),
            votes: BTreeMap::new(),
            committees: BTreeMap::from([(0, genesis.committee().clone())]),
            last_commits: BTreeMap::new(),
            proofs: BTreeMap::new(),
            infos: BTreeMap::new(),
            standings: BTreeMap::new(),
        };
        Self { chain: genesis.chain_id(), tables: RwLock::new(tables) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn watermarks(&self) -> Watermarks {
        Watermarks { highest_synced: self.highest, lowest_available: self.lowest }
    }

    fn sub_dag(&self, commit: &TrustedCommit) -> CommittedSubDag {
        let blocks = commit.blocks.iter().filter_map(|reference| self.blocks.get(reference));
        CommittedSubDag::new(commit, blocks.map(|(_, block)| block.clone()).collect())
    }

    /// Adds commits, of which `last` is the last one.
    fn insert(&mut self, last: CommitIndex, batch: &[&CertifiedCommit]) {
        for certified in batch {
            let commit = &certified.commit;
            self.commits.insert(commit.index, commit.clone());
            if let Some(end) = certified.end_of_epoch() {
                self.committees.insert(end.next_committee.epoch, end.next_committee.clone());
                self.last_commits.insert(commit.epoch, commit.index);
            }
            for block in certified.blocks.iter().chain(&certified.certifiers) {
                // Votes far ahead of the batch are lies, and would fill the store.
                let limit = last.saturating_add(VOTES_AHEAD);
                for vote in block.commit_votes.iter().filter(|vote| vote.index <= limit) {
                    self.votes.entry(*vote).or_default().insert(block.reference());
                }
                let (needed, _) = self.blocks.entry(block.reference()).or_insert_with(|| (commit.index, block.clone()));
                *needed = commit.index.max(*needed);
            }
        }
    }

    fn peers(&mut self, list: PeerList) -> &mut BTreeMap<PeerId, Bytes> {
        match list {
            PeerList::Infos => &mut self.infos,
            PeerList::Standings => &mut self.standings,
        }
    }
}

impl Store for TableStore {
    fn chain_id(&self) -> ChainId {
        self.chain
    }

    fn watermarks(&self) -> Result<Watermarks, StoreError> {
        Ok(self.read().watermarks())
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<TrustedCommit>, StoreError> {
        Ok(self.read().commits.get(&index).cloned())
    }

    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError> {
        let tables = self.read();
        Ok(range.map_while(|index| tables.commits.get(&index).cloned()).collect())
    }

    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let tables = self.read();
        Ok(refs.iter().map(|reference| tables.blocks.get(reference).map(|(_, block)| block.bytes().clone())).collect())
    }

    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
        let tables = self.read();
        let stored = tables.commits.get(&commit.index).filter(|stored| stored.reference() == commit);
        let epoch = stored.map(|stored| stored.epoch);
        let voters = tables.votes.get(&commit).into_iter().flatten().copied();
        Ok(voters.filter(|voter| epoch.is_none_or(|epoch| voter.epoch == epoch)).collect())
    }

    fn sub_dags(
        &self,
        range: RangeInclusive<CommitIndex>,
        max_bytes: usize,
    ) -> Result<Vec<CommittedSubDag>, StoreError> {
        let tables = self.read();
        let (index, lowest) = (*range.start(), tables.lowest);
        if (1..lowest).contains(&index) {
            return Err(StoreError::Pruned { place: Place::Memory, index, lowest });
        }
        let (mut sub_dags, mut bytes) = (Vec::new(), 0);
        for commit in range.map_while(|index| tables.commits.get(&index)) {
            let sub_dag = tables.sub_dag(commit);
            bytes += sub_dag.blocks.iter().map(|block| block.bytes().len()).sum::<usize>();
            if bytes > max_bytes && !sub_dags.is_empty() {
                break;
            }
            sub_dags.push(sub_dag);
        }
        Ok(sub_dags)
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Committee>, StoreError> {
        Ok(self.read().committees.get(&epoch).cloned())
    }

    fn latest_epoch(&self) -> Result<Epoch, StoreError> {
        Ok(self.read().committees.last_key_value().map_or(0, |(epoch, _)| *epoch))
    }

    fn last_commit_of_epoch(&self, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError> {
        Ok(self.read().last_commits.get(&epoch).copied())
    }

    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        Ok(self.write().peers(list).iter().map(|(peer, bytes)| (*peer, bytes.clone())).collect())
    }

    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError> {
        let mut tables = self.write();
        let peers = tables.peers(list);
        peers.extend(put.iter().cloned());
        remove.iter().for_each(|peer| drop(peers.remove(peer)));
        Ok(())
    }

    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        let mut tables = self.write();
        let highest = check_batch(&Place::Memory, tables.highest, batch)?;
        tables.highest = highest;
        tables.insert(highest.index, batch);
        Ok(tables.watermarks())
    }

    fn prepend(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        // The node has one writer, so nothing changes in between.
        let seam = Seam::of(self)?;
        let first = check_prepended(&Place::Memory, &seam, batch)?;
        let mut tables = self.write();
        tables.insert(seam.lowest - 1, batch);
        tables.began.get_or_insert(seam.lowest);
        tables.lowest = first;
        Ok(tables.watermarks())
    }

    fn began_at(&self) -> Result<CommitIndex, StoreError> {
        let tables = self.read();
        Ok(tables.began.map_or(tables.lowest, |began| began.max(tables.lowest)))
    }

    fn skip_epochs(&self, ended: &[EndedEpoch]) -> Result<Watermarks, StoreError> {
        let mut tables = self.write();
        let next = tables.committees.keys().next_back().copied().unwrap_or(0);
        let highest = check_skipped_epochs(&self.place(), tables.watermarks(), next, ended)?;
        for EndedEpoch { proof, last_commit, next_committee } in ended {
            tables.proofs.insert(last_commit.epoch, proof.clone());
            tables.last_commits.insert(last_commit.epoch, last_commit.index);
            tables.committees.insert(next_committee.epoch, next_committee.clone());
        }
        let last = ended.last().map(|ended| (highest.index, ended.last_commit.clone()));
        tables.commits.retain(|index, _| *index == 0);
        tables.commits.extend(last);
        (tables.highest, tables.lowest) = (highest, highest.index + 1);
        Ok(tables.watermarks())
    }

    fn prune(&self, lowest: CommitIndex) -> Result<Pruned, StoreError> {
        let (before, ended) = {
            let tables = self.read();
            let ended = tables.last_commits.iter().filter(|(epoch, _)| !tables.proofs.contains_key(*epoch));
            (tables.watermarks(), ended.map(|(epoch, last)| (*epoch, *last)).collect::<Vec<_>>())
        };
        let lowest = lowest.min(before.highest_synced.index).max(before.lowest_available);
        // While the commits are still there.
        let mut proofs = BTreeMap::new();
        for (epoch, last) in ended {
            if (before.lowest_available..lowest).contains(&last)
                && let Some(proof) = make_epoch_proof(self, last)?
            {
                proofs.insert(epoch, proof);
            }
        }
        let mut tables = self.write();
        tables.lowest = lowest;
        tables.proofs.extend(proofs);
        tables.commits.retain(|index, _| *index == 0 || *index >= lowest);
        tables.blocks.retain(|_, (needed, _)| *needed >= lowest);
        tables.votes.retain(|commit, _| commit.index >= lowest);
        Ok(Pruned { watermarks: tables.watermarks(), is_complete: true })
    }

    fn epoch_proof(&self, epoch: Epoch) -> Result<Option<EpochProof>, StoreError> {
        let (stored, last) = {
            let tables = self.read();
            (tables.proofs.get(&epoch).cloned(), tables.last_commits.get(&epoch).copied())
        };
        match (stored, last) {
            (None, Some(last)) => make_epoch_proof(self, last),
            (stored, _) => Ok(stored),
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::TableStore;
    use soma_p2p::store::conformance::{Opened, check_all};

    #[test]
    fn table_store_keeps_every_promise_of_a_store() {
        check_all(&|genesis| Opened::new(TableStore::new(genesis)));
    }
}
