//! The archive of a simulated network: one for all nodes, in memory, and faulty on order.

use crate::simulation::{
    event::ArchiveFault,
    journal::{Entry, Journal},
};
use async_trait::async_trait;
use bytes::Bytes;
use soma_archive::{ArchiveError, Segment, SegmentStorage};
use soma_types::{ChainId, CommitIndex, Epoch, SegmentName};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// How long each operation takes.
const TIME: Duration = Duration::from_millis(40);

const PLACE: &str = "sim://archive";

/// The archive.
pub(super) struct SimArchive {
    journal: Journal,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<SegmentName, Bytes>,
    fault: Option<ArchiveFault>,
}

impl SimArchive {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole changes only are made under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the archive has this fault, or none.
    pub(super) fn set_fault(&self, fault: Option<ArchiveFault>) {
        self.state().fault = fault;
    }

    /// The last commit up to which the archive has everything.
    pub(super) fn last_commit(&self) -> CommitIndex {
        let mut last = 0;
        for name in self.state().objects.keys() {
            if name.first > last + 1 {
                break;
            }
            last = last.max(name.last);
        }
        last
    }

    async fn operate(&self, doing: String) -> Result<Option<ArchiveFault>, ArchiveError> {
        sleep(TIME).await;
        let fault = self.state().fault;
        if fault == Some(ArchiveFault::Unreachable) {
            let source = "503 Service Unavailable".into();
            return Err(ArchiveError::Storage { place: PLACE.into(), doing, source, advice: "try again" });
        }
        Ok(fault)
    }
}

#[async_trait]
impl SegmentStorage for SimArchive {
    fn place(&self) -> &str {
        PLACE
    }

    async fn segments(&self, chain: ChainId, epoch: Epoch) -> Result<Vec<(SegmentName, u64)>, ArchiveError> {
        self.operate(format!("list epoch {epoch}")).await?;
        let state = self.state();
        let of = state.objects.iter().filter(|(name, _)| name.chain == chain && name.epoch == epoch);
        Ok(of.map(|(name, bytes)| (*name, bytes.len() as u64)).collect())
    }

    async fn put(&self, segment: &Segment) -> Result<bool, ArchiveError> {
        let name = segment.name();
        self.operate(format!("write {name}")).await?;
        let broken = |source| ArchiveError::Segment { place: PLACE.into(), name, source };
        let bytes = segment.encode().map_err(broken)?;
        let mut state = self.state();
        let is_new = !state.objects.contains_key(&name);
        if is_new {
            state.objects.insert(name, bytes);
        }
        drop(state);
        self.journal.write(Entry::Archived { first: name.first, last: name.last, is_new });
        Ok(is_new)
    }

    async fn get(&self, name: &SegmentName) -> Result<Segment, ArchiveError> {
        let fault = self.operate(format!("read {name}")).await?;
        let missing = || ArchiveError::Storage {
            place: PLACE.into(),
            doing: format!("read {name}"),
            source: "404 Not Found".into(),
            advice: "check the path",
        };
        let bytes = self.state().objects.get(name).cloned().ok_or_else(missing)?;
        self.journal.write(Entry::ReadArchive { first: name.first, last: name.last });
        let broken = |source| ArchiveError::Segment { place: PLACE.into(), name: *name, source };
        match fault {
            Some(ArchiveFault::FlipsBytes) => {
                let mut damaged = bytes.to_vec();
                let middle = damaged.len() / 2;
                damaged[middle] ^= 1;
                Segment::decode(damaged.into()).map_err(broken)
            }
            Some(ArchiveFault::Lies) => {
                let mut segment = Segment::decode(bytes).map_err(broken)?;
                // With a checksum of its own, as whoever owns the bucket can make it.
                if let Some(block) = segment.blocks.last_mut() {
                    let mut forged = block.to_vec();
                    if let Some(byte) = forged.last_mut() {
                        *byte ^= 1;
                    }
                    *block = forged.into();
                }
                Ok(segment)
            }
            _ => Segment::decode(bytes).map_err(broken),
        }
    }
}
