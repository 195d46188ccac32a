//! Removal of old commits, in steps. [`Store::prune`](crate::Store::prune) has the promise.
//!
//! ```text
//!   commits   1 ......... next ......... lowest ......... highest
//!             removed    | still stored | available
//! ```
//!
//! The watermark moves first, in a durable write of its own, with the proofs of the epochs that it passes. Each step
//! then removes whole values of commits and votes, and whole batches of segments, and records how far it came. That
//! write need not be durable: a lost step is taken again. Steps begin
//! there, because a database walks slowly over keys that were removed a moment ago.
//!
//! A batch may hold blocks that a later batch commits: they came as certifier blocks. Such a batch is pinned until the
//! later one is pruned, too. [`Table::Late`] names these pairs of batches. A store of an earlier version did not write
//! that table, so nothing is removed before all commits of that time are pruned.

use crate::{
    CorruptReason, Record, StoreError, VOTES_AHEAD, commits,
    layout::{META_PRUNED, Table, commit_key, first_beside, pair_key, parse_pair_key, parse_round_key, round_key},
    progress::{MAX_PINNED, Progress, late_from},
    rounds,
    segments::SegmentId,
    tables::{Tables, Write},
};
use bytes::Bytes;
use soma_types::{CommitIndex, Epoch, Round, codec};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of commits in one step: as many of the smallest as one write of a sync adds.
pub(crate) const STEP_COMMITS: CommitIndex = 16_384;

/// Bytes of commits, or of epoch proofs, that end a step early.
pub(crate) const STEP_BYTES: usize = 4 << 20;

/// One step of removal.
pub(crate) struct Step {
    /// The changes, in the order in which readers may see them.
    pub(crate) writes: Vec<Write>,
    /// The first batch that keeps its segments.
    pub(crate) kept_from: CommitIndex,
    /// Batches below `kept_from` that keep their segments.
    pub(crate) pinned: Vec<CommitIndex>,
    /// Whether more remains below the watermark.
    pub(crate) is_last: bool,
}

/// Plans the next step of removing the commits below `lowest`; `None` if nothing can be removed.
pub(crate) fn next_step<T: Tables>(tables: &T, lowest: CommitIndex) -> Result<Option<Step>, StoreError> {
    let progress = Progress::read(tables)?;
    // No value crosses a multiple of the number of commits in it.
    let end = first_beside(lowest);
    let is_complete = late_from(tables)?.is_some_and(|from| from <= lowest);
    if end <= progress.next || !is_complete {
        return Ok(None);
    }
    let (until, last_round) = step_end(tables, &progress, end);

    let mut writes = Vec::new();
    let segments = SegmentsLeft::find(tables, &progress, until)?;
    if segments.pinned.len() > MAX_PINNED {
        tracing::warn!(batches = segments.pinned.len(), "pruning waits: later commits name blocks of too many batches");
        return Ok(None);
    }
    let (rounds, first_left) = remove_from_rounds(tables, progress.round, last_round, &segments)?;
    writes.extend(rounds);
    writes.extend(removed_votes(tables, progress.next, until, &segments)?);
    let commits = tables.keys(Table::Commits, &commit_key(progress.next), &commit_key(until - 1))?;
    writes.extend(commits.into_iter().map(|key| Write::remove(Table::Commits, key)));
    writes.extend(segments.removals(tables)?);

    let SegmentsLeft { kept_from, pinned, .. } = segments;
    let pinned: Vec<_> = pinned.into_iter().collect();
    let progress = Progress { next: until, batch: kept_from, round: first_left, pinned: pinned.clone() };
    writes.push(Write::put(Table::Meta, META_PRUNED, codec::encode(&progress)));
    Ok(Some(Step { writes, kept_from, pinned, is_last: until >= end }))
}

/// Where a step from `progress` ends, and the last round of a block of its commits.
///
/// A damaged commit names no rounds, and neither does one behind [`STEP_BYTES`] of its value. The entries of their
/// blocks stay until a later step, and point nowhere until then.
fn step_end<T: Tables>(tables: &T, progress: &Progress, end: CommitIndex) -> (CommitIndex, (Epoch, Round)) {
    let limit = end.min(first_beside(progress.next.saturating_add(STEP_COMMITS)));
    let (mut until, mut bytes, mut last_round) = (progress.next, 0, progress.round);
    while until < limit && bytes < STEP_BYTES {
        let next = first_beside(until).saturating_add(crate::layout::COMMITS_PER_VALUE);
        let (found, _) = commits::read(tables, until..=next - 1, STEP_BYTES);
        bytes += found.iter().map(Bytes::len).sum::<usize>();
        for commit in
            (until..).zip(found).filter_map(|(index, commit)| commits::decode(&tables.place(), index, commit).ok())
        {
            let rounds = commit.blocks.iter().map(|block| (block.epoch, block.round));
            last_round = rounds.fold(last_round, Ord::max);
        }
        until = next;
    }
    (until, last_round)
}

/// The batches that keep and lose their segments.
struct SegmentsLeft {
    kept_from: CommitIndex,
    pinned: BTreeSet<CommitIndex>,
    removed: BTreeSet<CommitIndex>,
    late: Vec<Bytes>,
}

