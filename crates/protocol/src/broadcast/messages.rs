//! The messages of one topic that the shell holds: waiting for their check, or kept for others to ask for.
//!
//! ```text
//!   insert --> Early (of the next epoch) --> Waiting --> Kept --> forgotten: id in `seen`
//!                                               `------> removed: ignored (id in `seen`) or rejected (no trace)
//! ```
//!
//! Messages stand in the order in which they came. The oldest ones go first. One that still waits for its check is put
//! aside, so that a slow check does not keep others from being forgotten.

use super::{
    hashing::{HashKey, KeyedMap, SeenIds},
    interface::MessageInfo,
    link_set::{LinkSet, Slot},
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::MessageId;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Messages that are kept for others to ask for. Each takes about 250 bytes beside its payload: 16 MB in all.
const MAX_KEPT: usize = 65_536;

/// Messages of the next epoch that are held until it begins: those of the few rounds by which others are ahead.
const MAX_EARLY: usize = 1_024;

/// Bytes of them.
const MAX_EARLY_BYTES: u64 = 8 << 20;

/// Messages that wait for their check. Senders are slowed down long before: each waits for `Taken`.
const MAX_WAITING: usize = 65_536;

/// Bytes of them.
const MAX_WAITING_BYTES: u64 = 32 << 20;

/// Places in the order, with those of messages that are gone.
const MAX_PLACES: usize = MAX_KEPT + MAX_WAITING;

/// Senders of further copies that are remembered while a message waits.
const MAX_OTHER_SENDERS: usize = 8;

/// The number of a message in the order in which messages came.
pub(super) type Sequence = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Of the next epoch.
    Early,
    /// Waits for its check, or is being checked.
    Waiting,
    /// Accepted.
    Kept,
    /// Only its place is left.
    Gone,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) info: MessageInfo,
    pub(super) state: State,
    pub(super) at: Duration,
    /// Peers that have it, or were sent it.
    pub(super) holders: LinkSet,
    /// The link over which it came first. None for this node's own messages, or if the link is gone.
    pub(super) from: Option<Slot>,
    /// The frame that waits for its verdict.
    pub(super) frame: Option<u64>,
    /// Whether this node made it.
    pub(super) is_own: bool,
    /// Whether it came because this node had asked for it.
    pub(super) pulled: bool,
    /// A link that announced it long before it came.
    pub(super) faster: Option<Slot>,
    /// Checks that failed.
    pub(super) failures: u8,
    /// Links over which it came again while it waited.
    pub(super) other_senders: Vec<Slot>,
}

impl Entry {
    pub(super) fn new(info: MessageInfo, state: State, at: Duration) -> Self {
        Self {
            info,
            state,
            at,
            holders: LinkSet::default(),
            from: None,
            frame: None,
            is_own: false,
            pulled: false,
            faster: None,
            failures: 0,
            other_senders: Vec::new(),
        }
    }

    pub(super) fn came_again(&mut self, slot: Slot) {
        if self.other_senders.len() < MAX_OTHER_SENDERS && !self.other_senders.contains(&slot) {
            self.other_senders.push(slot);
        }
    }
}

/// Bounds of what is kept.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) history: Duration,
    pub(super) bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Messages {
    index: KeyedMap<MessageId, Sequence>,
    seen: SeenIds,
    /// From the number `first` on.
    entries: VecDeque<Entry>,
    first: Sequence,
    /// Old ones that still wait.
    aside: BTreeMap<Sequence, Entry>,
    kept: usize,
    kept_bytes: u64,
    early: usize,
    early_bytes: u64,
    waiting: usize,
    waiting_bytes: u64,
}

