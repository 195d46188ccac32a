//! Commits that are stored below all others: the rules of [`Store::prepend`], and what it writes besides blocks.
//!
//! ```text
//!   commit 0      1 ...... 40 | 41 ...... 60 | 61 ...... 80 | 81 ........ highest
//!   genesis       third batch   second batch   first batch    applied
//!                 <-------------------------------------------- lowest_available falls
//! ```
//!
//! A store prepends commits that it never held: those of [skipped](Store::skip_epochs) epochs. After a step of pruning
//! some rounds still name removed segments. A prepended batch would make these entries valid again, so the store
//! refuses it.

use crate::{
    Mismatch, Place, Record, Store, StoreError, Watermarks, commits,
    layout::{META_LATE_FROM, META_PREPENDED, META_PRUNED, META_WATERMARKS, Table, commit_key},
    plan::PlannedBatch,
    progress::{Progress, late_from},
    tables::{Tables, Write},
};
use serde::{Deserialize, Serialize};
use soma_types::{CertifiedCommit, CommitDigest, CommitIndex, CommitRef, Epoch, Round, codec};

/// What a store knows of the commit directly below its lowest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seam {
    /// The lowest commit that is stored with its blocks. One more than the last commit while no such commit is stored.
    pub lowest: CommitIndex,
    /// Digest of the commit before it.
    pub previous: CommitDigest,
    /// Epoch of the lowest commit.
    pub epoch: Epoch,
    /// Digest of commit 0.
    pub genesis: CommitDigest,
}

impl Seam {
    /// Reads the seam of `store`.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    pub fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let missing = |index| Record::Commit(index).corrupt(store.place(), crate::CorruptReason::Missing);
        let Watermarks { highest_synced, lowest_available: lowest } = store.watermarks()?;
        let genesis = store.commit(0)?.ok_or_else(|| missing(0))?.reference().digest;
        if lowest <= highest_synced.index {
            let above = store.commit(lowest)?.ok_or_else(|| missing(lowest))?;
            return Ok(Self { lowest, previous: above.previous_digest, epoch: above.epoch, genesis });
        }
        let last = store.commit(highest_synced.index)?.ok_or_else(|| missing(highest_synced.index))?;
        let ended = store.last_commit_of_epoch(last.epoch)? == Some(last.index);
        Ok(Self { lowest, previous: highest_synced.digest, epoch: last.epoch + Epoch::from(ended), genesis })
    }
}

/// The rules of [`Store::prepend`], for other stores: `batch` must end directly below `seam`. Returns the first commit
/// of the batch.
///
/// # Errors
/// Fails with the first rule that the batch breaks. `place` is that of the store, for the message.
pub fn check_prepended(place: &Place, seam: &Seam, batch: &[&CertifiedCommit]) -> Result<CommitIndex, StoreError> {
    plan(place, seam, batch).map(|planned| planned.first)
}

/// Checks that `batch` ends directly below `seam`, and plans its additional data.
pub(crate) fn plan<'a>(
    place: &Place,
    seam: &Seam,
    batch: &[&'a CertifiedCommit],
) -> Result<PlannedBatch<'a>, StoreError> {
    let expected = seam.lowest.saturating_sub(1);
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Err(StoreError::EmptyBatch { place: place.clone(), expected });
    };
    let (first, last) = (&first.commit, &last.commit);
    // Commit 0 is in every store.
    let found = if expected == 0 || first.index == 0 { first.index } else { last.index };
    if expected == 0 || first.index == 0 || last.index != expected {
        return Err(StoreError::OutOfOrder { place: place.clone(), expected, found });
    }
    let mismatch = |index, what| StoreError::Mismatch { place: place.clone(), index, what: Box::new(what) };
    if last.reference().digest != seam.previous {
        let what = Mismatch::Digest { expected: seam.previous, found: last.reference().digest };
        return Err(mismatch(last.index, what));
    }
    if first.index == 1 && first.previous_digest != seam.genesis {
        let what = Mismatch::PreviousDigest { expected: seam.genesis, found: first.previous_digest };
        return Err(mismatch(first.index, what));
    }
    // The batch as the continuation of the commit before it. Its first commit has an index of at least 1.
    let before = CommitRef { index: first.index - 1, digest: first.previous_digest };
    let planned = crate::plan::plan(place, before, batch)?;
    for (position, certified) in batch.iter().enumerate() {
        let next = batch.get(position + 1).map_or(seam.epoch, |next| next.commit.epoch);
        let due = certified.commit.epoch + Epoch::from(certified.end_of_epoch().is_some());
        if next != due {
            return Err(mismatch(certified.commit.index, Mismatch::NextEpoch { expected: due, found: next }));
        }
    }
    Ok(planned)
}

