//! Serves FetchCommits: consecutive commits, the last of which is certified by stored votes.

use crate::{CorruptReason, Record, Store, StoreError};
use bytes::Bytes;
use soma_types::{AuthorityIndex, BlockRef, CommitIndex, Committee, UnverifiedCommit};
use std::collections::BTreeMap;

/// Consecutive commits of which the last is certified, in their stored encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The bytes of consecutive commits, in order.
    pub commits: Vec<Bytes>,
    /// The bytes of the last commit's certifier blocks.
    pub certifiers: Vec<Bytes>,
}

/// The reason why no commit of a range is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The first commit is not stored, or the range is empty.
    #[error("this node has commits {lowest} to {highest}")]
    NotHere {
        /// Lowest commit in the store.
        lowest: CommitIndex,
        /// Highest commit in the store.
        highest: CommitIndex,
    },
    /// No commit of the range has a quorum of stored votes.
    #[error("this node has no quorum of votes for it, nor for a later commit of the range")]
    NotCertified,
    /// The first certified commit exceeds the limit, together with its votes and the commits before it.
    #[error("it and its votes have more than {max_bytes} bytes")]
    TooLarge {
        /// The requested limit.
        max_bytes: usize,
    },
}

/// The commits from `start` on, with the certifier blocks of the last.
///
/// All commits are of the epoch of the first. The last is the highest commit up to `end` (included) for which stored
/// blocks of distinct authors hold a quorum of that epoch's committee. The certifier blocks are few and small ones, in
/// the order of their references. If commits and certifier blocks exceed `max_bytes` in total, the range ends earlier.
///
/// The genesis is never served.
///
/// Holds at most `max_bytes` and two more values of commits in memory. Decodes only the first commit and the candidates
/// for the last. Of voters that are not chosen it reads only the sizes, and only once their stake suffices.
///
/// # Errors
/// Fails if the store cannot be read or is damaged.
pub fn serve_commits(
    store: &dyn Store,
    start: CommitIndex,
    end: CommitIndex,
    max_bytes: usize,
) -> Result<Result<Served, NotServed>, StoreError> {
    let watermarks = store.watermarks()?;
    let end = end.min(watermarks.highest_synced.index);
    // The lowest available index is at least 1, so the genesis, which has no votes, is never served.
    let not_here = NotServed::NotHere { lowest: watermarks.lowest_available, highest: watermarks.highest_synced.index };
    if start < watermarks.lowest_available || start > end {
        return Ok(Err(not_here));
    }
    let Some(epoch) = store.commit(start)?.map(|first| first.epoch) else { return Ok(Err(not_here)) };
    let end = store.last_commit_of_epoch(epoch)?.map_or(end, |last| end.min(last));
    let mut commits = store.commit_bytes(start..=end, max_bytes)?;
    let mut total: usize = commits.iter().map(Bytes::len).sum();
    let record = Record::Committee(epoch);
    let committee = store.committee(epoch)?.ok_or_else(|| record.corrupt(store.place(), CorruptReason::Missing))?;

    let mut reason = if commits.is_empty() { NotServed::TooLarge { max_bytes } } else { NotServed::NotCertified };
    // The number of commits fits an index, so the last one's index does not overflow.
    while let Some(index) = (commits.len() as CommitIndex).checked_sub(1).map(|behind| start + behind) {
        let last = UnverifiedCommit::decode(commits[(index - start) as usize].clone());
        let last = last.map_err(|error| Record::Commit(index).corrupt(store.place(), error))?;
        if last.index != index {
            let reason = CorruptReason::OtherCommit { found: last.index };
            return Err(Record::Commit(index).corrupt(store.place(), reason));
        }
        if last.epoch == epoch
            && let Some(chosen) = smallest_quorum(store, &last, &committee)?
        {
            if chosen.bytes <= max_bytes.saturating_sub(total) {
                let blocks = store.blocks(&chosen.blocks)?.into_iter().zip(&chosen.blocks).map(|(bytes, &block)| {
                    let record = Record::Certifier { index, block };
                    bytes.ok_or_else(|| record.corrupt(store.place(), CorruptReason::Missing))
                });
                let certifiers = blocks.collect::<Result<_, _>>()?;
                return Ok(Ok(Served { commits, certifiers }));
            }
            reason = NotServed::TooLarge { max_bytes };
        }
        total -= last.bytes().len();
        commits.pop();
    }
    Ok(Err(reason))
}

/// The chosen certifier blocks of a commit.
struct Certifiers {
    blocks: Vec<BlockRef>,
    /// Their total length.
    bytes: usize,
}

/// Chooses few and small stored blocks of distinct authors whose votes for `commit` are a quorum of `committee`.
///
/// Takes the smallest blocks first, then drops, from the largest on, blocks that the quorum does not need. With very
/// different stakes a smaller choice may exist; finding it is the knapsack problem.
fn smallest_quorum(
    store: &dyn Store,
    commit: &UnverifiedCommit,
    committee: &Committee,
) -> Result<Option<Certifiers>, StoreError> {
    let mut voters = store.votes(commit.reference())?;
    voters.retain(|block| block.epoch == commit.epoch && committee.authority(block.author).is_some());
    if !committee.is_quorum(voters.iter().map(|block| block.author)) {
        return Ok(None);
    }

    let mut smallest: BTreeMap<AuthorityIndex, (usize, BlockRef)> = BTreeMap::new();
    for (block, size) in voters.iter().zip(store.block_sizes(&voters)?) {
        // A pruned voter cannot certify.
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
    // The last chosen block is needed. Each earlier one may have become superfluous.
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
