//! The links of one topic: what is in the queue of each stream, and what is to go into it.
//!
//! Always: the queue of a stream stays under the topic's bound, except for one message that is larger. A peer that is
//! too slow for it delays nobody else: a consensus stream ends, on another stream the message is left out, and
//! announced when there is room.

use super::{
    context::{Closing, Context, Why},
    interface::{Config, Control, Effect, MessageInfo, StreamKey, frame_bytes},
    link_set::{LinkSet, MAX_LINKS, Slot},
    rates::Allowance,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use soma_types::{Author, MessageId, PeerId, Topic};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    time::Duration,
};

/// Links over which the messages of a new author are pushed. In a random network each node then has about as many
/// that push to it, so that the paths are short, and a node is reached even if most of them are hostile.
pub(super) const EAGER_LINKS: usize = 8;

/// Messages from this size on are offered before they are pushed to a link that may have them.
pub(super) const LARGE: u32 = 16 << 10;

/// Messages of one effect `Send`.
const MAX_FRAME_MESSAGES: usize = 1_024;

/// Bytes of payload of one effect `Send`, unless a message is larger.
const MAX_FRAME_BYTES: u64 = 256 << 10;

/// Ids of one list of a frame: the protocol's limit.
pub(super) const MAX_IDS: usize = 1_024;

/// Bytes of control beyond the bound of a queue. Whatever does not fit is not sent: all of it is repaired later.
const CONTROL_BYTES: u64 = 256 << 10;

/// Ids of messages that a slow peer lost and will be told of. Beyond, it learns of them from others.
const MAX_LEFT_OUT: usize = 4_096;

/// Messages that one link is asked for at once.
const MAX_OUTSTANDING: usize = 256;

/// Ids that a link was asked for and has not sent: they are no copies when they come late.
const MAX_ASKED: usize = 1_024;

/// Announcements in a row that a link does not keep. Then it is not believed for a while.
const MAX_BROKEN_PROMISES: u32 = 32;

/// For how long a link is not believed.
const DISBELIEVED_FOR: Duration = Duration::from_secs(60);

