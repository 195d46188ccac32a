//! Messages that others announced and this node lacks.
//!
//! ```text
//!   have   --> wait for the eager path --> want from one announcer --> (not in time) want from the next ... --> forget
//!   offer  --> want at once                 ^ the trusted one with the least to do
//! ```
//!
//! An offer is a `have` and a `do_not_send` of one id: the peer has a large message, and pushes it to nobody unasked,
//! or is about to push it here, and then takes no notice of the `want`.

use super::link_set::{LinkSet, Slot};
use serde::{Deserialize, Serialize};
use soma_types::MessageId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Ids that are announced and lacking.
const MAX_MISSING: usize = 16_384;

/// Of these, ids that one link announced: no link takes the places of the others.
const MAX_PER_LINK: usize = 1_024;

/// Announcers of one message that are remembered.
const MAX_ANNOUNCERS: usize = 8;

/// For how long the eager path may take longer than an announcement. Announcements wait for a heartbeat, so the message
/// itself is mostly there before.
const EAGER_WAIT: Duration = Duration::from_millis(100);

/// Time for an answer to `want`: a round trip of 300 ms, and a queue.
const WANT_TIMEOUT: Duration = Duration::from_millis(500);

/// The same for a large message, which waits for others in a slow uplink.
const LARGE_WANT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Wait while all announcers have enough to do.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// How long a link is remembered that has a message which nobody announced.
const HOLDER_MEMORY: Duration = Duration::from_secs(2);

/// A message that is lacking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lacking {
    /// In the order of their announcements.
    announcers: Vec<Slot>,
    /// Links that have it or are about to get it.
    pub(super) holders: LinkSet,
    asked: LinkSet,
    asking: Option<Slot>,
    pub(super) is_large: bool,
    pub(super) announced_at: Duration,
    due: Duration,
}

impl Lacking {
    fn new(now: Duration, due: Duration) -> Self {
        Self {
            announcers: Vec::new(),
            holders: LinkSet::default(),
            asked: LinkSet::default(),
            asking: None,
            is_large: false,
            announced_at: now,
            due,
        }
    }

    /// The link that is asked for it now.
    pub(super) fn asking(&self) -> Option<Slot> {
        self.asking
    }

    pub(super) fn first_announcer(&self) -> Option<Slot> {
        self.announcers.first().copied()
    }
}

/// What is to be done about a message whose time has come.
pub(super) enum Next {
    /// The link did not answer in time, if one was asked; ask one of these.
    Ask { late: Option<Slot>, candidates: Vec<Slot> },
    /// The link did not answer in time, if one was asked; there is nobody else. The message is no longer lacking.
    GiveUp { late: Option<Slot> },
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Missing {
    lacking: BTreeMap<MessageId, Lacking>,
    due: BTreeSet<(Duration, MessageId)>,
    of_link: BTreeMap<Slot, usize>,
}

impl Missing {
    /// A link has a message that this node lacks. Returns false if there are too many of the link's.
    pub(super) fn announced(&mut self, now: Duration, id: MessageId, slot: Slot, is_offer: bool) -> bool {
        let is_full = self.lacking.len() >= MAX_MISSING;
        let of_link = self.of_link.entry(slot).or_default();
        if *of_link >= MAX_PER_LINK || (is_full && !self.lacking.contains_key(&id)) {
            return false;
        }
        let due = if is_offer { now } else { now + EAGER_WAIT };
        let lacking = self.lacking.entry(id).or_insert_with(|| {
            self.due.insert((due, id));
            Lacking::new(now, due)
        });
        lacking.holders.insert(slot);
        lacking.is_large |= is_offer;
        if lacking.announcers.len() < MAX_ANNOUNCERS && !lacking.announcers.contains(&slot) {
            // The first announcer is asked first, and one that offers it before the others.
            let place = if is_offer && lacking.asking.is_none() { 0 } else { lacking.announcers.len() };
            lacking.announcers.insert(place, slot);
            *of_link += 1;
        }
        if lacking.asking.is_none() && due < lacking.due {
            self.reschedule(id, due);
        }
        true
    }

    /// A link has a large message or is about to get it. Nobody is asked for it because of that.
    pub(super) fn has_or_gets(&mut self, now: Duration, id: MessageId, slot: Slot) {
        if self.lacking.len() < MAX_MISSING / 2 || self.lacking.contains_key(&id) {
            let due = now + HOLDER_MEMORY;
            let lacking = self.lacking.entry(id).or_insert_with(|| {
                self.due.insert((due, id));
                Lacking::new(now, due)
            });
            lacking.holders.insert(slot);
            lacking.is_large = true;
        }
    }

    /// The message that came over this link was refused; others may have a right copy of it.
    pub(super) fn again(&mut self, now: Duration, id: MessageId, slots: &[Slot]) {
        for slot in slots {
            self.announced(now, id, *slot, true);
        }
    }

    fn reschedule(&mut self, id: MessageId, due: Duration) {
        if let Some(lacking) = self.lacking.get_mut(&id) {
            self.due.remove(&(lacking.due, id));
            lacking.due = due;
            self.due.insert((due, id));
        }
    }

    /// The message has come.
    pub(super) fn take(&mut self, id: &MessageId) -> Option<Lacking> {
        if self.lacking.is_empty() {
            return None;
        }
        let lacking = self.lacking.remove(id)?;
        self.due.remove(&(lacking.due, *id));
        for slot in &lacking.announcers {
            if let Some(count) = self.of_link.get_mut(slot) {
                *count = count.saturating_sub(1);
            }
        }
        Some(lacking)
    }

    /// A message whose time has come. The caller asks for it or lets it wait, which sets a new time.
    pub(super) fn next(&mut self, now: Duration) -> Option<(MessageId, Next)> {
        let (_, id) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        let Some(lacking) = self.lacking.get_mut(&id) else {
            self.due.pop_first();
            return Some((id, Next::GiveUp { late: None }));
        };
        let late = lacking.asking.take();
        let candidates = lacking.announcers.iter().filter(|slot| !lacking.asked.contains(**slot));
        let candidates: Vec<Slot> = candidates.copied().collect();
        if candidates.is_empty() {
            self.take(&id);
            return Some((id, Next::GiveUp { late }));
        }
        Some((id, Next::Ask { late, candidates }))
    }

    /// The link is asked for the message.
    pub(super) fn asked(&mut self, now: Duration, id: MessageId, slot: Slot) {
        let Some(lacking) = self.lacking.get_mut(&id) else { return };
        lacking.asking = Some(slot);
        lacking.asked.insert(slot);
        let timeout = if lacking.is_large { LARGE_WANT_TIMEOUT } else { WANT_TIMEOUT };
        self.reschedule(id, now + timeout);
    }

    /// All announcers have enough to do.
    pub(super) fn wait(&mut self, now: Duration, id: MessageId) {
        self.reschedule(id, now + BUSY_WAIT);
    }

    pub(super) fn link_closed(&mut self, now: Duration, slot: Slot) {
        self.of_link.remove(&slot);
        let mut at_once = Vec::new();
        for (id, lacking) in &mut self.lacking {
            lacking.announcers.retain(|announcer| *announcer != slot);
            lacking.holders.remove(slot);
            lacking.asked.remove(slot);
            if lacking.asking == Some(slot) {
                lacking.asking = None;
                at_once.push(*id);
            }
        }
        at_once.into_iter().for_each(|id| self.reschedule(id, now));
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }
}
