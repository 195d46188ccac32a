//! Blocks that a worker had verified when it died, for the one that fetches its range again.

use soma_protocol::state_sync::RangeKey;
use soma_types::{BlockRef, CommitIndex, VerifiedBlock};
use std::collections::BTreeMap;

/// What is kept for ranges at work costs next to nothing: the bytes are those that their workers hold. Of dead workers
/// the latest one's blocks are kept: at most one range's share beyond the budget of bytes in flight.
#[derive(Default)]
pub(crate) struct VerifiedBlockCache {
    at_work: BTreeMap<RangeKey, (CommitIndex, Vec<VerifiedBlock>)>,
    left: Option<(CommitIndex, Blocks)>,
}

/// Verified blocks by reference. The reference pins all bytes of a block.
pub(crate) type Blocks = BTreeMap<BlockRef, VerifiedBlock>;

impl VerifiedBlockCache {
    /// A worker begins with the commits `start` to `end`. It is given what a dead one has left of them, and what
    /// one that takes long has verified so far.
    pub(crate) fn start_worker(&mut self, key: RangeKey, start: CommitIndex, end: CommitIndex) -> Blocks {
        let mut blocks = match self.left.take() {
            Some((at, blocks)) if (start..=end).contains(&at) => blocks,
            other => {
                self.left = other;
                Blocks::new()
            }
        };
        for (_, kept) in self.at_work.values().filter(|(at, _)| *at == start) {
            blocks.extend(kept.iter().map(|block| (block.reference(), block.clone())));
        }
        self.at_work.insert(key, (start, Vec::new()));
        blocks
    }

    /// A worker has verified blocks.
    pub(crate) fn add(&mut self, key: RangeKey, blocks: Vec<VerifiedBlock>) {
        // Of a worker that has ended since, nothing is needed.
        if let Some((_, kept)) = self.at_work.get_mut(&key) {
            kept.extend(blocks);
        }
    }

    /// A worker has delivered, or is not wanted any more.
    pub(crate) fn remove_worker(&mut self, key: RangeKey) {
        self.at_work.remove(&key);
    }

    /// A worker has died.
    pub(crate) fn keep_for_next_worker(&mut self, key: RangeKey) {
        if let Some((start, blocks)) = self.at_work.remove(&key).filter(|(_, blocks)| !blocks.is_empty()) {
            let blocks = blocks.into_iter().map(|block| (block.reference(), block)).collect();
            self.left = Some((start, blocks));
        }
    }

    /// Everything up to a commit is durable.
    pub(crate) fn prune(&mut self, highest: CommitIndex) {
        self.left.take_if(|(start, _)| *start <= highest);
    }
}
