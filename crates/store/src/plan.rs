//! The pure rules of [`Store::apply`](crate::Store::apply): valid batches and their effect.

use crate::{
    Mismatch, Place, StoreError, Watermarks,
    layout::{Table, epoch_key},
    tables::Write,
};
use soma_types::{
    CertifiedCommit, CommitIndex, CommitRef, Committee, EndedEpoch, Epoch, codec, limits::MAX_COMMIT_INDEX,
};
use std::collections::BTreeMap;

/// Maximum distance of a kept vote above the last commit of its batch. Blocks vote for the commits of their authors,
/// which are at most a few rounds ahead. Votes beyond that are lies, and would fill the disk.
pub const VOTES_AHEAD: CommitIndex = 100;

/// Additional data of a batch, besides its commits, blocks and votes.
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

impl PlannedBatch<'_> {
    /// The writes for the epochs that end in the batch.
    pub(crate) fn epochs(&self) -> Vec<Write> {
        let put = |table, epoch: &Epoch, value| Write::put(table, epoch_key(*epoch), value);
        let committees = self.committees.iter();
        let committees = committees.map(|(epoch, next)| put(Table::Committees, epoch, codec::encode(*next)));
        let ends = self.last_commits.iter();
        committees.chain(ends.map(|(epoch, last)| put(Table::Epochs, epoch, codec::encode(last)))).collect()
    }
}

/// The rules of [`Store::apply`](crate::Store::apply), for other stores: `batch` must continue the chain after
/// `highest`. Returns the last commit of the batch.
///
/// # Errors
/// Fails with the first rule that the batch breaks. `place` is that of the store, for the message.
pub fn check_batch(place: &Place, highest: CommitRef, batch: &[&CertifiedCommit]) -> Result<CommitRef, StoreError> {
    plan(place, highest, batch).map(|planned| planned.highest_synced)
}

/// Checks that `batch` continues the chain after `highest`, and plans its additional data.
pub(crate) fn plan<'a>(
    place: &Place,
    highest: CommitRef,
    batch: &[&'a CertifiedCommit],
) -> Result<PlannedBatch<'a>, StoreError> {
    let highest_synced = check_chain(place, highest, batch)?;
    let mut planned = PlannedBatch {
        committees: BTreeMap::new(),
        last_commits: BTreeMap::new(),
        // `check_chain` has ensured that the batch begins here.
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

/// Checks that the indices have no gap from `highest` on, and that each commit chains to the previous one. Returns the
/// last commit.
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

/// Checks that the blocks are those that the commit names, in its order.
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

/// The rules of [`Store::skip_epochs`](crate::Store::skip_epochs), for other stores: `ended` must continue the chain of
/// a store with these watermarks, which is in epoch `next`. Returns the last commit of the last epoch.
///
/// # Errors
/// Fails with the first rule that the epochs break. The message has `place`, the store's.
pub fn check_skipped_epochs(
    place: &Place,
    watermarks: Watermarks,
    next: Epoch,
    ended: &[EndedEpoch],
) -> Result<CommitRef, StoreError> {
    let Watermarks { highest_synced: mut last, lowest_available: lowest } = watermarks;
    if lowest <= last.index {
        return Err(StoreError::NotEmpty { place: place.clone(), lowest, highest: last.index });
    }
    let (mut expected, mut may_be_later) = (next, true);
    for EndedEpoch { last_commit, next_committee, .. } in ended {
        let (index, epoch) = (last_commit.index, last_commit.epoch);
        let mismatch = |what| StoreError::Mismatch { place: place.clone(), index, what: Box::new(what) };
        if epoch < expected || (epoch > expected && !may_be_later) {
            return Err(mismatch(Mismatch::SkippedEpoch { expected, found: epoch }));
        }
        if index <= last.index || index > MAX_COMMIT_INDEX {
            return Err(mismatch(Mismatch::NotLater { last: last.index }));
        }
        if epoch.checked_add(1) != Some(next_committee.epoch) {
            return Err(mismatch(Mismatch::NextCommittee { epoch, found: next_committee.epoch }));
        }
        (last, expected, may_be_later) = (last_commit.reference(), next_committee.epoch, false);
    }
    if ended.is_empty() {
        return Err(StoreError::EmptyBatch { place: place.clone(), expected: lowest });
    }
    Ok(last)
}
