//! Commits as they are stored: up to [`COMMITS_PER_VALUE`] neighbours of one batch in a value, under the index of the
//! first of them.
//!
//! ```text
//!   consecutive commits, each: length u32, the commit as received
//! ```
//!
//! No value has commits of both sides of a multiple of [`COMMITS_PER_VALUE`]: what may hold a commit begins there or
//! later.

use crate::{
    CorruptReason,
    engine::Write,
    layout::{COMMITS_PER_VALUE, Table, commit_key, first_beside, parse_commit_key},
};
use bytes::{Buf, Bytes};
use soma_types::{CommitIndex, TrustedCommit};
use std::ops::RangeInclusive;

/// Bytes from which on a value takes no further commit: large ones are not read for the sake of their neighbours.
const VALUE_BYTES: usize = 16 << 10;

/// What to write for consecutive `commits`.
pub(crate) fn writes<'a>(commits: impl IntoIterator<Item = &'a TrustedCommit>) -> Vec<Write> {
    let mut writes = Vec::new();
    let (mut first, mut value) = (None, Vec::new());
    for commit in commits {
        if commit.index.is_multiple_of(COMMITS_PER_VALUE) || value.len() >= VALUE_BYTES {
            writes.extend(first.take().map(|first| put(first, std::mem::take(&mut value))));
        }
        first.get_or_insert(commit.index);
        let bytes = commit.bytes();
        // Far from 4 GiB: a commit is shorter than the answer that it came in.
        value.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        value.extend_from_slice(bytes);
    }
    writes.extend(first.map(|first| put(first, value)));
    writes
}

fn put(first: CommitIndex, value: Vec<u8>) -> Write {
    Write::put(Table::Commits, commit_key(first), value)
}

/// Collects the bytes of consecutive commits from the values that hold them.
pub(crate) struct CommitBytes {
    range: RangeInclusive<CommitIndex>,
    room: usize,
    commits: Vec<Bytes>,
    /// The commit whose value is none, and why.
    corrupt: Option<(CommitIndex, CorruptReason)>,
}

impl CommitBytes {
    /// For the commits of `range` that follow each other from its start on, at most `max_bytes` of them.
    pub(crate) fn new(range: RangeInclusive<CommitIndex>, max_bytes: usize) -> Self {
        Self { range, room: max_bytes, commits: Vec::new(), corrupt: None }
    }

    /// The first and the last key to look at, in order.
    pub(crate) fn keys(&self) -> Option<([u8; 4], [u8; 4])> {
        let (first, last) = (*self.range.start(), *self.range.end());
        (first <= last).then(|| (commit_key(first_beside(first)), commit_key(last)))
    }

    /// Takes what belongs to the range from the value at `key`. Whether the next value may have more.
    pub(crate) fn add(&mut self, key: &[u8], mut value: Bytes) -> bool {
        let Some(first) = parse_commit_key(key) else { return false };
        let bytes = value.len();
        for index in first..=*self.range.end() {
            if value.is_empty() {
                return true;
            }
            let Some(commit) = take(&mut value) else {
                self.corrupt = Some((index, CorruptReason::Length { bytes }));
                return false;
            };
            if index < *self.range.start() {
                continue;
            }
            let next =
                CommitIndex::try_from(self.commits.len()).ok().and_then(|ahead| self.range.start().checked_add(ahead));
            let room = self.room.checked_sub(commit.len());
            match room {
                Some(room) if next == Some(index) => self.room = room,
                _ => return false,
            }
            self.commits.push(commit);
        }
        false
    }

    /// The commits.
    pub(crate) fn finish(self) -> Result<Vec<Bytes>, (CommitIndex, CorruptReason)> {
        match self.corrupt {
            Some(corrupt) => Err(corrupt),
            None => Ok(self.commits),
        }
    }
}

fn take(value: &mut Bytes) -> Option<Bytes> {
    let length = value.try_get_u32().ok()? as usize;
    (length <= value.len()).then(|| value.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_testkit::{ChainBuilder, ChainSpec};
    use soma_types::CertifiedCommit;

    fn chain(commits: usize, rounds_per_commit: u32) -> Vec<CertifiedCommit> {
        let spec = ChainSpec { transactions_per_block: 0, rounds_per_commit, ..ChainSpec::default() };
        ChainBuilder::new(spec).unwrap().build(commits)
    }

    #[test]
    fn commits_of_several_batches_read_back_from_any_index_and_within_any_number_of_bytes() {
        let chain = chain(40, 1);
        let commits: Vec<_> = chain.iter().map(|certified| &certified.commit).collect();
        let batches = [&commits[..3], &commits[3..4], &commits[4..]];
        let values: Vec<_> = batches.iter().flat_map(|batch| writes(batch.iter().copied())).collect();
        let keys: Vec<_> = values.iter().map(|write| parse_commit_key(&write.key).unwrap()).collect();
        assert_eq!(keys, [1, 4, 5, 16, 32]);

        let read = |range: RangeInclusive<CommitIndex>, max_bytes| {
            let mut found = CommitBytes::new(range, max_bytes);
            let Some((first, last)) = found.keys() else { return found.finish() };
            for Write { key, value, .. } in
                values.iter().filter(|write| (&first[..]..=&last[..]).contains(&&write.key[..]))
            {
                if !found.add(key, value.clone().unwrap()) {
                    break;
                }
            }
            found.finish()
        };
        for start in 1..=40 {
            for end in start..=41 {
                let expected: Vec<_> = commits[start - 1..end.min(40)].iter().map(|commit| commit.bytes()).collect();
                assert_eq!(
                    read(start as CommitIndex..=end as CommitIndex, usize::MAX).unwrap(),
                    expected,
                    "{start}..={end}"
                );
            }
        }
        let both = commits[7].bytes().len() + commits[8].bytes().len();
        assert_eq!(read(8..=40, both).unwrap(), [commits[7].bytes(), commits[8].bytes()]);
        assert_eq!(read(8..=40, both - 1).unwrap(), [commits[7].bytes()]);
        assert_eq!(read(41..=50, usize::MAX), Ok(Vec::new()));
        #[allow(clippy::reversed_empty_ranges)]
        let nothing = 9..=8;
        assert_eq!(read(nothing, usize::MAX), Ok(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_commits_behind_a_gap_are_not_taken() {
        let values = writes(chain(20, 1).iter().map(|certified| &certified.commit));
        let mut found = CommitBytes::new(2..=20, usize::MAX);
        let first = values[0].value.clone().unwrap();
        assert!(!found.add(&values[0].key, first.slice(..first.len() - 1)));
        assert_eq!(found.finish(), Err((15, CorruptReason::Length { bytes: first.len() - 1 })));

        let mut found = CommitBytes::new(2..=20, usize::MAX);
        assert!(!found.add(&values[1].key, values[1].value.clone().unwrap()));
        assert_eq!(found.finish(), Ok(Vec::new()));
    }

    #[test]
    fn large_commits_have_a_value_of_their_own() {
        let chain = chain(3, 90);
        let large = chain.iter().filter(|certified| certified.commit.bytes().len() >= VALUE_BYTES).count();
        assert!(large >= 2);
        assert_eq!(writes(chain.iter().map(|certified| &certified.commit)).len(), 3);
    }
}
