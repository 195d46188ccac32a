//! Sets of the links of one topic.

use serde::{Deserialize, Serialize};

/// The number of a link among those of its topic. A later link may get it again.
pub(super) type Slot = u16;

/// Links of one topic. A node has about 20; a validator has one to each other validator and up to 100 from full nodes.
pub(super) const MAX_LINKS: usize = 512;

const WORDS: usize = MAX_LINKS / 64;

/// A set of links, without memory of its own: each message has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkSet([u64; WORDS]);

impl LinkSet {
    pub(super) fn of(slots: impl IntoIterator<Item = Slot>) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.0.get(usize::from(slot) / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    pub(super) fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
        self
    }

    pub(super) fn without(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= !other);
        self
    }

    /// The links in ascending order.
    pub(super) fn iter(self) -> impl Iterator<Item = Slot> {
        self.0.into_iter().zip(0..).flat_map(|(word, position)| Bits(word).map(move |bit| position * 64 + bit))
    }
}

/// The positions of the bits of a word.
struct Bits(u64);

impl Iterator for Bits {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as Slot;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}
