//! A deterministic network of cores: the shells, the links and the Verifier are played here.

use crate::{
    broadcast::{Broadcast, Config, Control, Effect, Input, MessageInfo, MessageVerdict, StreamKey, frame_bytes},
    core::{Core, LostReason, Now, PeerEvent},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_types::{Author, Fault, MessageId, PeerId, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn at(monotonic: Duration) -> Now {
    Now { monotonic, unix_ms: 0 }
}

pub(super) fn peer(index: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerId(bytes)
}

fn index_of(peer: &PeerId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&peer.0[..8]);
    u64::from_be_bytes(bytes) as usize
}

/// A message, whose number stands for its payload.
pub(super) fn message(author: Author, number: u64, bytes: u32) -> MessageInfo {
    let tag = format!("{author} {number} {bytes}");
    MessageInfo { id: MessageId::of(&[tag.as_bytes()]), author, epoch: 1, bytes }
}

pub(super) struct Node {
    pub(super) core: Broadcast,
    /// What the shell holds.
    held: BTreeSet<MessageId>,
    infos: BTreeMap<MessageId, MessageInfo>,
    pub(super) delivered: BTreeMap<MessageId, Duration>,
    pub(super) received_bytes: u64,
    pub(super) reports: Vec<(PeerId, Fault, String)>,
    pub(super) evidence: Vec<(MessageId, MessageId)>,
    streams: BTreeMap<StreamKey, Remote>,
    wake: Option<Duration>,
    next_stream: u64,
    next_frame: u64,
    untaken: BTreeSet<u64>,
    /// Sends nothing.
    pub(super) is_mute: bool,
}

#[derive(Clone, Copy)]
struct Remote {
    node: usize,
    stream: StreamKey,
}

enum Event {
    Input(usize, Input),
    Wake(usize),
    Ready { from: usize, to: usize, stream: StreamKey, topic: Topic },
    Frame { to: usize, stream: StreamKey, messages: Vec<MessageInfo>, control: Control },
}

pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    rng: ChaCha8Rng,
    links: BTreeMap<(usize, usize), Duration>,
    /// What the validators of all nodes say.
    pub(super) verdict: fn(usize, &MessageInfo) -> MessageVerdict,
}

impl Network {
    /// Nodes without links. The first `validators` of them are validators.
    pub(super) fn new(nodes: usize, validators: usize, seed: u64, config: impl Fn(Config) -> Config) -> Self {
        let committee: Vec<PeerId> = (0..validators).map(peer).collect();
        let node = |index: usize| Node {
            core: Broadcast::new(config(Config::new(peer(index), seed * 1_000 + index as u64))),
            held: BTreeSet::new(),
            infos: BTreeMap::new(),
            delivered: BTreeMap::new(),
            received_bytes: 0,
            reports: Vec::new(),
            evidence: Vec::new(),
            streams: BTreeMap::new(),
            wake: None,
            next_stream: 1,
            next_frame: 0,
            untaken: BTreeSet::new(),
            is_mute: false,
        };
        let mut network = Self {
            nodes: (0..nodes).map(node).collect(),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            next_event: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            links: BTreeMap::new(),
            verdict: |_, _| MessageVerdict::Accept { slot: None },
        };
        for index in 0..nodes {
            network.committee(index, 1, committee.clone(), index < validators);
        }
        network
    }

    pub(super) fn committee(&mut self, node: usize, epoch: u64, validators: Vec<PeerId>, is_validator: bool) {
        self.input(node, Input::Committee { epoch, validators, is_validator });
    }

    /// Connects two nodes, both ways, with a delay.
    pub(super) fn link(&mut self, a: usize, b: usize, delay: Duration) {
        if a != b && !self.links.contains_key(&(a, b)) {
            self.links.insert((a, b), delay);
            self.links.insert((b, a), delay);
            self.input(a, Input::Peer(PeerEvent::Connected(peer(b))));
            self.input(b, Input::Peer(PeerEvent::Connected(peer(a))));
        }
    }

