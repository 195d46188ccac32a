//! Which commits go into one segment.

use crate::segment::Segment;
use soma_store::{Store, StoreError, serve_commits};
use soma_types::{CommitIndex, CommittedSubDag};

/// Commits that end a segment.
pub const SEGMENT_COMMITS: CommitIndex = 1_000;

/// Bytes of blocks that end a segment. A single commit may have more.
pub const SEGMENT_BYTES: usize = 16 << 20;

/// Maximum bytes of the commits of a segment, and of the votes for the last.
const COMMITS_BYTES: usize = 12 << 20;

/// The segment that begins with commit `first`. It ends with the epoch, or with [`SEGMENT_COMMITS`] or
/// [`SEGMENT_BYTES`]. So all writers of a chain cut alike. With `may_be_short` it also ends with the stored chain.
///
/// `None` if the segment is not complete yet, or if a quorum of votes is not stored yet.
///
/// # Errors
/// Fails if the store cannot be read, is damaged, or has pruned the commit.
pub fn next_segment(store: &dyn Store, first: CommitIndex, may_be_short: bool) -> Result<Option<Segment>, StoreError> {
    let highest = store.watermarks()?.highest_synced.index;
    let Some(commit) = store.commit(first)? else { return Ok(None) };
    let end_of_epoch = store.last_commit_of_epoch(commit.epoch)?;
    let full = first.saturating_add(SEGMENT_COMMITS - 1);
    let end = full.min(highest).min(end_of_epoch.unwrap_or(CommitIndex::MAX));
    let sub_dags = store.sub_dags(first..=end, SEGMENT_BYTES)?;
    let Some(last) = sub_dags.last().map(|last| last.commit_ref.index) else { return Ok(None) };
    let is_complete = last < end || end == full || Some(end) == end_of_epoch;
    if !is_complete && !may_be_short {
        return Ok(None);
    }
    let Ok(served) = serve_commits(store, first, last, COMMITS_BYTES)? else { return Ok(None) };
    let blocks = |sub_dag: CommittedSubDag| sub_dag.blocks.into_iter().map(|block| block.bytes().clone());
    Ok(Some(Segment {
        chain: store.chain_id(),
        epoch: commit.epoch,
        first,
        blocks: sub_dags.into_iter().take(served.commits.len()).flat_map(blocks).collect(),
        commits: served.commits,
        certifiers: served.certifiers,
    }))
}
