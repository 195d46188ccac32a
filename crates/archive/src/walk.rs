//! From an archive: commit after commit, verified.
//!
//! ```text
//!   segments of an epoch --> get, check --> get, check --> ...   several at once
//!                                 '------> link in order ------> sink (a store, or nothing)
//! ```

use crate::{
    bucket::Archive,
    error::ArchiveError,
    storage::SegmentStorage,
    verify::{CheckedSegment, Position, SegmentFault, Verification, check_segment},
};
use futures::{StreamExt, stream};
use soma_store::{Store, StoreError};
use soma_types::{CertifiedCommit, CommitIndex, SegmentName, SegmentRoute};
use std::{sync::Arc, thread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Most segments that are fetched and checked at once. Each takes up to twice its size.
const MAX_PARALLEL: usize = 8;

/// KiB of checked commits that wait for the store or are being written. More would only fill the memory.
const WAITING_KIB: u32 = 16 << 10;

/// Segments that wait for the store. Small ones take few of the KiB.
const WAITING_SEGMENTS: usize = 64;

/// Bytes from which on a write takes no further segment: a batch of a sync.
const BATCH_BYTES: usize = 8 << 20;

/// The result of [`walk`].
#[derive(Clone, Debug)]
pub struct Walked {
    /// The verified commits.
    pub commits: u64,
    /// Their blocks.
    pub blocks: u64,
    /// The end of the verified chain.
    pub position: Position,
}

/// Reads and verifies the segments behind `position`, and hands their commits to `sink` in order, to the end of the
/// archive.
///
/// # Errors
/// Fails if the archive or the sink fails, or if a segment is damaged or breaks a rule. The sink has got everything
/// before.
pub async fn walk(
    archive: &Archive,
    position: Position,
    verification: &Verification,
    mut sink: impl AsyncFnMut(Vec<CertifiedCommit>) -> Result<(), StoreError>,
) -> Result<Walked, ArchiveError> {
    let chain = position.context().chain();
    let mut walked = Walked { commits: 0, blocks: 0, position };
    let epochs = archive.epochs(chain).await?;
    loop {
        let epoch = walked.position.epoch();
        let next = walked.position.commit.index.saturating_add(1);
        let listed = archive.segments(chain, epoch).await?;
        let route = SegmentRoute::new(listed.into_iter().map(|(name, _)| name), next);
        let has_later = route.has_later || epochs.last().is_some_and(|last| *last > epoch);
        let place = || archive.place().to_owned();
        let context = walked.position.context().clone();
        let fetching = stream::iter(route.names).map(|name| {
            let (archive, context, verification) = (archive.clone(), context.clone(), verification.clone());
            // A task of its own, so that it goes on while the sink is busy.
            tokio::spawn(async move {
                let segment = archive.get(&name).await?;
                let check = move || check_segment(&context, &verification, segment);
                let checked = tokio::task::spawn_blocking(check).await;
                Ok((name, checked.map_err(|error| ArchiveError::Aborted(error.to_string()))?))
            })
        });
        let parallel = thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_PARALLEL);
        let mut fetched = fetching.buffered(parallel);
        while let Some(task) = fetched.next().await {
            let task: Result<(SegmentName, Result<CheckedSegment, SegmentFault>), ArchiveError> =
                task.map_err(|error| ArchiveError::Aborted(error.to_string()))?;
            let (name, checked) = task?;
            let fault = |source| ArchiveError::Fault { place: place(), name, source: Box::new(source) };
            let mut checked = checked.map_err(fault)?;
            let broken = checked.fault.take();
            let commits = walked.position.advance(checked).map_err(fault)?;
            walked.commits += commits.len() as u64;
            walked.blocks += commits.iter().map(|certified| certified.blocks.len() as u64).sum::<u64>();
            if !commits.is_empty() {
                sink(commits).await?;
            }
            if let Some(broken) = broken {
                return Err(fault(broken));
            }
        }
        if walked.position.epoch() == epoch {
            let next = walked.position.commit.index.saturating_add(1);
            return if has_later { Err(ArchiveError::Gap { place: place(), epoch, next }) } else { Ok(walked) };
        }
    }
}

/// Continues `store` with the commits of the archive. Segments are fetched and checked while others are written.
///
/// # Errors
/// Like [`walk`]. Everything before the error is stored, and the next call goes on behind it.
pub async fn pull(
    archive: &Archive,
    store: Arc<dyn Store>,
    verification: &Verification,
    mut progress: impl FnMut(CommitIndex),
) -> Result<Walked, ArchiveError> {
    let position = Position::of(&*store)?;
    let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
    let (queue, queued) = mpsc::channel(WAITING_SEGMENTS);
    let (written, mut stored) = watch::channel(0);
    let place = store.place();
    let writer = tokio::task::spawn_blocking(move || write(&*store, queued, &written));
    let walked = walk(archive, position, verification, async |commits| {
        let kib = commits.iter().map(CertifiedCommit::size).sum::<usize>() >> 10;
        // A segment larger than all permits waits alone.
        let permits = u32::try_from(kib).unwrap_or(WAITING_KIB).clamp(1, WAITING_KIB);
        let permits = room.clone().acquire_many_owned(permits).await.ok();
        if stored.has_changed().unwrap_or(false) {
            progress(*stored.borrow_and_update());
        }
        // The writer ends with an error, which is returned below.
        queue.send((commits, permits)).await.map_err(|_| StoreError::Io {
            path: place.to_string().into(),
            doing: "write commits",
            source: std::io::Error::other("an earlier write failed"),
        })
    })
    .await;
    drop(queue);
    writer.await.map_err(|error| ArchiveError::Aborted(error.to_string()))??;
    progress(walked.as_ref().map_or(*stored.borrow(), |walked| walked.position.commit.index));
    walked
}

/// Writes segments as they come, to the end of the queue. Small ones share a batch, and so a flush of the disk.
fn write(
    store: &dyn Store,
    mut queued: mpsc::Receiver<(Vec<CertifiedCommit>, Option<OwnedSemaphorePermit>)>,
    written: &watch::Sender<CommitIndex>,
) -> Result<(), StoreError> {
    while let Some((mut batch, first)) = queued.blocking_recv() {
        let mut permits = vec![first];
        let mut bytes: usize = batch.iter().map(CertifiedCommit::size).sum();
        while bytes < BATCH_BYTES
            && let Ok((more, permit)) = queued.try_recv()
        {
            bytes += more.iter().map(CertifiedCommit::size).sum::<usize>();
            batch.extend(more);
            permits.push(permit);
        }
        store.apply(&batch)?;
        if let Some(last) = batch.last() {
            written.send_replace(last.commit.index);
        }
    }
    Ok(())
}
