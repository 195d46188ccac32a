//! From a store into an archive.

use crate::{
    bucket::Archive,
    cut::next_segment,
    error::ArchiveError,
    storage::{SegmentStorage, first_missing},
};
use soma_store::Store;
use soma_types::CommitIndex;
use std::{future::ready, sync::Arc};

/// The result of [`push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Segments that were written.
    pub segments: usize,
    /// Their commits.
    pub commits: u64,
    /// The first commit that the archive does not have yet.
    pub next: CommitIndex,
}

/// Writes all commits of the store that the archive does not have, up to the last one with a quorum of votes. Calls
/// `progress` after each segment with the next commit.
///
/// # Errors
/// Fails if the store or the archive fails. Written segments stay, and the next call goes on behind them.
pub async fn push(
    archive: &Archive,
    store: Arc<dyn Store>,
    mut progress: impl FnMut(CommitIndex),
) -> Result<Pushed, ArchiveError> {
    let chain = store.chain_id();
    let mut pushed = Pushed { next: store.watermarks()?.lowest_available, ..Pushed::default() };
    let mut is_listed = false;
    loop {
        progress(pushed.next);
        if !is_listed {
            let epoch_of = |index| ready(store.commit(index).map(|commit| commit.map(|commit| commit.epoch)));
            pushed.next = first_missing(archive, chain, pushed.next, epoch_of).await?;
        }
        let (from, next) = (store.clone(), pushed.next);
        let cut = tokio::task::spawn_blocking(move || next_segment(&*from, next, true)).await;
        let Some(segment) = cut.map_err(|error| ArchiveError::Aborted(error.to_string()))?? else { return Ok(pushed) };
        let is_written = archive.put(&segment).await?;
        if is_written {
            pushed.segments += 1;
            pushed.commits += segment.commits.len() as u64;
        }
        pushed.next = segment.last() + 1;
        // Another writer that was faster may have written more, and later epochs may be there.
        let is_same_epoch = store.commit(pushed.next)?.is_some_and(|next| next.epoch == segment.epoch);
        is_listed = is_written && is_same_epoch;
    }
}
