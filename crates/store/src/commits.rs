//! Stored commits: a value holds up to [`COMMITS_PER_VALUE`] consecutive commits of one batch, under the index of the
//! first.
//!
//! ```text
//!   consecutive commits, each: length u32, the commit as received
//! ```
//!
//! No value crosses a multiple of [`COMMITS_PER_VALUE`] or the border of a batch. So the value of a commit is the last
//! one that begins at or before the commit, and not before that multiple.

use crate::{
    CorruptReason, Place, Record, StoreError,
    layout::{COMMITS_PER_VALUE, Table, commit_key, first_beside, parse_commit_key},
    tables::{Tables, Write},
};
use bytes::{Buf, Bytes};
use soma_types::{CommitIndex, TrustedCommit, UnverifiedCommit};
use std::ops::RangeInclusive;

/// Maximum size of a value with several commits, so that large commits are not read together with a neighbour.
const VALUE_BYTES: usize = 16 << 10;

/// Bytes of the length prefix of a commit.
const LENGTH_BYTES: usize = 4;

/// The writes for consecutive `commits`.
pub(crate) fn writes<'a>(commits: impl IntoIterator<Item = &'a TrustedCommit>) -> Vec<Write> {
    let put = |first, value: Vec<u8>| Write::put(Table::Commits, commit_key(first), value);
    let mut writes = Vec::new();
    let (mut first, mut value) = (None, Vec::new());
    for commit in commits {
        let bytes = commit.bytes();
        if commit.index.is_multiple_of(COMMITS_PER_VALUE) || value.len() + LENGTH_BYTES + bytes.len() > VALUE_BYTES {
            writes.extend(first.take().map(|first| put(first, std::mem::take(&mut value))));
        }
        first.get_or_insert(commit.index);
        // A commit is shorter than the response that carried it, far below 4 GiB.
        value.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        value.extend_from_slice(bytes);
    }
    writes.extend(first.map(|first| put(first, value)));
    writes
}

/// Reads the consecutive commits of `range` from its start on, at most `max_bytes`. Also returns the error that ended
/// the reading early, if any.
pub(crate) fn read<T: Tables>(
    tables: &T,
    range: RangeInclusive<CommitIndex>,
    max_bytes: usize,
) -> (Vec<Bytes>, Result<(), StoreError>) {
    let (start, end) = (*range.start(), *range.end());
    let mut found = CommitBytes::new(range, max_bytes);
    let first = commit_key(first_beside(start));
    let walked = match tables.last_key_within(Table::Commits, &first, &commit_key(start)) {
        Ok(Some(first)) if start <= end => {
            tables.walk(Table::Commits, &first, &commit_key(end), &mut |key, value| found.add(key, value))
        }
        found => found.map(drop),
    };
    let (commits, form) = found.finish();
    let form = form.map_err(|(index, reason)| Record::Commit(index).corrupt(tables.place(), reason));
    (commits, walked.and(form))
}

/// Like [`read`], but returns the error only if no commit was found before it.
pub(crate) fn read_first<T: Tables>(
    tables: &T,
    range: RangeInclusive<CommitIndex>,
    max_bytes: usize,
) -> Result<Vec<Bytes>, StoreError> {
    match read(tables, range, max_bytes) {
        (found, Err(error)) if found.is_empty() => Err(error),
        (found, _) => Ok(found),
    }
}

/// Decodes the commit at `index` from its stored bytes. The store only applies trusted commits, and the tables'
/// checksums prove that the bytes are unchanged.
pub(crate) fn decode(place: &Place, index: CommitIndex, bytes: Bytes) -> Result<TrustedCommit, StoreError> {
    let corrupt = |reason| Record::Commit(index).corrupt(place.clone(), reason);
    let commit = UnverifiedCommit::decode(bytes).map_err(|error| corrupt(error.into()))?;
    if commit.index != index {
        return Err(corrupt(CorruptReason::OtherCommit { found: commit.index }));
    }
    Ok(TrustedCommit::assume_trusted(commit))
}

/// The first of consecutive commits whose digest differs from the next commit's `previous_digest`.
pub(crate) fn first_unlinked(commits: &[TrustedCommit]) -> Option<(CommitIndex, CorruptReason)> {
    let pairs = commits.iter().zip(commits.iter().skip(1));
    pairs.map(|(commit, next)| (commit.reference(), next.previous_digest)).find_map(|(commit, expected)| {
        let reason = CorruptReason::OtherDigest { expected: Box::new(expected), found: Box::new(commit.digest) };
        (commit.digest != expected).then_some((commit.index, reason))
    })
}

/// Collects the bytes of consecutive commits from their values.
pub(crate) struct CommitBytes {
    range: RangeInclusive<CommitIndex>,
    room: usize,
    commits: Vec<Bytes>,
    /// The commit with an invalid value, and the reason.
    corrupt: Option<(CommitIndex, CorruptReason)>,
}

impl CommitBytes {
    /// A collector for the consecutive commits of `range` from its start on, at most `max_bytes`.
    pub(crate) fn new(range: RangeInclusive<CommitIndex>, max_bytes: usize) -> Self {
        Self { range, room: max_bytes, commits: Vec::new(), corrupt: None }
    }

