//! Answers FetchCommits: consecutive commits that end in one which stored votes prove.

use crate::{CorruptReason, Record, Store, StoreError};
use bytes::Bytes;
use soma_types::{AuthorityIndex, BlockRef, CommitIndex, Committee, TrustedCommit};
use std::collections::BTreeMap;

/// Commits in order, and the bytes of the blocks whose votes certify the last of them.
pub type Served = (Vec<TrustedCommit>, Vec<Bytes>);

/// The commits from `start` on, with the certifier blocks of the last.
///
/// They are all of the epoch of the first, reach `end` (included) at most, and end in the highest for which stored
/// blocks of distinct authors hold a quorum of that epoch's committee. The certifier blocks are small ones that
/// suffice, in the order of their refs. Commits and certifier blocks together have at most `max_bytes` bytes: what
/// has more ends earlier.
///
/// `None` when nothing can be served: `start` is over `end`, not synced yet, pruned or the genesis; or no commit in
/// reach has a quorum of stored votes; or already the first of them is over `max_bytes`.
///
/// Holds at most `max_bytes` and one more commit in memory. Of the other voters it asks for no more than the sizes,
/// and only once their stake is known to suffice.
pub fn serve_commits(
    store: &dyn Store,
    start: CommitIndex,
    end: CommitIndex,
    max_bytes: usize,
) -> Result<Option<Served>, StoreError> {
    let watermarks = store.watermarks()?;
    // The lowest available is 1 at least: the genesis, which nobody votes for, is never served.
    if start < watermarks.lowest_available {
        return Ok(None);
    }
    let (mut commits, mut total) = commits_within(store, start, end.min(watermarks.highest_synced.index), max_bytes)?;
    let Some(epoch) = commits.first().map(|commit| commit.epoch) else { return Ok(None) };
    let record = Record::Committee(epoch);
    let committee = store.committee(epoch)?.ok_or_else(|| record.corrupt(store.place(), CorruptReason::Missing))?;

    while let Some(last) = commits.last() {
        if let Some(certifiers) = smallest_quorum(store, last, &committee)?
            && certifiers.bytes <= max_bytes.saturating_sub(total)
        {
            let index = last.index;
            let blocks = store.blocks(&certifiers.blocks)?;
            let blocks = blocks.into_iter().zip(&certifiers.blocks).map(|(bytes, &block)| {
                let record = Record::Certifier { index, block };
                bytes.ok_or_else(|| record.corrupt(store.place(), CorruptReason::Missing))
            });
            let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
            return Ok(Some((commits, blocks)));
        }
        total -= last.bytes().len();
        commits.pop();
    }
    Ok(None)
}

/// The commits from `start` to `end` that are of one epoch and have at most `max_bytes` bytes together, and how many
/// these are.
fn commits_within(
    store: &dyn Store,
    start: CommitIndex,
    end: CommitIndex,
    max_bytes: usize,
) -> Result<(Vec<TrustedCommit>, usize), StoreError> {
    let mut commits: Vec<TrustedCommit> = Vec::new();
    let mut total: usize = 0;
    for index in start..=end {
        let Some(commit) = store.commit(index)? else { break };
        let other_epoch = commits.first().is_some_and(|first| first.epoch != commit.epoch);
        let size = commit.bytes().len();
        if other_epoch || size > max_bytes - total {
            break;
        }
        total += size;
        commits.push(commit);
    }
    Ok((commits, total))
}

/// Blocks that certify a commit.
struct Certifiers {
    blocks: Vec<BlockRef>,
    /// Their lengths together.
    bytes: usize,
}

/// Few and small stored blocks of distinct authors whose votes for `commit` are a quorum of `committee`.
///
/// Takes the smallest blocks first, then leaves out, from the largest on, what the quorum does not need. With
/// stakes that differ much a smaller choice may exist; finding it is the knapsack problem.
fn smallest_quorum(
    store: &dyn Store,
    commit: &TrustedCommit,
    committee: &Committee,
) -> Result<Option<Certifiers>, StoreError> {
    let mut voters = store.votes(commit.reference())?;
    voters.retain(|block| block.epoch == commit.epoch && committee.authority(block.author).is_some());
    if !committee.is_quorum(voters.iter().map(|block| block.author)) {
        return Ok(None);
    }

    let mut smallest: BTreeMap<AuthorityIndex, (usize, BlockRef)> = BTreeMap::new();
    for (block, size) in voters.iter().zip(store.block_sizes(&voters)?) {
        // A voter that is pruned can certify nothing.
        let Some(size) = size else { continue };
        let best = smallest.entry(block.author).or_insert((size, *block));
        *best = (*best).min((size, *block));
    }
    let mut by_size: Vec<(usize, BlockRef)> = smallest.into_values().collect();
    by_size.sort_unstable();

    let stake_of = |block: &BlockRef| committee.authority(block.author).map_or(0, |member| member.stake);
    let quorum = committee.quorum();
    let mut stake = 0;
    let mut chosen = Vec::new();
    for (size, block) in by_size {
        if stake >= quorum {
            break;
        }
        stake += stake_of(&block);
        chosen.push((size, block));
    }
    if stake < quorum {
        return Ok(None);
    }
    // The last one chosen is needed; of those before it, each may have become superfluous by it.
    for position in (0..chosen.len()).rev() {
        let without = stake - stake_of(&chosen[position].1);
        if without >= quorum {
            stake = without;
            chosen.remove(position);
        }
    }
    let bytes = chosen.iter().map(|(size, _)| size).sum();
    let mut blocks: Vec<BlockRef> = chosen.into_iter().map(|(_, block)| block).collect();
    blocks.sort_unstable();
    Ok(Some(Certifiers { blocks, bytes }))
}