/// Bytes in the queue of one stream.
pub(super) fn queue_bound(topic: Topic) -> u64 {
    match topic {
        // A whole round of a large committee, with blocks.
        Topic::Consensus => 8 << 20,
        Topic::Certificates => 4 << 20,
        Topic::Transactions => 1 << 20,
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Link {
    key: StreamKey,
    pub(super) peer: PeerId,
    /// Whether this node has connected to the peer: an attacker chooses the others.
    is_outbound: bool,
    /// Random: selects the eager links of new authors.
    rank: u64,
    max_message_bytes: u32,
    /// Handed to the shell and not written.
    pub(super) queued: u64,
    messages: Vec<MessageId>,
    payload: u64,
    pub(super) control: Control,
    left_out: VecDeque<MessageId>,
    allowance: Allowance,
    asked: BTreeSet<MessageId>,
    asked_order: VecDeque<MessageId>,
    outstanding: usize,
    broken_promises: u32,
    disbelieved_until: Duration,
    is_closing: bool,
}

impl Link {
    fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload, self.messages.len(), &self.control)
    }

    /// Whether an id more may be announced to it: its queue has room for the message, too.
    pub(super) fn may_be_told(&self, topic: Topic) -> bool {
        self.control.have.len() < MAX_IDS && self.queued < queue_bound(topic) / 2
    }

    /// Whether its announcements are believed.
    pub(super) fn is_believed(&self, now: Duration) -> bool {
        now >= self.disbelieved_until
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn may_be_asked(&self) -> bool {
        self.outstanding < MAX_OUTSTANDING && !self.is_closing
    }

    /// Asks for a message.
    pub(super) fn ask(&mut self, id: MessageId) {
        self.control.want.push(id);
        self.outstanding += 1;
        if self.asked.insert(id) {
            self.asked_order.push_back(id);
        }
        if self.asked_order.len() > MAX_ASKED
            && let Some(oldest) = self.asked_order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    /// The link need not answer any more.
    pub(super) fn answered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// A message came. Whether the link was asked for it.
    pub(super) fn sent(&mut self, id: &MessageId) -> bool {
        let was_asked = !self.asked.is_empty() && self.asked.remove(id);
        if was_asked {
            self.broken_promises = 0;
            if self.asked.is_empty() {
                self.asked_order.clear();
            }
        }
        was_asked
    }

    /// The link announced a message and did not send it.
    pub(super) fn broke_promise(&mut self, now: Duration) {
        self.answered();
        self.broken_promises += 1;
        if self.broken_promises >= MAX_BROKEN_PROMISES {
            self.broken_promises = 0;
            self.disbelieved_until = now + DISBELIEVED_FOR;
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Links {
    topic: Topic,
    slots: Vec<Option<Link>>,
    by_key: BTreeMap<StreamKey, Slot>,
    /// All links.
    pub(super) open: LinkSet,
    /// Links to validators, which get this node's own consensus messages directly.
    pub(super) direct: LinkSet,
    /// Links over which messages spread by the trees.
    pub(super) overlay: LinkSet,
    /// Links that are told what this node has.
    pub(super) told: LinkSet,
    /// Links over which the messages of a new author are pushed.
    pub(super) eager: LinkSet,
    /// Links with something to send.
    pub(super) dirty: LinkSet,
    /// Links that are to learn of messages that were left out.
    left_out: LinkSet,
    pub(super) dropped: u64,
}

impl Links {
    pub(super) fn new(topic: Topic) -> Self {
        Self {
            topic,
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            open: LinkSet::default(),
            direct: LinkSet::default(),
            overlay: LinkSet::default(),
            told: LinkSet::default(),
            eager: LinkSet::default(),
            dirty: LinkSet::default(),
            left_out: LinkSet::default(),
            dropped: 0,
        }
    }

    pub(super) fn slot(&self, stream: StreamKey) -> Option<Slot> {
        self.by_key.get(&stream).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Link> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Link> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Link)> {
        (0..).zip(&self.slots).filter_map(|(slot, link)| Some((slot, link.as_ref()?)))
    }

    /// Adds a link, or has its stream closed if there are too many.
    pub(super) fn open(
        &mut self,
        context: &mut Context<'_>,
        key: StreamKey,
        peer: PeerId,
        is_outbound: bool,
        max_message_bytes: u32,
    ) -> Option<Slot> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free >= MAX_LINKS {
            context.closing.push(Closing { stream: key, why: Why::TooMany });
            return None;
        }
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some(Link {
            key,
            peer,
            is_outbound,
            rank: context.rng.random(),
            max_message_bytes,
            queued: 0,
            messages: Vec::new(),
            payload: 0,
            control: Control::default(),
            left_out: VecDeque::new(),
            allowance: Allowance::new(context.now),
            asked: BTreeSet::new(),
            asked_order: VecDeque::new(),
            outstanding: 0,
            broken_promises: 0,
            disbelieved_until: Duration::ZERO,
            is_closing: false,
        });
        let slot = free as Slot;
        self.by_key.insert(key, slot);
        self.open.insert(slot);
        self.classify(context);
        Some(slot)
    }

    pub(super) fn close(&mut self, context: &Context<'_>, key: StreamKey) -> Option<Slot> {
        let slot = self.by_key.remove(&key)?;
        self.slots[usize::from(slot)] = None;
        self.open.remove(slot);
        self.dirty.remove(slot);
        self.left_out.remove(slot);
        self.classify(context);
        Some(slot)
    }

    pub(super) fn set_outbound(&mut self, context: &Context<'_>, peer: PeerId, is_outbound: bool) {
        for link in self.slots.iter_mut().flatten().filter(|link| link.peer == peer) {
            link.is_outbound = is_outbound;
        }
        self.classify(context);
    }

    /// Sorts the links by what goes over them.
    pub(super) fn classify(&mut self, context: &Context<'_>) {
        let is_member = |link: &Link| context.committee.is_member(&link.peer);
        let members = LinkSet::of(self.iter().filter(|(_, link)| is_member(link)).map(|(slot, _)| slot));
        let Config { relays_consensus: relays, .. } = *context.config;
        let others = if relays { self.open.without(&members) } else { LinkSet::default() };
        (self.direct, self.overlay, self.told) = match self.topic {
            Topic::Consensus if context.committee.is_validator() => (members, others, members.union(&others)),
            Topic::Consensus => (members, others, others),
            Topic::Certificates | Topic::Transactions => (LinkSet::default(), self.open, self.open),
        };
        let mut ranked: Vec<(bool, u64, Slot)> = self
            .iter()
            .filter(|(slot, _)| self.overlay.contains(*slot))
            .map(|(slot, link)| (!link.is_outbound, link.rank, slot))
            .collect();
        ranked.sort_unstable();
        self.eager = LinkSet::of(ranked.into_iter().take(EAGER_LINKS).map(|(_, _, slot)| slot));
    }

    /// Something of no use came over the link. Beyond what is allowed, the stream ends.
    pub(super) fn useless(
        &mut self,
        context: &mut Context<'_>,
        slot: Slot,
        messages: u64,
        bytes: u64,
        is_mistake: bool,
    ) {
        let now = context.now;
        let link = self.get_mut(slot).filter(|link| !link.is_closing && (messages > 0 || bytes > 0));
        let Some(link) = link else { return };
        if !link.allowance.take(now, messages, bytes) {
            link.is_closing = true;
            context.closing.push(Closing { stream: link.key, why: Why::Useless { reported: is_mistake } });
        }
    }

    /// Puts a message into the queue of a stream, if it has room. Then the link holds the message.
    pub(super) fn push(
        &mut self,
        context: &mut Context<'_>,
        slot: Slot,
        message: &MessageInfo,
        holders: &mut LinkSet,
        tell_first: bool,
    ) {
        let (topic, bound) = (self.topic, queue_bound(self.topic));
        let Some(link) = self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut) else { return };
        if link.is_closing || message.bytes > link.max_message_bytes {
            return;
        }
        let ahead = link.queued + link.frame_bytes();
        if ahead > 0 && ahead + frame_bytes(u64::from(message.bytes), 1, &Control::default()) > bound {
            if topic == Topic::Consensus {
                link.is_closing = true;
                context.closing.push(Closing { stream: link.key, why: Why::Slow });
                return;
            }
            if link.left_out.len() >= MAX_LEFT_OUT {
                link.left_out.pop_front();
            }
            link.left_out.push_back(message.id);
            self.left_out.insert(slot);
            self.dropped += 1;
            return;
        }
        if tell_first {
            // The peer learns that the message is on its way, and asks nobody else for it.
            link.control.have.push(message.id);
            link.control.do_not_send.push(message.id);
            Self::flush_link(link, bound, context.effects);
        }
        link.messages.push(message.id);
        link.payload += u64::from(message.bytes);
        holders.insert(slot);
        if link.messages.len() >= MAX_FRAME_MESSAGES || link.payload >= MAX_FRAME_BYTES {
            Self::flush_link(link, bound, context.effects);
        }
        self.dirty.insert(slot);
    }

    /// Offers a large message.
    pub(super) fn offer(&mut self, slot: Slot, id: MessageId) {
        self.control(slot, |control| {
            control.have.push(id);
            control.do_not_send.push(id);
        });
    }

    pub(super) fn graft(&mut self, slot: Slot, author: Author) {
        self.control(slot, |control| control.graft.push(author));
    }

    pub(super) fn prune(&mut self, slot: Slot, author: Author) {
        self.control(slot, |control| control.prune.push(author));
    }

    /// Adds to the next frame of a link.
    pub(super) fn control(&mut self, slot: Slot, add: impl FnOnce(&mut Control)) {
        if let Some(link) = self.get_mut(slot) {
            add(&mut link.control);
            self.dirty.insert(slot);
        }
    }

    /// Announces what slow peers lost and this node still has, where there is room now.
    pub(super) fn announce_left_out(&mut self, is_held: impl Fn(&MessageId) -> bool) {
        let bound = queue_bound(self.topic);
        for slot in self.left_out.iter() {
            let Some(link) = self.get_mut(slot) else { continue };
            if link.queued < bound / 2 {
                let count = link.left_out.len().min(MAX_IDS);
                let ids: Vec<MessageId> = link.left_out.drain(..count).filter(&is_held).collect();
                if link.left_out.is_empty() {
                    self.left_out.remove(slot);
                }
                self.control(slot, |control| control.have.extend(ids));
            }
        }
    }

    pub(super) fn has_left_out(&self) -> bool {
        !self.left_out.is_empty()
    }

    pub(super) fn written(&mut self, slot: Slot, bytes: u64) {
        if let Some(link) = self.get_mut(slot) {
            link.queued = link.queued.saturating_sub(bytes);
        }
    }

    /// Sends what has come together.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        let bound = queue_bound(self.topic);
        for slot in mem::take(&mut self.dirty).iter() {
            if let Some(link) = self.get_mut(slot) {
                Self::flush_link(link, bound, effects);
            }
        }
    }

    fn flush_link(link: &mut Link, bound: u64, effects: &mut Vec<Effect>) {
        let messages = mem::take(&mut link.messages);
        let payload = mem::take(&mut link.payload);
        let mut control = mem::take(&mut link.control);
        if link.is_closing {
            return;
        }
        if link.queued > bound + CONTROL_BYTES {
            control = Control::default();
        }
        if !messages.is_empty() || !control.is_empty() {
            link.queued += frame_bytes(payload, messages.len(), &control);
            effects.push(Effect::Send { stream: link.key, messages, control });
        }
    }

    /// Whether there is a stream whose queue is less than half full, or none at all.
    pub(super) fn has_room(&self) -> bool {
        let bound = queue_bound(self.topic);
        self.by_key.is_empty() || self.slots.iter().flatten().any(|link| link.queued < bound / 2)
    }
}
