//! Commits as they are stored: up to [`COMMITS_PER_VALUE`] neighbours of one batch in a value, under the index of the
//! first of them.
//!
//! ```text
//!   consecutive commits, each: length u32, the commit as received
//! ```
//!
//! No value has commits of both sides of a multiple of [`COMMITS_PER_VALUE`], nor of two batches: the value that holds a
//! commit is the last that begins at it or before, and not before that multiple.

use crate::{
    CorruptReason, Place, Record, StoreError,
    engine::{Tables, Write},
    layout::{COMMITS_PER_VALUE, Table, commit_key, first_beside, parse_commit_key},
};
use bytes::{Buf, Bytes};
use soma_types::{CommitIndex, TrustedCommit, UnverifiedCommit};
use std::ops::RangeInclusive;

/// Bytes that a value of several commits has at most: large ones are not read for the sake of their neighbours.
const VALUE_BYTES: usize = 16 << 10;

/// The length in front of a commit.
const LENGTH_BYTES: usize = 4;

/// What to write for consecutive `commits`.
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
        // Far from 4 GiB: a commit is shorter than the answer that it came in.
        value.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        value.extend_from_slice(bytes);
    }
    writes.extend(first.map(|first| put(first, value)));
    writes
}

/// The bytes of the commits of `range` that follow each other from its start on, at most `max_bytes` of them; and why there
/// are no more, if something there cannot be read.
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

/// The bytes of those that [`read`] has found before what it could not read; that error if there are none.
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

/// The commit at `index` from its stored bytes. Only trusted commits are ever applied, and the tables' checksums say that
/// it is still the same.
pub(crate) fn decode(place: &Place, index: CommitIndex, bytes: Bytes) -> Result<TrustedCommit, StoreError> {
    let corrupt = |reason| Record::Commit(index).corrupt(place.clone(), reason);
    let commit = UnverifiedCommit::decode(bytes).map_err(|error| corrupt(error.into()))?;
    if commit.index != index {
        return Err(corrupt(CorruptReason::OtherCommit { found: commit.index }));
    }
    Ok(TrustedCommit::assume_trusted(commit))
}

/// The first of consecutive commits whose digest is not the one that the commit after it names.
pub(crate) fn first_unlinked(commits: &[TrustedCommit]) -> Option<(CommitIndex, CorruptReason)> {
    let pairs = commits.iter().zip(commits.iter().skip(1));
    pairs.map(|(commit, next)| (commit.reference(), next.previous_digest)).find_map(|(commit, expected)| {
        let reason = CorruptReason::OtherDigest { expected: Box::new(expected), found: Box::new(commit.digest) };
        (commit.digest != expected).then_some((commit.index, reason))
    })
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

    /// Takes what belongs to the range from the value at `key`. Whether the next value may have more.
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

    /// The commits, and which of them is none, behind those.
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
    fn commits_of_several_batches_read_back_from_any_index_and_within_any_number_of_bytes() {
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
        // From the middle of one value into the middle of the next.
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
    fn what_is_cut_off_is_an_error_and_commits_behind_a_gap_are_not_taken() {
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
    fn a_large_commit_has_a_value_of_its_own_and_is_not_read_for_its_neighbours() {
        let chain = chain(3, 90);
        let commits: Vec<_> = chain.iter().map(|certified| &certified.commit).collect();
        assert!(commits.iter().all(|commit| commit.bytes().len() > VALUE_BYTES / 2));
        let mut values = writes(commits.iter().copied());
        assert_eq!(values.len(), 3);
        // Nobody who asks for the third looks at the second.
        values[1].value = Some(Bytes::from_static(b"garbage"));
        let tables = MemTables::default();
        tables.write(&[], values).unwrap();
        assert_eq!(read_first(&tables, 3..=9, usize::MAX).unwrap(), [commits[2].bytes()]);
        // Nor who has no room for it.
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
