//! One simulated disk: survives every crash of its process, and fails on order.
//!
//! The caller of an operation decides how long it takes: see `disk_time`.

use crate::simulation::{
    event::{DiskFault, DiskOperation},
    journal::{Entry, Journal},
    names::NodeName,
};
use bytes::Bytes;
use soma_p2p::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, CommitRef, CommittedSubDag, Committee, EndedEpoch, EpochProof,
    MemStore, PeerId, PeerList, Pruned, Store, StoreError, TrustedCommit, Watermarks,
};
use soma_types::Epoch;
use std::{
    io,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// The disk as a node sees it; observers read the store below.
pub(super) struct SimDisk {
    node: NodeName,
    journal: Journal,
    below: Arc<MemStore>,
    planned: Mutex<Vec<Planned>>,
}

struct Planned {
    operation: DiskOperation,
    /// Such operations until the first that fails, that one included.
    before: u32,
    /// Such operations from then on that fail.
    times: u32,
    fault: DiskFault,
}

impl SimDisk {
    /// A disk that works, with what `below` holds.
    pub(super) fn new(node: NodeName, journal: Journal, below: Arc<MemStore>) -> Self {
        Self { node, journal, below, planned: Mutex::default() }
    }

    /// Plans a fault at `times` operations from the `nth` on.
    pub(super) fn plan(&self, operation: DiskOperation, nth: u32, times: u32, fault: DiskFault) {
        let planned = Planned { operation, before: nth.max(1), times: times.max(1), fault };
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// It works again.
    pub(super) fn repair(&self) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What goes wrong with the operation that is about to be done.
    fn due(&self, operation: DiskOperation) -> Option<DiskFault> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = None;
        for planned in planned.iter_mut().filter(|planned| planned.operation == operation) {
            planned.before = planned.before.saturating_sub(1);
            if planned.before == 0 && due.is_none() {
                planned.times -= 1;
                due = Some(planned.fault);
            }
        }
        planned.retain(|planned| planned.times > 0);
        drop(planned);
        if let Some(fault) = due {
            self.journal.write(Entry::DiskFault { node: self.node, operation, fault });
        }
        due
    }

    fn read(&self) -> Result<&MemStore, StoreError> {
        match self.due(DiskOperation::Read) {
            None => Ok(&self.below),
            Some(_) => Err(self.error("read")),
        }
    }

    fn error(&self, doing: &'static str) -> StoreError {
        let source = io::Error::other("planned by the simulation");
        StoreError::Io { path: PathBuf::from(self.node.in_traces()), doing, source }
    }
}

impl Store for SimDisk {
    fn chain_id(&self) -> ChainId {
        self.below.chain_id()
    }

    fn watermarks(&self) -> Result<Watermarks, StoreError> {
        self.read()?.watermarks()
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<TrustedCommit>, StoreError> {
        self.read()?.commit(index)
    }

    fn commits(&self, range: RangeInclusive<CommitIndex>) -> Result<Vec<TrustedCommit>, StoreError> {
        self.read()?.commits(range)
    }

    fn blocks(&self, refs: &[BlockRef]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read()?.blocks(refs)
    }

    fn sub_dags(
        &self,
        range: RangeInclusive<CommitIndex>,
        max_bytes: usize,
    ) -> Result<Vec<CommittedSubDag>, StoreError> {
        self.read()?.sub_dags(range, max_bytes)
    }

    fn block_sizes(&self, refs: &[BlockRef]) -> Result<Vec<Option<usize>>, StoreError> {
        self.read()?.block_sizes(refs)
    }

    fn votes(&self, commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
        self.read()?.votes(commit)
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Committee>, StoreError> {
        self.read()?.committee(epoch)
    }

    fn latest_epoch(&self) -> Result<Epoch, StoreError> {
        self.read()?.latest_epoch()
    }

    fn last_commit_of_epoch(&self, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError> {
        self.read()?.last_commit_of_epoch(epoch)
    }

    fn peers(&self, list: PeerList) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        self.read()?.peers(list)
    }

    fn update_peers(&self, list: PeerList, put: &[(PeerId, Bytes)], remove: &[PeerId]) -> Result<(), StoreError> {
        match self.due(DiskOperation::UpdatePeers) {
            None => self.below.update_peers(list, put, remove),
            Some(DiskFault::Error) => Err(self.error("write a list of peers")),
            Some(DiskFault::ShortWrite) => {
                self.below.update_peers(list, &put[..put.len().div_ceil(2)], &[])?;
                Err(self.error("write a whole list of peers"))
            }
        }
    }

    fn apply_refs(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        match self.due(DiskOperation::Apply) {
            None => self.below.apply_refs(batch),
            Some(DiskFault::Error) => Err(self.error("write commits")),
            Some(DiskFault::ShortWrite) => {
                self.below.apply_refs(&batch[..batch.len().div_ceil(2)])?;
                Err(self.error("write all commits"))
            }
        }
    }

    fn prepend(&self, batch: &[&CertifiedCommit]) -> Result<Watermarks, StoreError> {
        match self.due(DiskOperation::Apply) {
            None => self.below.prepend(batch),
            Some(DiskFault::Error) => Err(self.error("write earlier commits")),
            Some(DiskFault::ShortWrite) => {
                self.below.prepend(&batch[batch.len() / 2..])?;
                Err(self.error("write all earlier commits"))
            }
        }
    }

    fn began_at(&self) -> Result<CommitIndex, StoreError> {
        self.read()?.began_at()
    }

    fn skip_epochs(&self, ended: &[EndedEpoch]) -> Result<Watermarks, StoreError> {
        match self.due(DiskOperation::Apply) {
            None => self.below.skip_epochs(ended),
            Some(DiskFault::Error) => Err(self.error("skip epochs")),
            Some(DiskFault::ShortWrite) => {
                self.below.skip_epochs(&ended[..ended.len().div_ceil(2)])?;
                Err(self.error("skip all epochs"))
            }
        }
    }

    fn prune(&self, lowest: CommitIndex) -> Result<Pruned, StoreError> {
        match self.due(DiskOperation::Prune) {
            None => self.below.prune(lowest),
            Some(DiskFault::Error) => Err(self.error("prune")),
            Some(DiskFault::ShortWrite) => {
                self.below.prune(lowest)?;
                Err(self.error("prune all"))
            }
        }
    }

    fn epoch_proof(&self, epoch: Epoch) -> Result<Option<EpochProof>, StoreError> {
        self.read()?.epoch_proof(epoch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        match self.due(DiskOperation::Flush) {
            None => self.below.flush(),
            Some(_) => Err(self.error("flush")),
        }
    }
}