    /// Each node gets links to so many others, at random, with delays of 20 to 150 ms. Validators are linked to each other.
    pub(super) fn link_at_random(&mut self, validators: usize, links: usize) {
        for a in 0..validators {
            for b in 0..a {
                let delay = ms(self.rng.random_range(20..150));
                self.link(a, b, delay);
            }
        }
        for a in 0..self.nodes.len() {
            for _ in 0..links / 2 {
                let (b, delay) = (self.rng.random_range(0..self.nodes.len()), ms(self.rng.random_range(20..150)));
                self.link(a, b, delay);
            }
        }
    }

    /// Breaks the link between two nodes. What is on its way is lost.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.remove(&(from, to));
            let gone: Vec<StreamKey> = self.nodes[from]
                .streams
                .iter()
                .filter(|(_, remote)| remote.node == to)
                .map(|(stream, _)| *stream)
                .collect();
            for stream in gone {
                self.nodes[from].streams.remove(&stream);
                self.input(from, Input::Closed { stream, fault: None, is_unsupported: false });
            }
            self.input(from, Input::Peer(PeerEvent::Lost { peer: peer(to), reason: LostReason::Closed }));
        }
    }

    pub(super) fn neighbours(&self, node: usize) -> Vec<usize> {
        self.links.keys().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect()
    }

    pub(super) fn publish(&mut self, node: usize, topic: Topic, message: MessageInfo) {
        self.nodes[node].held.insert(message.id);
        self.nodes[node].infos.insert(message.id, message);
        self.nodes[node].delivered.insert(message.id, self.now);
        self.input(node, Input::Publish { topic, message });
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + delay, self.next_event), event);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            match entry.remove() {
                Event::Input(node, input) => self.input(node, input),
                Event::Wake(node) => {
                    if self.nodes[node].wake.is_some_and(|wake| wake <= self.now) {
                        self.nodes[node].wake = None;
                        self.input(node, Input::Wake);
                    }
                }
                Event::Ready { from, to, stream, topic } => self.ready(from, to, stream, topic),
                Event::Frame { to, stream, messages, control } => self.frame(to, stream, messages, control),
            }
        }
        self.now = end;
    }

    fn ready(&mut self, from: usize, to: usize, stream: StreamKey, topic: Topic) {
        if !self.links.contains_key(&(from, to)) {
            return self.input(from, Input::Closed { stream, fault: None, is_unsupported: false });
        }
        let there = StreamKey(self.nodes[to].next_stream);
        self.nodes[to].next_stream += 2;
        self.nodes[from].streams.insert(stream, Remote { node: to, stream: there });
        self.nodes[to].streams.insert(there, Remote { node: from, stream });
        let max_message_bytes = 1 << 20;
        let of_peer = |node| peer(node);
        self.input(to, Input::Opened { stream: there, peer: of_peer(from), topic, by_us: false, max_message_bytes });
        self.input(from, Input::Opened { stream, peer: of_peer(to), topic, by_us: true, max_message_bytes });
    }

    fn frame(&mut self, to: usize, stream: StreamKey, messages: Vec<MessageInfo>, control: Control) {
        let node = &mut self.nodes[to];
        if !node.streams.contains_key(&stream) {
            return;
        }
        let payload: u64 = messages.iter().map(|message| u64::from(message.bytes)).sum();
        node.received_bytes += frame_bytes(payload, messages.len(), &control);
        for message in &messages {
            node.held.insert(message.id);
            node.infos.insert(message.id, *message);
        }
        node.next_frame += 1;
        let frame = node.next_frame;
        node.untaken.insert(frame);
        self.input(to, Input::Received { stream, frame, messages, control });
    }

    pub(super) fn input(&mut self, index: usize, input: Input) {
        let effects = self.nodes[index].core.handle(at(self.now), input);
        for effect in effects {
            self.perform(index, effect);
        }
        if let Some(wake) = self.nodes[index].core.next_wake() {
            let wake = wake.max(self.now);
            if self.nodes[index].wake.is_none_or(|before| before > wake) {
                self.nodes[index].wake = Some(wake);
                self.after(wake.saturating_sub(self.now), Event::Wake(index));
            }
        }
    }

    fn perform(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Open { stream, peer, topic } => {
                let to = index_of(&peer);
                let delay = self.links.get(&(index, to)).copied().unwrap_or(ms(10));
                self.after(delay, Event::Ready { from: index, to, stream, topic });
            }
            Effect::Close { stream } => {
                if let Some(Remote { node, stream: there }) = self.nodes[index].streams.remove(&stream)
                    && self.nodes[node].streams.remove(&there).is_some()
                {
                    let closed = Input::Closed { stream: there, fault: None, is_unsupported: false };
                    self.after(ms(1), Event::Input(node, closed));
                }
            }
            Effect::Send { stream, messages, control } => self.send(index, stream, messages, control),
            Effect::Check { check, messages, .. } => {
                assert!(
                    messages.iter().all(|id| self.nodes[index].held.contains(id)),
                    "the shell holds what is checked"
                );
                let of = |id: &MessageId| (self.verdict)(index, &self.nodes[index].infos[id]);
                let verdicts = Some(messages.iter().map(of).collect());
                self.after(ms(1), Event::Input(index, Input::Checked { check, verdicts }));
            }
            Effect::Taken { frame } => assert!(self.nodes[index].untaken.remove(&frame), "a frame is taken once"),
            Effect::Deliver { messages, .. } => {
                for id in messages {
                    assert!(self.nodes[index].held.contains(&id), "the shell holds what is delivered");
                    assert!(self.nodes[index].delivered.insert(id, self.now).is_none(), "delivered once");
                }
            }
            Effect::Equivocation { first, second, .. } => {
                assert!([first, second].iter().all(|id| self.nodes[index].held.contains(id)), "the evidence is held");
                self.nodes[index].evidence.push((first, second));
            }
            Effect::Forget { messages } => {
                for id in messages {
                    self.nodes[index].held.remove(&id);
                }
            }
            Effect::Report { peer, fault, reason } => self.nodes[index].reports.push((peer, fault, reason)),
        }
    }

    fn send(&mut self, index: usize, stream: StreamKey, messages: Vec<MessageId>, control: Control) {
        let node = &self.nodes[index];
        assert!(messages.iter().all(|id| node.held.contains(id)), "the shell holds what is sent");
        let messages: Vec<MessageInfo> = messages.iter().map(|id| node.infos[id]).collect();
        let payload: u64 = messages.iter().map(|message| u64::from(message.bytes)).sum();
        let bytes = frame_bytes(payload, messages.len(), &control);
        let Some(Remote { node: to, stream: there }) = node.streams.get(&stream).copied() else { return };
        let delay = self.links.get(&(index, to)).copied().unwrap_or_default();
        if !node.is_mute {
            self.after(delay, Event::Frame { to, stream: there, messages, control });
        }
        self.after(ms(1), Event::Input(index, Input::Written { stream, bytes }));
    }

    /// Messages that the shells hold although the cores have nothing to do with them.
    pub(super) fn leaked(&self) -> usize {
        let of_node = |node: &Node| node.held.iter().filter(|id| !node.core.holds(id)).count();
        self.nodes.iter().map(of_node).sum()
    }

    /// How many of the other nodes have a message, and when the last of them got it.
    pub(super) fn reached(&self, id: &MessageId) -> (usize, Duration) {
        let times: Vec<Duration> = self.nodes.iter().filter_map(|node| node.delivered.get(id).copied()).collect();
        (times.len(), times.into_iter().max().unwrap_or_default())
    }

    /// Equal in two runs if they did the same.
    pub(super) fn trace(&self) -> String {
        let of_node = |node: &Node| format!("{:?} {} {:?}", node.delivered, node.received_bytes, node.core.snapshot());
        self.nodes.iter().map(of_node).collect::<Vec<_>>().join("\n")
    }
}