impl Messages {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self {
            index: KeyedMap::new(HashKey::new(rng)),
            seen: SeenIds::new(HashKey::new(rng)),
            entries: VecDeque::new(),
            first: 0,
            aside: BTreeMap::new(),
            kept: 0,
            kept_bytes: 0,
            early: 0,
            early_bytes: 0,
            waiting: 0,
            waiting_bytes: 0,
        }
    }

    /// The message, if the shell holds it.
    pub(super) fn find(&self, id: &MessageId) -> Option<Sequence> {
        self.index.get(id)
    }

    /// Whether the message came before and is forgotten.
    pub(super) fn was_seen(&self, id: &MessageId) -> bool {
        self.seen.contains(id)
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Entry> {
        let entry = match sequence.checked_sub(self.first) {
            Some(place) => self.entries.get(place as usize),
            None => self.aside.get(&sequence),
        };
        entry.filter(|entry| entry.state != State::Gone)
    }

    pub(super) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Entry> {
        let entry = match sequence.checked_sub(self.first) {
            Some(place) => self.entries.get_mut(place as usize),
            None => self.aside.get_mut(&sequence),
        };
        entry.filter(|entry| entry.state != State::Gone)
    }

    /// Whether one more message in this state is within the bounds.
    pub(super) fn has_room(&self, state: State, bytes: u32) -> bool {
        let (count, held, max, max_bytes) = match state {
            State::Early => (self.early, self.early_bytes, MAX_EARLY, MAX_EARLY_BYTES),
            State::Waiting => (self.waiting, self.waiting_bytes, MAX_WAITING, MAX_WAITING_BYTES),
            State::Kept | State::Gone => return true,
        };
        count < max && held + u64::from(bytes) <= max_bytes
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Sequence {
        let sequence = self.first + self.entries.len() as u64;
        self.index.insert(entry.info.id, sequence);
        self.count(entry.state, entry.info.bytes, true);
        self.entries.push_back(entry);
        sequence
    }

    fn count(&mut self, state: State, bytes: u32, add: bool) {
        let (count, held) = match state {
            State::Early => (&mut self.early, &mut self.early_bytes),
            State::Waiting => (&mut self.waiting, &mut self.waiting_bytes),
            State::Kept => (&mut self.kept, &mut self.kept_bytes),
            State::Gone => return,
        };
        if add {
            (*count, *held) = (*count + 1, *held + u64::from(bytes));
        } else {
            (*count, *held) = (count.saturating_sub(1), held.saturating_sub(u64::from(bytes)));
        }
    }

    /// Changes the state, and returns the message's number from now on.
    pub(super) fn set_state(&mut self, sequence: Sequence, state: State) -> Sequence {
        let Some(entry) = self.get_mut(sequence) else { return sequence };
        let (before, bytes) = (entry.state, entry.info.bytes);
        entry.state = state;
        self.count(before, bytes, false);
        self.count(state, bytes, true);
        // One that was put aside stands in the order again, or nothing would forget it.
        match self.aside.remove(&sequence) {
            Some(entry) => {
                let sequence = self.first + self.entries.len() as u64;
                self.index.insert(entry.info.id, sequence);
                self.entries.push_back(entry);
                sequence
            }
            None => sequence,
        }
    }

    /// Removes a message that is not kept. With `seen`, it may not come again.
    pub(super) fn remove(&mut self, sequence: Sequence, seen: Option<(Duration, Duration)>) -> Option<Entry> {
        let entry = self.get_mut(sequence)?;
        let removed = entry.clone();
        entry.state = State::Gone;
        self.aside.remove(&sequence);
        self.count(removed.state, removed.info.bytes, false);
        self.index.remove(&removed.info.id);
        if let Some((now, history)) = seen {
            self.seen.insert(now, history, &removed.info.id);
        }
        Some(removed)
    }

    /// Forgets the oldest messages as far as the bounds demand. Ids go into `forgotten`.
    pub(super) fn expire(&mut self, now: Duration, limits: Limits, forgotten: &mut Vec<MessageId>) {
        self.seen.expire(now, limits.history);
        while let Some(entry) = self.entries.front() {
            let over = self.kept > MAX_KEPT
                || self.kept_bytes > limits.bytes
                || self.entries.len() > MAX_PLACES
                || now >= entry.at + limits.history;
            if entry.state != State::Gone && !over {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            let sequence = self.first;
            self.first += 1;
            match entry.state {
                State::Gone => {}
                State::Waiting => {
                    self.aside.insert(sequence, entry);
                }
                State::Early | State::Kept => {
                    self.count(entry.state, entry.info.bytes, false);
                    self.index.remove(&entry.info.id);
                    if entry.state == State::Kept {
                        self.seen.insert(now, limits.history, &entry.info.id);
                    }
                    forgotten.push(entry.info.id);
                }
            }
        }
    }

    /// When the oldest message is to be forgotten.
    pub(super) fn next_expiry(&self, history: Duration) -> Option<Duration> {
        self.entries.front().map(|entry| entry.at + history)
    }

    /// Messages of this state, in order. Reads all: for rare events.
    pub(super) fn in_state(&self, state: State) -> impl DoubleEndedIterator<Item = (Sequence, &Entry)> {
        let in_order = (self.first..).zip(&self.entries);
        // The numbers have no end to count back from, so the reverse order needs them ready.
        in_order.filter(move |(_, entry)| entry.state == state).collect::<Vec<_>>().into_iter()
    }

    /// Accepted messages that came after `since`, the latest first.
    pub(super) fn latest(&self, since: Duration) -> impl Iterator<Item = &Entry> {
        let recent = self.entries.iter().rev().take_while(move |entry| entry.at >= since);
        recent.filter(|entry| entry.state == State::Kept)
    }

    /// Whatever a link knew, a later link with its number does not know.
    pub(super) fn link_closed(&mut self, slot: Slot) {
        for entry in self.entries.iter_mut().chain(self.aside.values_mut()) {
            entry.holders.remove(slot);
            entry.from = entry.from.filter(|from| *from != slot);
            entry.faster = entry.faster.filter(|faster| *faster != slot);
            entry.other_senders.retain(|sender| *sender != slot);
        }
    }

    pub(super) fn kept(&self) -> (usize, u64) {
        (self.kept, self.kept_bytes)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}