    /// Takes the commits of the range from the value at `key`. Returns whether the next value may have more.
    pub(crate) fn add(&mut self, key: &[u8], mut value: Bytes) -> bool {
        let Some(first) = parse_commit_key(key) else { return false };
        let bytes = value.len();
        for index in first..=*self.range.end() {
            if value.is_empty() {
                return self.room > 0;
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

    /// The collected commits, and the invalid commit after them, if any.
    pub(crate) fn finish(self) -> (Vec<Bytes>, Result<(), (CommitIndex, CorruptReason)>) {
        (self.commits, self.corrupt.map_or(Ok(()), Err))
    }
}

fn take(value: &mut Bytes) -> Option<Bytes> {
    let length = value.try_get_u32().ok()? as usize;
    (length <= value.len()).then(|| value.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemTables;
    use soma_testkit::{ChainBuilder, ChainSpec};
    use soma_types::CertifiedCommit;

    fn chain(commits: usize, rounds_per_commit: u32) -> Vec<CertifiedCommit> {
        let spec = ChainSpec { transactions_per_block: 0, rounds_per_commit, ..ChainSpec::default() };
        ChainBuilder::new(spec).unwrap().build(commits)
    }

    #[test]
    fn commits_of_several_batches_read_back_from_any_index_within_any_limit() {
        let chain = chain(40, 1);
        let commits: Vec<_> = chain.iter().map(|certified| &certified.commit).collect();
        let batches = [&commits[..3], &commits[3..4], &commits[4..]];
        let values = batches.iter().flat_map(|batch| writes(batch.iter().copied()));
        let keys: Vec<_> = values.map(|write| parse_commit_key(&write.key).unwrap()).collect();
        assert_eq!(keys, [1, 4, 5, 16, 32]);

        let tables = MemTables::default();
        for batch in batches {
            tables.write(&[], writes(batch.iter().copied())).unwrap();
        }
        let read = |range, max_bytes| {
            let (found, whole) = read(&tables, range, max_bytes);
            whole.map(|()| found)
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
        // From within one value to within the next.
        for count in 1..=5 {
            let expected: Vec<_> = commits[13..][..count].iter().map(|commit| commit.bytes()).collect();
            let bytes = expected.iter().map(|bytes| bytes.len()).sum();
            assert_eq!(read(14..=40, bytes).unwrap(), expected);
            assert_eq!(read(14..=40, bytes - 1).unwrap(), expected[..count - 1]);
        }
        assert_eq!(read(41..=50, usize::MAX).unwrap(), Vec::<Bytes>::new());
        #[allow(clippy::reversed_empty_ranges)]
        let nothing = 9..=8;
        assert_eq!(read(nothing, usize::MAX).unwrap(), Vec::<Bytes>::new());
    }

    #[test]
    fn value_cut_off_is_an_error_and_commits_after_a_gap_are_not_taken() {
        let values = writes(chain(20, 1).iter().map(|certified| &certified.commit));
        let mut found = CommitBytes::new(2..=20, usize::MAX);
        let first = values[0].value.clone().unwrap();
        assert!(!found.add(&values[0].key, first.slice(..first.len() - 1)));
        let (before, whole) = found.finish();
        assert_eq!((before.len(), whole), (13, Err((15, CorruptReason::Length { bytes: first.len() - 1 }))));

        let mut found = CommitBytes::new(2..=20, usize::MAX);
        assert!(!found.add(&values[1].key, values[1].value.clone().unwrap()));
        assert_eq!(found.finish(), (Vec::new(), Ok(())));
    }

    #[test]
    fn large_commit_has_its_own_value_and_is_not_read_with_its_neighbours() {
        let chain = chain(3, 90);
        let commits: Vec<_> = chain.iter().map(|certified| &certified.commit).collect();
        assert!(commits.iter().all(|commit| commit.bytes().len() > VALUE_BYTES / 2));
        let mut values = writes(commits.iter().copied());
        assert_eq!(values.len(), 3);
        // A read of the third commit does not touch the second.
        values[1].value = Some(Bytes::from_static(b"garbage"));
        let tables = MemTables::default();
        tables.write(&[], values).unwrap();
        assert_eq!(read_first(&tables, 3..=9, usize::MAX).unwrap(), [commits[2].bytes()]);
        // Neither does a read without room for it.
        let (found, whole) = read(&tables, 1..=3, commits[0].bytes().len());
        assert_eq!((found, whole.is_ok()), (vec![commits[0].bytes().clone()], true));
        let (found, whole) = read(&tables, 1..=3, usize::MAX);
        assert_eq!(found, [commits[0].bytes()]);
        let StoreError::Corrupt { record, reason, .. } = whole.unwrap_err() else { panic!() };
        assert_eq!((record, reason), (Record::Commit(2), CorruptReason::Length { bytes: 7 }));
        assert_eq!(read_first(&tables, 1..=3, usize::MAX).unwrap(), [commits[0].bytes()]);
        assert!(read_first(&tables, 2..=3, usize::MAX).is_err());
    }
}
