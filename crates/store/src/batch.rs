//! The blocks and votes of a batch, on their way to the tables.

use crate::{
    StoreError, VOTES_AHEAD,
    layout::{Table, pair_key},
    progress::Progress,
    rounds::ChangedRounds,
    segments::{Packer, Segment},
    tables::{Tables, Write},
    votes::BatchVotes,
};
use soma_types::{CertifiedCommit, CommitIndex, Epoch, Round};
use std::collections::BTreeSet;

/// A batch without its commits.
pub(crate) struct PackedBatch<'a> {
    /// New blocks.
    pub(crate) segments: Vec<Segment<'a>>,
    /// Locations of the new blocks, and pairs of batches for [`Table::Late`].
    pub(crate) locations: Vec<Write>,
    /// The first round with a new block.
    pub(crate) first_round: Option<(Epoch, Round)>,
    /// Votes of the new blocks.
    pub(crate) votes: Vec<Write>,
}

/// Packs the blocks of `batch`, which are the commits `first` to `last`, and the votes in them. Leaves out blocks that
/// are already stored.
pub(crate) fn pack<'a, T: Tables>(
    tables: &T,
    (first, last): (CommitIndex, CommitIndex),
    batch: &[&'a CertifiedCommit],
) -> Result<PackedBatch<'a>, StoreError> {
    let mut packer = Packer::new(first);
    let mut rounds = ChangedRounds::new(tables, Progress::read(tables)?)?;
    let mut votes = BatchVotes::default();
    let limit = last.saturating_add(VOTES_AHEAD);
    let mut late = BTreeSet::new();
    let each = batch.iter().flat_map(|certified| {
        let certifiers = certified.certifiers.iter().map(|block| (block, false));
        certified.blocks.iter().map(|block| (block, true)).chain(certifiers)
    });
    for (block, is_committed) in each {
        let reference = block.reference();
        // The reference fixes the bytes. A certifier block is often committed a little later, but written once.
        let stored = rounds.add(tables, &reference, || packer.push(block.bytes()))?;
        if let Some(stored) = stored
            && is_committed
            && stored.segment.batch < first
        {
            late.insert(stored.segment.batch);
        }
        // So are its votes, unless they were too far ahead at that time.
        let kept = stored.map(|stored| stored.segment.batch.saturating_add(VOTES_AHEAD));
        let new = block.commit_votes.iter().filter(|vote| vote.index <= limit && Some(vote.index) > kept);
        new.for_each(|vote| votes.push(*vote, reference));
    }
    let first_round = rounds.first_changed();
    let mut locations: Vec<_> = rounds.finish().collect();
    locations.extend(late.into_iter().map(|batch| Write::put(Table::Late, pair_key(batch, first), [])));
    Ok(PackedBatch { segments: packer.finish(), locations, first_round, votes: votes.finish(first).collect() })
}
