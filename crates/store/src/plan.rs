//! The rules of [`Store::apply`](crate::Store::apply), pure: what a batch must be, and where it leads.

use crate::{Mismatch, Place, StoreError};
use soma_types::{CertifiedCommit, CommitIndex, CommitRef, Committee, Epoch, limits::MAX_COMMIT_INDEX};
use std::collections::BTreeMap;

/// How far over the last commit of a batch a vote may point and still be kept. Blocks vote for what their authors
/// have committed, which is a few rounds ahead at most; further votes are a liar's, and would fill the disk.
pub const VOTES_AHEAD: CommitIndex = 100;

/// What a batch writes besides its commits, blocks and votes.
pub(crate) struct PlannedBatch<'a> {
    /// Committees that the batch hands over to, by epoch.
    pub(crate) committees: BTreeMap<Epoch, &'a Committee>,
    /// Last commits of the epochs that end in the batch.
    pub(crate) last_commits: BTreeMap<Epoch, CommitIndex>,
    /// The batch's first commit.
    pub(crate) first: CommitIndex,
    /// The batch's last commit.
    pub(crate) highest_synced: CommitRef,
}

/// Checks that `batch` continues the chain that ends in `highest`, and says what to write.
pub(crate) fn plan<'a>(
    place: &Place,
    highest: CommitRef,
    batch: &[&'a CertifiedCommit],
) -> Result<PlannedBatch<'a>, StoreError> {
    let highest_synced = check_chain(place, highest, batch)?;
    let mut planned = PlannedBatch {
        committees: BTreeMap::new(),
        last_commits: BTreeMap::new(),
        // What the batch has begun with by now.
        first: highest.index + 1,
        highest_synced,
    };
    for certified in batch {
        let commit = &certified.commit;
        let mismatch = |what| StoreError::Mismatch { place: place.clone(), index: commit.index, what: Box::new(what) };
        check_blocks(certified).map_err(mismatch)?;
        if let Some(end) = certified.end_of_epoch() {
            let next = &end.next_committee;
            if commit.epoch.checked_add(1) != Some(next.epoch) {
                return Err(mismatch(Mismatch::NextCommittee { epoch: commit.epoch, found: next.epoch }));
            }
            planned.committees.insert(next.epoch, next);
            planned.last_commits.insert(commit.epoch, commit.index);
        }
    }
    Ok(planned)
}

/// Indices without a gap from `highest` on, each chained to the one before. Returns the last.
fn check_chain(place: &Place, highest: CommitRef, batch: &[&CertifiedCommit]) -> Result<CommitRef, StoreError> {
    let mut last = highest;
    for CertifiedCommit { commit, .. } in batch {
        let mismatch = |what| StoreError::Mismatch { place: place.clone(), index: commit.index, what: Box::new(what) };
        let expected = last.index.checked_add(1).filter(|index| *index <= MAX_COMMIT_INDEX);
        let expected = expected.ok_or_else(|| mismatch(Mismatch::NoIndexLeft))?;
        if commit.index != expected {
            return Err(StoreError::OutOfOrder { place: place.clone(), expected, found: commit.index });
        }
        if commit.previous_digest != last.digest {
            let what = Mismatch::PreviousDigest { expected: last.digest, found: commit.previous_digest };
            return Err(mismatch(what));
        }
        last = commit.reference();
    }
    if batch.is_empty() {
        return Err(StoreError::EmptyBatch { place: place.clone(), expected: highest.index.saturating_add(1) });
    }
    Ok(last)
}

/// The blocks are those that the commit names, in its order.
fn check_blocks(certified: &CertifiedCommit) -> Result<(), Mismatch> {
    let (named, came) = (&certified.commit.blocks, &certified.blocks);
    if named.len() != came.len() {
        return Err(Mismatch::BlockCount { expected: named.len(), found: came.len() });
    }
    for (position, (expected, block)) in named.iter().zip(came).enumerate() {
        if block.reference() != *expected {
            return Err(Mismatch::Block { position, expected: *expected, found: block.reference() });
        }
    }
    Ok(())
}
