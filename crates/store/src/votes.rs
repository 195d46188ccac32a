//! Stored votes of a batch's blocks: one value per group of up to [`COMMITS_PER_VALUE`] neighbouring commits that get
//! votes.
//!
//! ```text
//!   groups of: index of the commit u32, its digest (32 bytes), epoch u64, round u32, count u32, then count times
//!              author u32, digest (32 bytes)
//! ```
//!
//! A batch has one value for all its votes for such a group, and no value changes later. Repeated votes for the same
//! commits only add values of their own batches. A reader joins the values of all batches.

use crate::{
    CorruptReason,
    layout::{COMMITS_PER_VALUE, Table, commit_key, first_beside, pair_key},
    tables::Write,
};
use soma_types::{AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round};
use std::collections::BTreeMap;

/// Bytes of a voter: author and digest.
const VOTER_BYTES: usize = 36;

/// The votes of a batch, by the first commit of the group that shares a value.
#[derive(Default)]
pub(crate) struct BatchVotes {
    votes: BTreeMap<CommitIndex, Vec<(CommitRef, BlockRef)>>,
}

impl BatchVotes {
    /// Adds the vote of `block` for `commit`. A repeated vote changes nothing.
    pub(crate) fn push(&mut self, commit: CommitRef, block: BlockRef) {
        self.votes.entry(first_beside(commit.index)).or_default().push((commit, block));
    }

    /// The writes for the batch that begins with commit `batch`.
    pub(crate) fn finish(self, batch: CommitIndex) -> impl Iterator<Item = Write> {
        self.votes.into_iter().map(move |(first, mut votes)| {
            // The stable sort is fast here, because the votes are nearly sorted.
            votes.sort();
            votes.dedup();
            let mut value = Vec::with_capacity(votes.len() * VOTER_BYTES + COMMITS_PER_VALUE as usize * 64);
            for group in votes.chunk_by(|(first, one), (second, other)| {
                (first, one.epoch, one.round) == (second, other.epoch, other.round)
            }) {
                let (commit, first) = group[0];
                value.extend_from_slice(&commit.index.to_be_bytes());
                value.extend_from_slice(commit.digest.as_bytes());
                value.extend_from_slice(&first.epoch.to_be_bytes());
                value.extend_from_slice(&first.round.to_be_bytes());
                // Far below 4 billion, because a batch fits in memory.
                value.extend_from_slice(&(group.len() as u32).to_be_bytes());
                for (_, block) in group {
                    value.extend_from_slice(&block.author.to_be_bytes());
                    value.extend_from_slice(block.digest.as_bytes());
                }
            }
            Write::put(Table::Votes, pair_key(first, batch), value)
        })
    }
}

/// Key prefix of all values that may have votes for the commit `index`.
pub(crate) fn prefix(index: CommitIndex) -> [u8; 4] {
    commit_key(first_beside(index))
}

/// The voters for exactly `commit` in one value under its [`prefix`].
pub(crate) fn voters(mut value: &[u8], commit: CommitRef) -> Result<Vec<BlockRef>, CorruptReason> {
    let bytes = value.len();
    let mut voters = Vec::new();
    while !value.is_empty() {
        group(&mut value, commit, &mut voters).ok_or(CorruptReason::Length { bytes })?;
    }
    Ok(voters)
}

fn group(value: &mut &[u8], commit: CommitRef, voters: &mut Vec<BlockRef>) -> Option<()> {
    let index = CommitIndex::from_be_bytes(take(value)?);
    let group = CommitRef { index, digest: CommitDigest(take(value)?) };
    let epoch = Epoch::from_be_bytes(take(value)?);
    let round = Round::from_be_bytes(take(value)?);
    let count = u32::from_be_bytes(take(value)?) as usize;
    let (mut blocks, rest) = value.split_at_checked(count.checked_mul(VOTER_BYTES)?)?;
    *value = rest;
    while group == commit && !blocks.is_empty() {
        let author = AuthorityIndex::from_be_bytes(take(&mut blocks)?);
        voters.push(BlockRef { epoch, round, author, digest: BlockDigest(take(&mut blocks)?) });
    }
    Some(())
}

fn take<const N: usize>(value: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = value.split_first_chunk()?;
    *value = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_read_back_for_each_commit_each_voter_once() {
        let commit = |index, digest| CommitRef { index, digest: CommitDigest([digest; 32]) };
        let block = |round, author| BlockRef { epoch: 3, round, author, digest: BlockDigest([author as u8; 32]) };
        let mut votes = BatchVotes::default();
        // Also with the same digest at two indices, for which no honest block votes.
        let (first, second, third, far) = (commit(5, 1), commit(5, 2), commit(6, 1), commit(16, 1));
        for (commit, block) in [
            (third, block(9, 0)),
            (far, block(9, 1)),
            (second, block(8, 1)),
            (first, block(8, 2)),
            (first, block(8, 0)),
            (first, block(9, 0)),
            (second, block(8, 0)),
            (first, block(8, 2)),
        ] {
            votes.push(commit, block);
        }
        let writes: Vec<_> = votes.finish(4).collect();
        assert_eq!(writes.iter().map(|write| write.key.clone()).collect::<Vec<_>>(), [pair_key(0, 4), pair_key(16, 4)]);
        let values: Vec<_> = writes.into_iter().map(|write| write.value.unwrap()).collect();
        assert_eq!(voters(&values[0], first).unwrap(), [block(8, 0), block(8, 2), block(9, 0)]);
        assert_eq!(voters(&values[0], second).unwrap(), [block(8, 0), block(8, 1)]);
        assert_eq!(voters(&values[0], commit(5, 3)).unwrap(), []);
        assert_eq!(voters(&values[0], third).unwrap(), [block(9, 0)]);
        assert_eq!(voters(&values[0], far).unwrap(), []);
        assert_eq!(voters(&values[1], far).unwrap(), [block(9, 1)]);
        for cut in 1..values[1].len() {
            assert_eq!(voters(&values[1][..cut], far), Err(CorruptReason::Length { bytes: cut }));
        }
    }
}