/// What a store records of prepended batches. The check of the journals reads it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepended {
    /// First commit of the last such batch.
    pub(crate) lowest: CommitIndex,
    /// The lowest commit before that batch.
    pub(crate) above: CommitIndex,
    /// The lowest commit before all such batches.
    pub(crate) began: CommitIndex,
}

impl Prepended {
    pub(crate) fn read<T: Tables>(tables: &T) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = tables.get(Table::Meta, META_PREPENDED)? else { return Ok(None) };
        let decoded = Self::decode(&bytes);
        decoded.map(Some).map_err(|error| Record::Prepended.corrupt(tables.place(), error))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, soma_types::CodecError> {
        codec::decode(bytes, "prepended commits", 12)
    }
}

/// Fails if the store has pruned commits. Returns the lowest commit before all prepended ones.
pub(crate) fn expect_unpruned<T: Tables>(tables: &T, lowest: CommitIndex) -> Result<CommitIndex, StoreError> {
    let pruned = || StoreError::HasPruned { place: tables.place(), lowest };
    if Progress::read(tables)?.next != lowest {
        return Err(pruned());
    }
    match Prepended::read(tables)? {
        Some(prepended) if prepended.lowest == lowest => return Ok(prepended.began),
        _ => {}
    }
    // The last commit of the skipped epochs. A step of pruning that ends here has removed it.
    match lowest.checked_sub(1).map(|last| tables.get(Table::Commits, &commit_key(last))).transpose()?.flatten() {
        Some(_) => Ok(lowest),
        None => Err(pruned()),
    }
}

/// The writes that follow the blocks and votes of a prepended batch, in the order in which readers may see them.
pub(crate) fn writes<T: Tables>(
    tables: &T,
    before: Watermarks,
    (first, first_round): (CommitIndex, Option<(Epoch, Round)>),
    batch: &[&CertifiedCommit],
) -> Result<(Vec<Write>, Watermarks), StoreError> {
    let began = expect_unpruned(tables, before.lowest_available)?;
    let mut writes = Vec::new();
    // All batches from the lowest one on are in the table of late blocks, and a prepended one adds none.
    let is_complete = match late_from(tables)? {
        Some(from) => from > first && from <= before.lowest_available,
        None => before.lowest_available > before.highest_synced.index,
    };
    if is_complete {
        writes.push(Write::put(Table::Meta, META_LATE_FROM, codec::encode(&first)));
    }
    let progress = Progress::read(tables)?;
    let round = first_round.map_or(progress.round, |round| round.min(progress.round));
    let progress = Progress { next: first, batch: first, round, ..progress };
    // Before the commits: a reader that sees one must find its blocks.
    writes.push(Write::put(Table::Meta, META_PRUNED, codec::encode(&progress)));
    let commits = commits::writes(batch.iter().map(|certified| &certified.commit));
    // The last commit of the skipped epochs has a value of its own. It would end the values before it.
    let last = commit_key(before.lowest_available - 1);
    let is_rewritten = commits.iter().any(|write| write.key == last);
    writes.extend(commits);
    if !is_rewritten && tables.get(Table::Commits, &last)?.is_some() {
        writes.push(Write::remove(Table::Commits, last));
    }
    let prepended = Prepended { lowest: first, above: before.lowest_available, began };
    writes.push(Write::put(Table::Meta, META_PREPENDED, codec::encode(&prepended)));
    let after = Watermarks { lowest_available: first, ..before };
    writes.push(Write::put(Table::Meta, META_WATERMARKS, codec::encode(&after)));
    Ok((writes, after))
}
