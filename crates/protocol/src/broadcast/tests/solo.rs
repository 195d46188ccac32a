//! One core, and peers that a test plays.

use super::network::{at, message, ms, peer};
use crate::{
    broadcast::{Broadcast, Config, Control, Effect, Input, MessageInfo, MessageVerdict, StreamKey},
    core::{Core, PeerEvent},
};
use soma_types::{Author, MessageId, PeerId, Topic};
use std::{collections::BTreeSet, time::Duration};

/// This node is peer 100. Peers 0 to 3 are validators.
pub(super) const OWN: usize = 100;

pub(super) struct Solo {
    pub(super) core: Broadcast,
    pub(super) now: Duration,
    frame: u64,
    /// What the shell holds.
    pub(super) held: BTreeSet<MessageId>,
    /// All effects since the last look at them.
    pub(super) effects: Vec<Effect>,
    pub(super) checks: Vec<(u64, Vec<MessageId>)>,
}

pub(super) fn by(author: u32, number: u64) -> MessageInfo {
    message(Author::Authority(author), number, 1_000)
}

pub(super) const ACCEPT: MessageVerdict = MessageVerdict::Accept { slot: None };

impl Solo {
    pub(super) fn new() -> Self {
        Self::with(|config| config, false)
    }

    pub(super) fn with(change: impl Fn(Config) -> Config, is_validator: bool) -> Self {
        let core = Broadcast::new(change(Config::new(peer(OWN), 1)));
        let (held, effects) = (BTreeSet::new(), Vec::new());
        let mut solo = Self { core, now: ms(1), frame: 0, held, effects, checks: Vec::new() };
        solo.committee(1, is_validator);
        solo
    }

    pub(super) fn committee(&mut self, epoch: u64, is_validator: bool) {
        let mut validators: Vec<PeerId> = (0..4).map(peer).collect();
        if is_validator {
            validators.push(peer(OWN));
        }
        self.input(Input::Committee { epoch, validators, is_validator });
    }

    pub(super) fn input(&mut self, input: Input) {
        let effects = self.core.handle(at(self.now), input);
        for effect in &effects {
            match effect {
                Effect::Check { check, messages, .. } => self.checks.push((*check, messages.clone())),
                Effect::Forget { messages } => self.held.retain(|id| !messages.contains(id)),
                Effect::Send { messages, .. } | Effect::Deliver { messages, .. } => {
                    assert!(messages.iter().all(|id| self.held.contains(id)), "the shell holds {messages:?}");
                }
                _ => {}
            }
        }
        self.effects.extend(effects);
    }

    /// Lets time pass, and wakes the core whenever it asks for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.core.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.input(Input::Wake);
            if self.core.next_wake().is_some_and(|next| next <= self.now) {
                panic!("woken for nothing");
            }
        }
        self.now = end;
    }

    pub(super) fn connect(&mut self, from: usize) {
        self.input(Input::Peer(PeerEvent::Connected(peer(from))));
    }

    /// A peer opens a stream.
    pub(super) fn open(&mut self, key: u64, from: usize, topic: Topic) -> StreamKey {
        let (stream, max_message_bytes) = (StreamKey(key), 1 << 20);
        self.input(Input::Opened { stream, peer: peer(from), topic, by_us: false, max_message_bytes });
        stream
    }

    pub(super) fn receive(&mut self, stream: StreamKey, messages: &[MessageInfo]) -> u64 {
        self.frame(stream, messages, Control::default())
    }

    pub(super) fn control(&mut self, stream: StreamKey, control: Control) {
        self.frame(stream, &[], control);
    }

    pub(super) fn have(&mut self, stream: StreamKey, have: Vec<MessageId>) {
        self.control(stream, Control { have, ..Control::default() });
    }

    pub(super) fn want(&mut self, stream: StreamKey, want: Vec<MessageId>) {
        self.control(stream, Control { want, ..Control::default() });
    }

    fn frame(&mut self, stream: StreamKey, messages: &[MessageInfo], control: Control) -> u64 {
        self.frame += 1;
        self.held.extend(messages.iter().map(|message| message.id));
        let (frame, messages) = (self.frame, messages.to_vec());
        self.input(Input::Received { stream, frame, messages, control });
        frame
    }

    pub(super) fn publish(&mut self, topic: Topic, message: MessageInfo) {
        self.held.insert(message.id);
        self.input(Input::Publish { topic, message });
    }

    /// Answers all checks, also those that follow, with one verdict for each message.
    pub(super) fn check(&mut self, verdict: MessageVerdict) {
        while let Some((check, messages)) = self.checks.pop() {
            self.input(Input::Checked { check, verdicts: Some(vec![verdict; messages.len()]) });
        }
    }

    pub(super) fn fail_checks(&mut self) -> usize {
        let checks = std::mem::take(&mut self.checks);
        for (check, _) in &checks {
            self.input(Input::Checked { check: *check, verdicts: None });
        }
        checks.len()
    }

    /// A message of a peer that is accepted.
    pub(super) fn accept(&mut self, stream: StreamKey, messages: &[MessageInfo]) {
        self.receive(stream, messages);
        self.check(ACCEPT);
    }

    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Ids that were delivered since the last look.
    pub(super) fn delivered(&self) -> Vec<MessageId> {
        let of = |effect: &Effect| match effect {
            Effect::Deliver { messages, .. } => messages.clone(),
            _ => Vec::new(),
        };
        self.effects.iter().flat_map(of).collect()
    }

    /// Messages that went into the queue of a stream since the last look.
    pub(super) fn sent(&self, to: StreamKey) -> Vec<MessageId> {
        self.frames(to).flat_map(|(messages, _)| messages.clone()).collect()
    }

    pub(super) fn controls(&self, to: StreamKey) -> Control {
        let mut all = Control::default();
        for (_, control) in self.frames(to) {
            all.have.extend(&control.have);
            all.want.extend(&control.want);
            all.do_not_send.extend(&control.do_not_send);
            all.graft.extend(&control.graft);
            all.prune.extend(&control.prune);
        }
        all
    }

    fn frames(&self, to: StreamKey) -> impl Iterator<Item = (&Vec<MessageId>, &Control)> {
        self.effects.iter().filter_map(move |effect| match effect {
            Effect::Send { stream, messages, control } if *stream == to => Some((messages, control)),
            _ => None,
        })
    }

    pub(super) fn reports(&self) -> Vec<PeerId> {
        let of = |effect: &Effect| if let Effect::Report { peer, .. } = effect { Some(*peer) } else { None };
        self.effects.iter().filter_map(of).collect()
    }

    pub(super) fn closed(&self) -> Vec<StreamKey> {
        let of = |effect: &Effect| if let Effect::Close { stream } = effect { Some(*stream) } else { None };
        self.effects.iter().filter_map(of).collect()
    }

    pub(super) fn opening(&self) -> Vec<(PeerId, Topic)> {
        let of = |effect: &Effect| {
            if let Effect::Open { peer, topic, .. } = effect { Some((*peer, *topic)) } else { None }
        };
        self.effects.iter().filter_map(of).collect()
    }

    pub(super) fn taken(&self) -> Vec<u64> {
        let of = |effect: &Effect| if let Effect::Taken { frame } = effect { Some(*frame) } else { None };
        self.effects.iter().filter_map(of).collect()
    }
}
