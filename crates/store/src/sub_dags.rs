//! Commits with their blocks, as the executor takes them. Neighbours are looked up, read and hashed together.

use crate::{
    CorruptReason, Record, StoreError, commits, engine::Tables, layout::COMMITS_PER_VALUE, reader::BlockReader,
};
use bytes::Bytes;
use soma_types::{BlockRef, CommitIndex, CommittedSubDag, HashedBlock, TrustedCommit, VerifiedBlock};
use std::ops::RangeInclusive;

/// A commit has 48 bytes for each of its blocks, which have hundreds: no more bytes of commits than an eighth are looked at for
/// so many of blocks.
const COMMITS_SHARE: usize = 8;

/// Those of `range`, from its start on, up to the first that is not stored or with which their blocks would have more than
/// `max_bytes` bytes; the first one in any case.
pub(crate) fn read<T: Tables>(
    tables: &T,
    range: RangeInclusive<CommitIndex>,
    max_bytes: usize,
) -> Result<Vec<CommittedSubDag>, StoreError> {
    let start = *range.start();
    let mut stored = commits::read(tables, range, max_bytes / COMMITS_SHARE)?;
    if stored.is_empty() {
        // Not there, or a commit of very many blocks.
        stored = commits::read(tables, start..=start, usize::MAX)?;
    }
    let mut read =
        Read { tables, reader: BlockReader::new(tables), room: max_bytes, commits: Vec::new(), blocks: Vec::new() };
    let mut next = start;
    for neighbours in stored.chunks(COMMITS_PER_VALUE as usize) {
        let decode = |(index, bytes): (CommitIndex, &Bytes)| commits::decode(&tables.place(), index, bytes.clone());
        let neighbours = (next..=CommitIndex::MAX).zip(neighbours).map(decode).collect::<Result<Vec<_>, _>>()?;
        next = next.saturating_add(COMMITS_PER_VALUE);
        if !read.add(neighbours)? {
            break;
        }
    }
    read.finish()
}

struct Read<'a, T> {
    tables: &'a T,
    reader: BlockReader<'a, T>,
    /// Bytes of blocks that there is room for.
    room: usize,
    commits: Vec<TrustedCommit>,
    /// Stored bytes of all their blocks.
    blocks: Vec<Bytes>,
}

impl<T: Tables> Read<'_, T> {
    /// Reads the blocks of consecutive commits. Whether there is room for more.
    fn add(&mut self, commits: Vec<TrustedCommit>) -> Result<bool, StoreError> {
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
        Ok(true)
    }

    /// Decodes all of it.
    fn finish(self) -> Result<Vec<CommittedSubDag>, StoreError> {
        let mut hashed = HashedBlock::hash_each(self.blocks).into_iter();
        let sub_dag = |commit: &TrustedCommit| {
            let blocks = commit.blocks.iter().zip(&mut hashed).map(|(reference, block)| {
                let corrupt = |reason| corrupt(self.tables, commit, *reference, reason);
                let block = block.and_then(HashedBlock::decode).map_err(|error| corrupt(error.into()))?;
                if block.reference() != *reference {
                    return Err(corrupt(CorruptReason::OtherBlock { found: Box::new(block.reference()) }));
                }
                // Only proved blocks are ever applied, and its digest says that it is still the same.
                Ok(VerifiedBlock::assume_verified(block))
            });
            Ok(CommittedSubDag::new(commit, blocks.collect::<Result<_, _>>()?))
        };
        self.commits.iter().map(sub_dag).collect()
    }
}

fn corrupt<T: Tables>(tables: &T, commit: &TrustedCommit, block: BlockRef, reason: CorruptReason) -> StoreError {
    Record::BlockOfCommit { index: commit.index, block }.corrupt(tables.place(), reason)
}
