//! The blocks of one epoch that a validator has: accepted with their whole history, or pending until that arrives.

use soma_p2p::{
    BlockRef, VerifiedBlock,
    types::{AuthorityIndex, BlockDigest, Epoch, Round},
};
use std::collections::BTreeMap;

/// Pending blocks of one author: the rounds that a validator may be behind. The highest goes first: by the time that it
/// is of use, it is requested.
const MAX_PENDING_PER_AUTHOR: usize = 128;

/// The blocks. Whatever authors do, it holds at most a few blocks of each author and round above the floor: a second
/// block of one place only if an accepted or pending one builds on it.
pub(crate) struct Dag {
    epoch: Epoch,
    accepted: BTreeMap<BlockRef, VerifiedBlock>,
    pending: BTreeMap<BlockRef, VerifiedBlock>,
    /// Highest round that has been forgotten. Ancestors up to it count as present.
    floor: Round,
}

impl Dag {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, accepted: BTreeMap::new(), pending: BTreeMap::new(), floor: 0 }
    }

    /// The accepted blocks of a round, by author.
    pub(crate) fn round(&self, round: Round) -> impl Iterator<Item = &VerifiedBlock> {
        let first = self.lowest(round);
        let end = round.checked_add(1).map(|next| self.lowest(next));
        self.accepted
            .range(first..)
            .take_while(move |(key, _)| end.is_none_or(|end| **key < end))
            .map(|(_, block)| block)
    }

    fn lowest(&self, round: Round) -> BlockRef {
        BlockRef { epoch: self.epoch, round, author: 0, digest: BlockDigest::default() }
    }

    /// The accepted block.
    pub(crate) fn get(&self, reference: &BlockRef) -> Option<&VerifiedBlock> {
        self.accepted.get(reference)
    }

    /// The block, accepted or pending.
    pub(crate) fn find(&self, reference: &BlockRef) -> Option<&VerifiedBlock> {
        self.accepted.get(reference).or_else(|| self.pending.get(reference))
    }

    /// The highest round with an accepted block.
    pub(crate) fn highest_round(&self) -> Round {
        self.accepted.last_key_value().map_or(0, |(last, _)| last.round)
    }

    /// An accepted block of the author's highest round up to `round`.
    pub(crate) fn latest_of(&self, author: AuthorityIndex, round: Round) -> Option<&VerifiedBlock> {
        let end = round.checked_add(1).map_or(self.lowest(Round::MAX), |next| self.lowest(next));
        self.accepted.range(..end).rev().map(|(_, block)| block).find(|block| block.author == author)
    }

    /// Takes a verified block. Returns the blocks that are accepted now.
    pub(crate) fn offer(&mut self, block: VerifiedBlock) -> Vec<VerifiedBlock> {
        let reference = block.reference();
        if reference.epoch != self.epoch
            || reference.round <= self.floor
            || self.find(&reference).is_some()
            || !self.makes_room_for(&reference)
        {
            return Vec::new();
        }
        self.pending.insert(reference, block);
        self.settle()
    }

    /// Takes the blocks of a commit, whatever they build on.
    pub(crate) fn adopt(&mut self, blocks: &[VerifiedBlock]) -> Vec<VerifiedBlock> {
        for block in blocks.iter().filter(|block| block.epoch == self.epoch && block.round > self.floor) {
            self.pending.remove(&block.reference());
            self.accepted.insert(block.reference(), block.clone());
        }
        self.settle()
    }

    /// Forgets the rounds up to `floor`.
    pub(crate) fn raise_floor(&mut self, floor: Round) -> Vec<VerifiedBlock> {
        if floor <= self.floor {
            return Vec::new();
        }
        self.floor = floor;
        let first = self.lowest(floor.saturating_add(1));
        self.accepted = self.accepted.split_off(&first);
        self.pending = self.pending.split_off(&first);
        self.settle()
    }

    /// Ancestors of pending blocks that this validator does not have, from the lowest round on, each with an author who
    /// builds on it and so has it.
    pub(crate) fn missing(&self, max: usize) -> BTreeMap<BlockRef, AuthorityIndex> {
        let mut missing = BTreeMap::new();
        for block in self.pending.values() {
            for ancestor in block.ancestors.iter().filter(|ancestor| ancestor.round > self.floor) {
                if self.find(ancestor).is_none() {
                    missing.entry(*ancestor).or_insert(block.author);
                }
            }
            while missing.len() > max {
                missing.pop_last();
            }
        }
        missing
    }

    /// Whether a block may be built on: it is accepted, or forgotten.
    pub(crate) fn is_present(&self, reference: &BlockRef) -> bool {
        reference.round <= self.floor || self.accepted.contains_key(reference)
    }

    /// Whether the block may be held. Ends with room for it if so.
    fn makes_room_for(&mut self, reference: &BlockRef) -> bool {
        let is_twin = |other: &BlockRef| (other.round, other.author) == (reference.round, reference.author);
        let has_twin =
            self.round(reference.round).any(|block| is_twin(&block.reference())) || self.pending.keys().any(is_twin);
        if has_twin && !self.pending.values().any(|block| block.ancestors.contains(reference)) {
            return false;
        }
        let of_author = self.pending.keys().filter(|pending| pending.author == reference.author);
        let (count, highest) = (of_author.clone().count(), of_author.max().copied());
        match highest {
            Some(highest) if count >= MAX_PENDING_PER_AUTHOR => {
                let replaces = highest > *reference;
                if replaces {
                    self.pending.remove(&highest);
                }
                replaces
            }
            _ => true,
        }
    }

    /// Accepts the pending blocks whose ancestors are all there. In the order of rounds, so one pass is enough.
    fn settle(&mut self) -> Vec<VerifiedBlock> {
        let mut accepted = Vec::new();
        let pending: Vec<BlockRef> = self.pending.keys().copied().collect();
        for reference in pending {
            let is_complete = |block: &VerifiedBlock| block.ancestors.iter().all(|ancestor| self.is_present(ancestor));
            if !self.pending.get(&reference).is_some_and(is_complete) {
                continue;
            }
            let Some(block) = self.pending.remove(&reference) else { continue };
            // Commits with a block that is older than its ancestor are refused by everyone.
            let is_younger = |ancestor: &BlockRef| {
                self.accepted.get(ancestor).is_none_or(|ancestor| ancestor.timestamp_ms <= block.timestamp_ms)
            };
            if block.ancestors.iter().all(is_younger) {
                self.accepted.insert(reference, block.clone());
                accepted.push(block);
            }
        }
        accepted
    }
}
