//! Which streams there are to which peer, and which of the two opens them.
//!
//! ```text
//!   link --> this node's id is the smaller one: open at once
//!       `--> else: wait for the peer's, and open one after OPEN_AFTER
//!   two streams of one topic: both sides keep the one that the smaller id opened; of two of one side, the later one
//!   ended --> opened again, after a wait that doubles with each stream that did not last
//! ```

use super::interface::StreamKey;
use crate::backoff::Backoff;
use serde::{Deserialize, Serialize};
use soma_types::{PeerId, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long the peer with the larger id waits for the other one's streams.
const OPEN_AFTER: Duration = Duration::from_secs(1);

/// Waits before a stream is opened again. The first is short: a consensus stream that was too slow starts afresh.
const REOPEN: Backoff = Backoff { min: Duration::from_millis(250), max: Duration::from_secs(30) };

/// A stream that lasted for this long did not fail.
const LASTED: Duration = Duration::from_secs(10);

/// How long a peer that sent too much of no use gets no stream of the topic. Doubles with each repetition.
const COOLDOWN: Backoff = Backoff { min: Duration::from_secs(30), max: Duration::from_secs(3_600) };

/// Peers that are known: those with links, and those that cool down.
const MAX_PEERS: usize = 2_048;

const TOPICS: usize = Topic::ALL.len();

/// The place of a topic in lists.
pub(super) fn place(topic: Topic) -> usize {
    match topic {
        Topic::Consensus => 0,
        Topic::Certificates => 1,
        Topic::Transactions => 2,
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Open {
    key: StreamKey,
    by_us: bool,
    since: Duration,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfTopic {
    open: Option<Open>,
    opening: Option<StreamKey>,
    failures: u32,
    cooldowns: u32,
    cools_until: Duration,
    /// Whether it cools down because of the peer's mistakes.
    is_at_fault: bool,
    due: Option<Duration>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Peer {
    has_link: bool,
    is_unsupported: bool,
    topics: [OfTopic; TOPICS],
}

/// The streams of all peers.
#[derive(Serialize, Deserialize)]
pub(super) struct Streams {
    own: PeerId,
    peers: BTreeMap<PeerId, Peer>,
    keys: BTreeMap<StreamKey, (PeerId, Topic)>,
    due: BTreeSet<(Duration, PeerId, Topic)>,
    last_key: u64,
}

/// What follows when a stream is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// It takes the place of the other one, if there is one, which is closed.
    Use { instead_of: Option<StreamKey> },
    /// It is closed.
    Refuse,
}

impl Streams {
    pub(super) fn new(own: PeerId) -> Self {
        Self { own, peers: BTreeMap::new(), keys: BTreeMap::new(), due: BTreeSet::new(), last_key: 0 }
    }

    pub(super) fn has_link(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.has_link)
    }

    pub(super) fn topic(&self, stream: StreamKey) -> Option<(PeerId, Topic)> {
        self.keys.get(&stream).copied()
    }

    pub(super) fn connected(&mut self, now: Duration, id: PeerId) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            return;
        }
        let peer = self.peers.entry(id).or_default();
        (peer.has_link, peer.is_unsupported) = (true, false);
        peer.topics.iter_mut().for_each(|topic| topic.failures = 0);
        Topic::ALL.into_iter().for_each(|topic| self.schedule(now, id, topic));
    }

    /// The streams that this node opened or opens over its link to the peer.
    pub(super) fn of_link(&self, id: &PeerId) -> Vec<StreamKey> {
        let topics = self.peers.get(id).into_iter().flat_map(|peer| &peer.topics);
        let of_topic = |topic: &OfTopic| {
            let open = topic.open.filter(|open| open.by_us).map(|open| open.key);
            [open, topic.opening].into_iter().flatten().collect::<Vec<_>>()
        };
        topics.flat_map(of_topic).collect()
    }

    /// The link is gone. Its streams are closed already.
    pub(super) fn lost(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.has_link = false;
        Topic::ALL.into_iter().for_each(|topic| self.schedule(now, id, topic));
        self.forget_if_idle(now, id);
    }

    /// Sets the time at which this node opens a stream of the topic, if it is to.
    fn schedule(&mut self, now: Duration, id: PeerId, topic: Topic) {
        let first_wait = if self.own < id { Duration::ZERO } else { OPEN_AFTER };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (has_link, is_unsupported) = (peer.has_link, peer.is_unsupported);
        let of_topic = &mut peer.topics[place(topic)];
        if let Some(due) = of_topic.due.take() {
            self.due.remove(&(due, id, topic));
        }
        if has_link && !is_unsupported && of_topic.open.is_none() && of_topic.opening.is_none() {
            let wait = if of_topic.failures == 0 { Duration::ZERO } else { REOPEN.wait(of_topic.failures - 1) };
            of_topic.due = Some((now + first_wait + wait).max(of_topic.cools_until));
        } else if !has_link && of_topic.cools_until > now {
            // The peer is forgotten then.
            of_topic.due = Some(of_topic.cools_until);
        }
        if let Some(due) = of_topic.due {
            self.due.insert((due, id, topic));
        }
    }

    /// A stream that is to be opened now.
    pub(super) fn next(&mut self, now: Duration) -> Option<(StreamKey, PeerId, Topic)> {
        while let Some(next @ (due, id, topic)) = self.due.first().copied()
            && due <= now
        {
            self.due.remove(&next);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let of_topic = &mut peer.topics[place(topic)];
            of_topic.due = None;
            if !peer.has_link {
                self.forget_if_idle(now, id);
                continue;
            }
            self.last_key += 2;
            let key = StreamKey(self.last_key);
            of_topic.opening = Some(key);
            self.keys.insert(key, (id, topic));
            return Some((key, id, topic));
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, ..)| *due)
    }

    pub(super) fn opened(&mut self, now: Duration, key: StreamKey, id: PeerId, topic: Topic, by_us: bool) -> Ready {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            return Ready::Refuse;
        }
        let keep_ours = self.own < id;
        let of_topic = &mut self.peers.entry(id).or_default().topics[place(topic)];
        let is_expected = !by_us || of_topic.opening == Some(key);
        if by_us && is_expected {
            of_topic.opening = None;
        }
        let is_worse = of_topic.open.is_some_and(|open| open.by_us != by_us && open.by_us == keep_ours);
        if !is_expected || is_worse || now < of_topic.cools_until {
            self.keys.remove(&key);
            self.schedule(now, id, topic);
            self.forget_if_idle(now, id);
            return Ready::Refuse;
        }
        let before = of_topic.open.replace(Open { key, by_us, since: now });
        if let Some(before) = before {
            self.keys.remove(&before.key);
        }
        self.keys.insert(key, (id, topic));
        self.schedule(now, id, topic);
        Ready::Use { instead_of: before.map(|before| before.key) }
    }

    /// A stream has ended or could not be opened, or this node ends it.
    pub(super) fn closed(&mut self, now: Duration, key: StreamKey, is_unsupported: bool) {
        let Some((id, topic)) = self.keys.remove(&key) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.is_unsupported |= is_unsupported;
        let of_topic = &mut peer.topics[place(topic)];
        let lasted = of_topic.open.is_some_and(|open| open.key == key && now >= open.since + LASTED);
        of_topic.failures = if lasted { 1 } else { of_topic.failures.saturating_add(1) };
        of_topic.opening = of_topic.opening.filter(|opening| *opening != key);
        of_topic.open = of_topic.open.filter(|open| open.key != key);
        self.schedule(now, id, topic);
        self.forget_if_idle(now, id);
    }

    /// The peer gets no stream of the topic for a while.
    pub(super) fn cool_down(&mut self, now: Duration, id: PeerId, topic: Topic, is_at_fault: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let of_topic = &mut peer.topics[place(topic)];
        of_topic.cools_until = now + COOLDOWN.wait(of_topic.cooldowns);
        of_topic.cooldowns = of_topic.cooldowns.saturating_add(1);
        of_topic.is_at_fault = is_at_fault;
        self.schedule(now, id, topic);
    }

    /// Ends the waits of peers that were not at fault: this node was behind.
    pub(super) fn end_cooldowns(&mut self, now: Duration) {
        let is_cooling = |of_topic: &OfTopic| of_topic.cools_until > now && !of_topic.is_at_fault;
        let of_peer = |(id, peer): (&PeerId, &Peer)| {
            let topics = Topic::ALL.into_iter().filter(|topic| is_cooling(&peer.topics[place(*topic)]));
            topics.map(|topic| (*id, topic)).collect::<Vec<_>>()
        };
        let cooling: Vec<(PeerId, Topic)> = self.peers.iter().flat_map(of_peer).collect();
        for (id, topic) in cooling {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let of_topic = &mut peer.topics[place(topic)];
            (of_topic.cools_until, of_topic.cooldowns) = (Duration::ZERO, 0);
            self.schedule(now, id, topic);
            self.forget_if_idle(now, id);
        }
    }

    fn forget_if_idle(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let is_busy = |topic: &OfTopic| topic.open.is_some() || topic.opening.is_some() || topic.cools_until > now;
        if !peer.has_link && !peer.topics.iter().any(is_busy) {
            for topic in Topic::ALL {
                if let Some(due) = peer.topics[place(topic)].due {
                    self.due.remove(&(due, id, topic));
                }
            }
            self.peers.remove(&id);
        }
    }
}
