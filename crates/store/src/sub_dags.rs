//! Commits with their blocks for the executor. Neighbours are looked up, read and hashed together.

use crate::{CorruptReason, Record, StoreError, commits, reader::BlockReader, tables::Tables};
use bytes::Bytes;
use soma_types::{BlockRef, CommitIndex, CommittedSubDag, HashedBlock, TrustedCommit, VerifiedBlock};
use std::ops::RangeInclusive;

/// Commits get this share of the limit for blocks. A commit has 48 bytes per block and 150 of its own, and a block has
/// hundreds.
const COMMITS_SHARE: usize = 8;

/// Commits that are decoded before the look-up of their blocks, because neighbours share rounds.
const LOOKED_UP_AT_ONCE: usize = 16;

/// Reads the sub-dags of `range` from its start on, with blocks of at most `max_bytes`. Ends before the first commit
/// that is not stored or damaged. Returns at least the first if it is stored, or an error if it is damaged.
pub(crate) fn read<T: Tables>(
    tables: &T,
    range: RangeInclusive<CommitIndex>,
    max_bytes: usize,
) -> Result<Vec<CommittedSubDag>, StoreError> {
    let (start, first) = (*range.start(), *range.start()..=*range.start().min(range.end()));
    let stored = match commits::read_first(tables, range, max_bytes / COMMITS_SHARE)? {
        // Not stored, or a commit with very many blocks.
        stored if stored.is_empty() => commits::read_first(tables, first, usize::MAX)?,
        stored => stored,
    };
    let mut read =
        Read { tables, reader: BlockReader::new(tables)?, room: max_bytes, commits: Vec::new(), blocks: Vec::new() };
    let stored: Vec<_> = (start..=CommitIndex::MAX).zip(stored).collect();
    for neighbours in stored.chunks(LOOKED_UP_AT_ONCE) {
        match read.add(neighbours) {
            Ok(true) => {}
            Ok(false) => break,
            // The next call reports the error.
            Err(_) if !read.commits.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    read.finish()
}

struct Read<'a, T> {
    tables: &'a T,
    reader: BlockReader<'a, T>,
    /// Remaining bytes of blocks.
    room: usize,
    commits: Vec<TrustedCommit>,
    /// Stored bytes of the commits' blocks.
    blocks: Vec<Bytes>,
}

impl<T: Tables> Read<'_, T> {
    /// Reads the blocks of consecutive commits. Returns whether there is room for more.
    fn add(&mut self, stored: &[(CommitIndex, Bytes)]) -> Result<bool, StoreError> {
        let place = self.tables.place();
        // Commits before a damaged one are still read.
        let (mut commits, mut more) = (Vec::with_capacity(stored.len()), Ok(true));
        for (index, bytes) in stored {
            match commits::decode(&place, *index, bytes.clone()) {
                Ok(commit) => commits.push(commit),
                Err(error) => {
                    more = Err(error);
                    break;
                }
            }
        }
        let refs: Vec<_> = commits.iter().flat_map(|commit| &commit.blocks).copied().collect();
        let mut refs = &refs[..];
        for commit in commits {
            let mut places = Vec::with_capacity(commit.blocks.len());
            for position in 0..commit.blocks.len() {
                let place = self.reader.locate(&refs[position..])?;
                places
                    .push(place.ok_or_else(|| corrupt(self.tables, &commit, refs[position], CorruptReason::Missing))?);
            }
            let bytes = places.iter().map(|place| place.length as usize).sum();
            let room = self.room.checked_sub(bytes);
            if room.is_none() && !self.commits.is_empty() {
                return Ok(false);
            }
            for (block, place) in refs.iter().zip(places) {
                self.blocks.push(self.reader.read(block, place)?);
            }
            self.room = room.unwrap_or(0);
            refs = &refs[commit.blocks.len()..];
            self.commits.push(commit);
        }
        more
    }

    /// Decodes all blocks.
    fn finish(self) -> Result<Vec<CommittedSubDag>, StoreError> {
        let mut hashed = HashedBlock::hash_each(self.blocks).into_iter();
        let mut sub_dag = |commit: &TrustedCommit| {
            let blocks = commit.blocks.iter().zip(&mut hashed).map(|(reference, block)| {
                let corrupt = |reason| corrupt(self.tables, commit, *reference, reason);
                let block = block.and_then(HashedBlock::decode).map_err(|error| corrupt(error.into()))?;
                if block.reference() != *reference {
                    return Err(corrupt(CorruptReason::OtherBlock { found: Box::new(block.reference()) }));
                }
                // The store only applies verified blocks, and the digest proves that the bytes are unchanged.
                Ok(VerifiedBlock::assume_verified(block))
            });
            Ok(CommittedSubDag::new(commit, blocks.collect::<Result<_, _>>()?))
        };
        let unlinked = commits::first_unlinked(&self.commits);
        let checked = |commit: &TrustedCommit| match &unlinked {
            Some((index, reason)) if *index == commit.index => {
                Err(Record::Commit(*index).corrupt(self.tables.place(), reason.clone()))
            }
            _ => sub_dag(commit),
        };
        let mut sub_dags = Vec::with_capacity(self.commits.len());
        for next in self.commits.iter().map(checked) {
            match next {
                Ok(next) => sub_dags.push(next),
                Err(_) if !sub_dags.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sub_dags)
    }
}

fn corrupt<T: Tables>(tables: &T, commit: &TrustedCommit, block: BlockRef, reason: CorruptReason) -> StoreError {
    Record::BlockOfCommit { index: commit.index, block }.corrupt(tables.place(), reason)
}
