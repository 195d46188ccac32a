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

/// Most segments that are fetched and checked at once. Each takes up to twice its size.
const MAX_PARALLEL: usize = 8;

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

/// Continues `store` with the commits of the archive.
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
    walk(archive, position, verification, async |commits| {
        let last = commits.last().map(|last| last.commit.index);
        let to = store.clone();
        let place = store.place();
        let written = tokio::task::spawn_blocking(move || to.apply(&commits)).await;
        written.map_err(|error| StoreError::Io {
            path: place.to_string().into(),
            doing: "write commits",
            source: std::io::Error::other(error.to_string()),
        })??;
        last.into_iter().for_each(&mut progress);
        Ok(())
    })
    .await
}
