//! From a store into an archive.

use crate::{bucket::Archive, cut::next_segment, error::ArchiveError, route::route};
use soma_store::Store;
use soma_types::CommitIndex;
use std::sync::Arc;

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
    let mut listed = None;
    loop {
        progress(pushed.next);
        let Some(epoch) = store.commit(pushed.next)?.map(|commit| commit.epoch) else { return Ok(pushed) };
        if listed.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let segments = archive.segments(chain, epoch).await?;
            listed = Some((epoch, segments.into_iter().map(|(name, _)| name).collect::<Vec<_>>()));
        }
        let names = listed.as_ref().map(|(_, names)| names.iter().copied());
        if let Some(last) = names.and_then(|names| route(names, pushed.next).names.last().copied()) {
            pushed.next = last.last + 1;
            continue;
        }
        let (from, next) = (store.clone(), pushed.next);
        let cut = tokio::task::spawn_blocking(move || next_segment(&*from, next, true)).await;
        let Some(segment) = cut.map_err(|error| ArchiveError::Aborted(error.to_string()))?? else { return Ok(pushed) };
        if archive.put(&segment).await? {
            pushed.segments += 1;
            pushed.commits += segment.commits.len() as u64;
        }
        pushed.next = segment.last() + 1;
    }
}
