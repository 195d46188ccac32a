//! A store in memory that fails, or says something else than it has, as a scenario wants.

use bytes::Bytes;
use soma_p2p::{
    BlockRef, CertifiedCommit, ChainId, CommitRef, CommittedSubDag, Committee, EndedEpoch, EpochProof, MemStore,
    PeerId, PeerList, Pruned, Store, StoreError, TrustedCommit, Watermarks,
};
use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// What a write comes to.
pub type Applied = Result<Watermarks, StoreError>;

/// What a read of commits for an executor comes to.
pub type SubDags = Result<Vec<CommittedSubDag>, StoreError>;

/// A store in memory with a fault before some of its calls.
pub struct Faulty {
    /// The store below.
    pub inner: Arc<MemStore>,
    /// Called before each write with its number and the batch; what it returns is returned, if anything.
    pub before_apply: fn(&MemStore, u32, &[&CertifiedCommit]) -> Option<Applied>,
    /// Called before each read of where an epoch ends with its number.
    pub before_last_commit_of_epoch: fn(u32),
    /// Called instead of each read of the latest epoch.
    pub latest_epoch: fn(&MemStore) -> Result<u64, StoreError>,
    /// Called before each flush.
    pub before_flush: fn(),
    /// Called instead of each read of commits for an executor.
    pub sub_dags: fn(&MemStore, RangeInclusive<u32>, usize) -> SubDags,
    /// Called instead of each step of pruning.
    pub prune: fn(&MemStore, u32) -> Result<Pruned, StoreError>,
    /// Called instead of each read of an epoch proof.
    pub epoch_proof: fn(&MemStore, u64) -> Result<Option<EpochProof>, StoreError>,
    /// Changes what is said to be there.
    pub watermarks: fn(Watermarks) -> Watermarks,
    /// Writes so far.
    pub applies: AtomicU32,
    /// Reads of where an epoch ends so far.
    pub reads: AtomicU32,
    /// Reads of commits for an executor so far.
    pub sub_dag_reads: AtomicU32,
}

impl Faulty {
    /// No fault yet.
    pub fn new(inner: Arc<MemStore>) -> Self {
        Self {
            inner,
            before_apply: |_, _, _| None,
            before_last_commit_of_epoch: |_| {},
            latest_epoch: |inner| inner.latest_epoch(),
            before_flush: || {},
            sub_dags: |inner, range, max_bytes| inner.sub_dags(range, max_bytes),
            prune: |inner, lowest| inner.prune(lowest),
            epoch_proof: |inner, epoch| inner.epoch_proof(epoch),
            watermarks: |watermarks| watermarks,
            applies: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            sub_dag_reads: AtomicU32::new(0),
        }
    }
}

impl Store for Faulty {
    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Applied {
        let number = self.applies.fetch_add(1, Ordering::Relaxed);
        (self.before_apply)(&self.inner, number, batch).unwrap_or_else(|| self.inner.apply_refs(batch))
    }
    fn latest_epoch(&self) -> Result<u64, StoreError> {
        (self.latest_epoch)(&self.inner)
    }
    fn chain_id(&self) -> ChainId {
        self.inner.chain_id()
    }
    fn watermarks(&self) -> Result<Watermarks, StoreError> {
        self.inner.watermarks().map(self.watermarks)
    }
    fn commit(&self, index: u32) -> Result<Option<TrustedCommit>, StoreError> {
        self.inner.commit(index)
    }
    fn commits(&self, range: RangeInclusive<u32>) -> Result<Vec<TrustedCommit>, StoreError> {
        self.inner.commits(range)
    }
    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.blocks(refs)
    }
    fn sub_dags(&self, range: RangeInclusive<u32>, max_bytes: usize) -> SubDags {
        self.sub_dag_reads.fetch_add(1, Ordering::Relaxed);
        (self.sub_dags)(&self.inner, range, max_bytes)
    }
    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
        self.inner.votes(commit)
    }
    fn committee(&self, epoch: u64) -> Result<Option<Committee>, StoreError> {
        self.inner.committee(epoch)
    }
    fn last_commit_of_epoch(&self, epoch: u64) -> Result<Option<u32>, StoreError> {
        (self.before_last_commit_of_epoch)(self.reads.fetch_add(1, Ordering::Relaxed));
        self.inner.last_commit_of_epoch(epoch)
    }
    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        self.inner.peers(list)
    }
    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError> {
        self.inner.update_peers(list, put, remove)
    }
    fn prepend(&self, batch: &[&CertifiedCommit]) -> Applied {
        self.inner.prepend(batch)
    }
    fn began_at(&self) -> Result<u32, StoreError> {
        self.inner.began_at()
    }
    fn skip_epochs(&self, ended: &[EndedEpoch]) -> Result<Watermarks, StoreError> {
        self.inner.skip_epochs(ended)
    }
    fn prune(&self, lowest: u32) -> Result<Pruned, StoreError> {
        (self.prune)(&self.inner, lowest)
    }
    fn epoch_proof(&self, epoch: u64) -> Result<Option<EpochProof>, StoreError> {
        (self.epoch_proof)(&self.inner, epoch)
    }
    fn flush(&self) -> Result<(), StoreError> {
        (self.before_flush)();
        self.inner.flush()
    }
}