impl SegmentsLeft {
    /// Sorts the batches that end before commit `until`.
    fn find<T: Tables>(tables: &T, progress: &Progress, until: CommitIndex) -> Result<Self, StoreError> {
        // The batch of this commit, or an earlier one if that batch has no segments: then less is removed.
        let last = tables.last_key_within(Table::Segments, &pair_key(progress.batch, 0), &pair_key(until, u32::MAX))?;
        let kept_from = last.and_then(|key| parse_pair_key(&key)).map_or(progress.batch, |(batch, _)| batch);
        let mut batches: BTreeSet<CommitIndex> = progress.pinned.iter().copied().collect();
        if kept_from > progress.batch {
            let keys =
                tables.keys(Table::Segments, &pair_key(progress.batch, 0), &pair_key(kept_from - 1, u32::MAX))?;
            batches.extend(keys.iter().filter_map(|key| parse_pair_key(key)).map(|(batch, _)| batch));
        }
        let mut late: BTreeMap<CommitIndex, Vec<Bytes>> = BTreeMap::new();
        for batch in &batches {
            late.insert(*batch, tables.keys(Table::Late, &pair_key(*batch, 0), &pair_key(*batch, u32::MAX))?);
        }
        let is_pinned = |batch: &CommitIndex| {
            let by = late.get(batch).into_iter().flatten().filter_map(|key| parse_pair_key(key));
            by.into_iter().any(|(_, by)| by >= kept_from)
        };
        let (pinned, removed): (BTreeSet<_>, BTreeSet<_>) = batches.iter().partition(|batch| is_pinned(batch));
        let late = late.into_iter().filter(|(batch, _)| removed.contains(batch)).flat_map(|(_, keys)| keys).collect();
        Ok(Self { kept_from, pinned, removed, late })
    }

    /// Whether the segments of `batch` are removed, now or earlier.
    fn is_removed(&self, batch: CommitIndex) -> bool {
        batch < self.kept_from && !self.pinned.contains(&batch)
    }

    fn removals<T: Tables>(&self, tables: &T) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::new();
        for batch in &self.removed {
            let keys = tables.keys(Table::Segments, &pair_key(*batch, 0), &pair_key(*batch, u32::MAX))?;
            writes.extend(keys.into_iter().map(|key| Write::remove(Table::Segments, key)));
        }
        writes.extend(self.late.iter().map(|key| Write::remove(Table::Late, key.clone())));
        Ok(writes)
    }
}

/// Removes the entries of removed segments from the rounds `first` to `last`. Also returns the first round that still
/// has an entry.
fn remove_from_rounds<T: Tables>(
    tables: &T,
    first: (Epoch, Round),
    last: (Epoch, Round),
    segments: &SegmentsLeft,
) -> Result<(Vec<Write>, (Epoch, Round)), StoreError> {
    let (mut writes, mut first_left, mut damaged) = (Vec::new(), None, None);
    let keys = (round_key(first.0, first.1), round_key(last.0, last.1));
    tables.walk(Table::Rounds, &keys.0, &keys.1, &mut |key, value| {
        let Some((epoch, round)) = parse_round_key(key) else { return true };
        match rounds::without(&value, |segment: SegmentId| segments.is_removed(segment.batch)) {
            Ok(left) => {
                if left.as_ref().is_none_or(|left| !left.is_empty()) {
                    first_left.get_or_insert((epoch, round));
                }
                writes.extend(left.map(|left| match left.is_empty() {
                    true => Write::remove(Table::Rounds, key.to_vec()),
                    false => Write::put(Table::Rounds, key, left),
                }));
                true
            }
            Err(reason) => {
                damaged = Some((Record::Round { epoch, round }, reason));
                false
            }
        }
    })?;
    match damaged {
        Some((record, reason)) => Err(record.corrupt(tables.place(), reason)),
        None => Ok((writes, first_left.unwrap_or(last))),
    }
}

/// Removes the votes for the commits from `next` to `until`, and the votes of removed batches for later commits.
fn removed_votes<T: Tables>(
    tables: &T,
    next: CommitIndex,
    until: CommitIndex,
    segments: &SegmentsLeft,
) -> Result<Vec<Write>, StoreError> {
    let mut keys = tables.keys(Table::Votes, &pair_key(first_beside(next), 0), &pair_key(until - 1, u32::MAX))?;
    // They may be in a file that goes with the batch.
    let ahead = until.saturating_add(VOTES_AHEAD);
    let later = tables.keys(Table::Votes, &pair_key(until, 0), &pair_key(ahead, u32::MAX))?;
    let of_removed = |key: &Bytes| parse_pair_key(key).is_some_and(|(_, batch)| segments.is_removed(batch));
    keys.extend(later.into_iter().filter(of_removed));
    Ok(keys.into_iter().map(|key| Write::remove(Table::Votes, key)).collect())
}

/// Whether an error of reading data of `batch` is only that it was pruned meanwhile.
pub(crate) fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { reason: CorruptReason::Missing | CorruptReason::FileMissing { .. }, .. })
}
