//! Which authors contradict themselves: two messages for what an author may fill once.

use serde::{Deserialize, Serialize};
use soma_types::{Author, Epoch, MessageId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Authors whose slots are known. More have messages with slots only in a committee of the largest size.
const MAX_AUTHORS: usize = 1_024;

/// Slots that are known of each author: the latest ones. At ten rounds per second these are 12 seconds.
const MAX_SLOTS: usize = 128;

/// What the slots say of an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The author fills the slot for the first time.
    First,
    /// The author has filled the slot with this other message.
    Second(MessageId),
    /// The author is known to contradict itself about this slot.
    Further,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Filled {
    slot: u64,
    id: MessageId,
    is_reported: bool,
}

/// The slots that the authors of one topic have filled.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Equivocations {
    authors: BTreeMap<(Epoch, Author), VecDeque<Filled>>,
    found: BTreeSet<(Epoch, Author)>,
}

impl Equivocations {
    pub(super) fn note(&mut self, epoch: Epoch, author: Author, slot: u64, id: MessageId) -> Finding {
        if self.authors.len() >= MAX_AUTHORS && !self.authors.contains_key(&(epoch, author)) {
            self.authors.pop_first();
        }
        let filled = self.authors.entry((epoch, author)).or_default();
        // The latest slot is at the back, and most messages are about a later one.
        match filled.iter_mut().rev().find(|filled| filled.slot == slot) {
            Some(known) if known.id == id => Finding::First,
            Some(known) if known.is_reported => Finding::Further,
            Some(known) => {
                known.is_reported = true;
                let first = known.id;
                if self.found.len() < MAX_AUTHORS {
                    self.found.insert((epoch, author));
                }
                Finding::Second(first)
            }
            None => {
                if filled.len() >= MAX_SLOTS {
                    filled.pop_front();
                }
                filled.push_back(Filled { slot, id, is_reported: false });
                Finding::First
            }
        }
    }

    /// Forgets the epochs before this one.
    pub(super) fn forget_before(&mut self, epoch: Epoch) {
        self.authors.retain(|(of, _), _| *of >= epoch);
        self.found.retain(|(of, _)| *of >= epoch);
    }

    /// Authors that contradicted themselves.
    pub(super) fn found(&self) -> usize {
        self.found.len()
    }
}
