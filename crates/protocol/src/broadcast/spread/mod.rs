//! One topic: how its messages come in, are checked, and go on.

mod accept;
mod heartbeat;
mod receive;

use super::{
    authors::Authors,
    checks::Checks,
    context::Context,
    equivocation::Equivocations,
    interface::{Effect, MessageInfo, StreamKey, TopicSnapshot},
    link_set::{LinkSet, Slot},
    links::Links,
    messages::{Entry, Limits, Messages, Sequence, State},
    missing::Missing,
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{MessageId, PeerId, Topic, limits};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Messages that came in this time are announced to a new link: a short loss of the connection loses nothing.
const RECENT: Duration = Duration::from_secs(5);

/// Ids that are announced to a new link at most: one frame.
const MAX_RECENT: usize = 1_024;

/// Messages that wait for their announcements. Beyond, links learn of none: it takes 13,000 messages per second.
const MAX_ANNOUNCEMENTS: usize = 8_192;

/// A frame whose messages wait for their verdicts.
#[derive(Serialize, Deserialize)]
struct Frame {
    stream: StreamKey,
    peer: PeerId,
    undecided: usize,
    is_reported: bool,
}

/// A message that is announced.
#[derive(Serialize, Deserialize)]
struct Announcement {
    sequence: Sequence,
    /// Links that were told.
    told: LinkSet,
    /// Heartbeats in which it was announced.
    round: usize,
}

#[derive(Default, Serialize, Deserialize)]
struct Counts {
    published: u64,
    delivered: u64,
    duplicates: u64,
    rejected: u64,
    ignored: u64,
    recovered: u64,
}

/// A topic.
#[derive(Serialize, Deserialize)]
pub(super) struct Spread {
    topic: Topic,
    pub(super) links: Links,
    messages: Messages,
    authors: Authors,
    missing: Missing,
    checks: Checks,
    equivocations: Equivocations,
    frames: BTreeMap<u64, Frame>,
    /// Messages to announce in the next heartbeat.
    announcements: VecDeque<Announcement>,
    /// Large messages to announce, with the time.
    large_announcements: VecDeque<(Duration, Announcement)>,
    /// Ids whose bytes the shell is to drop at the end of this input.
    forgotten: Vec<MessageId>,
    counts: Counts,
}

impl Spread {
    pub(super) fn new(topic: Topic, rng: &mut ChaCha8Rng) -> Self {
        Self {
            topic,
            links: Links::new(topic),
            messages: Messages::new(rng),
            authors: Authors::new(rng),
            missing: Missing::default(),
            checks: Checks::default(),
            equivocations: Equivocations::default(),
            frames: BTreeMap::new(),
            announcements: VecDeque::new(),
            large_announcements: VecDeque::new(),
            forgotten: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn max_message_bytes(&self, context: &Context<'_>) -> u32 {
        match self.topic {
            Topic::Consensus => limits::MAX_MESSAGE_BYTES as u32,
            Topic::Certificates | Topic::Transactions => context.config.max_message_bytes,
        }
    }

    /// A stream is ready: the peer learns what this node got lately.
    pub(super) fn opened(
        &mut self,
        context: &mut Context<'_>,
        stream: StreamKey,
        peer: PeerId,
        is_outbound: bool,
        max_message_bytes: u32,
    ) {
        let Some(slot) = self.links.open(context, stream, peer, is_outbound, max_message_bytes) else { return };
        if !self.links.told.contains(slot) {
            return;
        }
        let latest = self.messages.latest(context.now.saturating_sub(RECENT));
        let recent: Vec<MessageId> = latest.take(MAX_RECENT).map(|entry| entry.info.id).collect();
        self.links.control(slot, |control| control.have.extend(recent));
    }

    /// A stream has ended.
    pub(super) fn closed(&mut self, context: &mut Context<'_>, stream: StreamKey) {
        let Some(slot) = self.links.close(context, stream) else { return };
        self.messages.link_closed(slot);
        self.missing.link_closed(context.now, slot);
        for (author, link) in self.authors.link_closed(context.now, slot, &self.links.overlay, context.rng) {
            self.links.graft(link, author);
        }
    }

    /// This node's own message.
    pub(super) fn published(&mut self, context: &mut Context<'_>, message: MessageInfo) {
        if self.messages.find(&message.id).is_some() {
            return;
        }
        self.counts.published += 1;
        let mut entry = Entry::new(message, State::Kept, context.now);
        entry.is_own = true;
        if let Some(lacking) = self.missing.take(&message.id) {
            if let Some(link) = lacking.asking().and_then(|asked| self.links.get_mut(asked)) {
                link.answered();
            }
            entry.holders = lacking.holders;
        }
        let sequence = self.messages.insert(entry);
        self.authors.touch(context.now, message.author, &LinkSet::default());
        self.authors.set_own(&message.author);
        self.spread(context, sequence);
    }

    /// Another committee: messages of its epoch are valid now, those before the last epoch are not.
    pub(super) fn committee_changed(&mut self, context: &mut Context<'_>, renamed: &[soma_types::Author]) {
        self.links.classify(context);
        let eager = self.links.eager;
        renamed.iter().for_each(|author| self.authors.reset(context.now, author, &eager));
        self.equivocations.forget_before(context.committee.epoch().saturating_sub(1));
        self.release_early(context);
    }

    /// Ends an input: starts checks, sends what has come together, forgets what is too old.
    pub(super) fn finish(&mut self, context: &mut Context<'_>) {
        self.start_checks(context);
        self.links.flush(context.effects);
        let limits = Limits { history: context.config.history, bytes: context.config.history_bytes };
        self.messages.expire(context.now, limits, &mut self.forgotten);
        if !self.forgotten.is_empty() {
            context.effects.push(Effect::Forget { messages: std::mem::take(&mut self.forgotten) });
        }
    }

    fn start_checks(&mut self, context: &mut Context<'_>) {
        while let Some((check, batch)) = self.checks.start(context.now, context.last_check) {
            let ids = batch.iter().filter_map(|queued| Some(self.messages.get(queued.sequence)?.info.id));
            let messages: Vec<MessageId> = ids.collect();
            let signatures = batch.iter().any(|queued| queued.signature);
            context.effects.push(Effect::Check { check, topic: self.topic, messages, signatures });
        }
    }

    /// A message is decided: the frame in which it came may be the next to end.
    fn decided(&mut self, frame: Option<u64>, effects: &mut Vec<Effect>) {
        let Some(frame) = frame else { return };
        let Some(waiting) = self.frames.get_mut(&frame) else { return };
        waiting.undecided = waiting.undecided.saturating_sub(1);
        if waiting.undecided > 0 {
            return;
        }
        let is_open = self.links.slot(waiting.stream).is_some();
        self.frames.remove(&frame);
        if is_open {
            effects.push(Effect::Taken { frame });
        }
    }

    pub(super) fn runs_check(&self, check: u64) -> bool {
        self.checks.runs(check)
    }

    /// Whether the shell holds the message.
    pub(super) fn holds(&self, id: &MessageId) -> bool {
        self.messages.find(id).is_some()
    }

    /// Forgets the bytes of a message that is not kept.
    fn forget(&mut self, id: MessageId) {
        self.forgotten.push(id);
    }

    pub(super) fn snapshot(&self, now: Duration) -> TopicSnapshot {
        let (kept, kept_bytes) = self.messages.kept();
        let queues = self.links.iter().map(|(_, link)| (link.peer, link.queued)).filter(|(_, queued)| *queued > 0);
        TopicSnapshot {
            peers: self.links.open.len(),
            eager_peers: self.authors.sources(now).and(&self.links.open).len(),
            published: self.counts.published,
            delivered: self.counts.delivered,
            duplicates: self.counts.duplicates,
            rejected: self.counts.rejected,
            ignored: self.counts.ignored,
            recovered: self.counts.recovered,
            dropped: self.links.dropped,
            kept,
            kept_bytes,
            checking: self.messages.waiting(),
            slowest_peer: queues.max_by_key(|(peer, queued)| (*queued, *peer)),
        }
    }

    pub(super) fn equivocations(&self) -> usize {
        self.equivocations.found()
    }

    fn is_from_its_author(&self, context: &Context<'_>, slot: Slot, message: &MessageInfo) -> bool {
        let author = context.committee.peer_of(message.epoch, message.author);
        author.is_some() && author == self.links.get(slot).map(|link| link.peer)
    }
}
