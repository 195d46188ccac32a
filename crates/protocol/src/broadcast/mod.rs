//! Broadcast: spreads messages among nodes before there is a commit.
//!
//! ```text
//!   Publish --------------------------------------------------.
//!                                                             v
//!   Received --> known? epoch? room? --> Check --> accepted: spread --> Send over the eager links of the author's tree
//!       |                                  |                 `--> ids to a few other links at the next heartbeat
//!       |                                  `--> Deliver; ignored: forgotten; rejected: the sender pays
//!       `--> have: wait, then want; want: Send; graft, prune: the tree
//! ```
//!
//! Always:
//! - Nothing is delivered or sent on before its check accepts it. A message is checked once, however often it comes.
//! - The shell holds the bytes of each message until `Forget`. Every message that is not held is in a `Forget`.
//! - A slow peer delays nobody else: each stream has a bounded queue of its own, and a frame is taken as soon as its
//!   messages are decided.
//! - Only a wrong message proves that a peer lies. What is of no use counts against an allowance far above what honest
//!   peers need, and then costs the peer the stream of this topic.
//! - The core never asks the tables for their order: equal inputs give equal effects.

mod authors;
mod checks;
mod committee;
mod context;
mod equivocation;
mod hashing;
mod interface;
mod link_set;
mod links;
mod messages;
mod missing;
mod opening;
mod rates;
mod spread;
#[cfg(test)]
mod tests;

pub use interface::{
    Config, Control, Effect, Input, MessageInfo, MessageVerdict, Snapshot, StreamKey, TopicSnapshot, frame_bytes,
};

use crate::core::{Core, Now, PeerEvent};
use committee::Committee;
use context::{Closing, Context, Why};
use opening::{Ready, Streams, place};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Fault, PeerId, Topic};
use spread::Spread;
use std::time::Duration;

/// Time between two announcements of ids.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Time between two looks at silent validators, if nothing else happens.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The core of Broadcast.
#[derive(Serialize, Deserialize)]
pub struct Broadcast {
    config: Config,
    rng: ChaCha8Rng,
    committee: Committee,
    streams: Streams,
    /// In the order of [`Topic::ALL`].
    topics: [Spread; Topic::ALL.len()],
    next_heartbeat: Duration,
    /// When each topic is to be handled again.
    topic_wakes: [Option<Duration>; Topic::ALL.len()],
    /// The earliest time at which anything is to be done.
    next_wake: Option<Duration>,
    last_check: u64,
    now: Duration,
}

/// What one input has led to.
#[derive(Default)]
struct Outcome {
    effects: Vec<Effect>,
    closing: Vec<Closing>,
    /// Topics that may have changed.
    touched: [bool; Topic::ALL.len()],
}

impl Broadcast {
    /// Starts without links, and without a committee: until there is one, messages are held but not checked.
    pub fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let topics = Topic::ALL.map(|topic| Spread::new(topic, &mut rng));
        // Nodes that start together do not beat together.
        let next_heartbeat = HEARTBEAT.mul_f64(rng.random());
        Self {
            streams: Streams::new(config.own),
            config,
            rng,
            committee: Committee::default(),
            topics,
            next_heartbeat,
            topic_wakes: Default::default(),
            next_wake: None,
            last_check: 0,
            now: Duration::ZERO,
        }
    }

    /// Whether a new message of the topic reaches at least one peer soon: there is a stream whose queue is less than half
    /// full, or no stream at all.
    pub fn has_room(&self, topic: Topic) -> bool {
        self.topics[place(topic)].links.has_room()
    }

    /// How many validators are silent, as far as this node can tell: none unless it is a validator.
    pub fn silent_validators(&self) -> usize {
        self.committee.silent(self.now, &self.config.own).len()
    }

    /// The state of a topic, and what it needs beside.
    fn split<'a>(&'a mut self, outcome: &'a mut Outcome, topic: Topic) -> (&'a mut Spread, Context<'a>) {
        let context = Context {
            now: self.now,
            config: &self.config,
            committee: &mut self.committee,
            rng: &mut self.rng,
            effects: &mut outcome.effects,
            closing: &mut outcome.closing,
            last_check: &mut self.last_check,
        };
        outcome.touched[place(topic)] = true;
        (&mut self.topics[place(topic)], context)
    }

    fn on_topics(&mut self, outcome: &mut Outcome, act: impl Fn(&mut Spread, &mut Context<'_>)) {
        for topic in Topic::ALL {
            let (spread, mut context) = self.split(outcome, topic);
            act(spread, &mut context);
        }
    }

    fn on_stream(&mut self, outcome: &mut Outcome, stream: StreamKey, act: impl FnOnce(&mut Spread, &mut Context<'_>)) {
        if let Some((_, topic)) = self.streams.topic(stream) {
            let (spread, mut context) = self.split(outcome, topic);
            act(spread, &mut context);
        }
    }

    fn run_timers(&mut self, outcome: &mut Outcome) {
        while let Some((stream, peer, topic)) = self.streams.next(self.now) {
            outcome.effects.push(Effect::Open { stream, peer, topic });
        }
        let beats = self.now >= self.next_heartbeat;
        self.skip_past_heartbeats();
        self.on_topics(outcome, |spread, context| {
            spread.ask_for_due(context);
            if beats {
                spread.heartbeat(context);
            }
        });
    }

    /// The beats stay in step, also while there is nothing to do.
    fn skip_past_heartbeats(&mut self) {
        if let Some(late) = self.now.checked_sub(self.next_heartbeat) {
            let missed = late.as_millis() / HEARTBEAT.as_millis();
            self.next_heartbeat += HEARTBEAT * (missed as u32 + 1);
        }
    }

    fn set_next_wake(&mut self) {
        let has_work = self.topics.iter().any(Spread::has_work);
        self.skip_past_heartbeats();
        let heartbeat = has_work.then_some(self.next_heartbeat);
        let look = self.committee.is_validator().then_some(self.now + LOOK_INTERVAL);
        let others = [heartbeat, look, self.streams.next_due()];
        self.next_wake = self.topic_wakes.into_iter().chain(others).flatten().min();
    }

    fn on_input(&mut self, outcome: &mut Outcome, input: Input) {
        match input {
            Input::Wake => {}
            Input::Peer(event) => self.on_peer(outcome, event),
            Input::Committee { epoch, validators, is_validator } => {
                let renamed = self.committee.change(self.now, epoch, validators, is_validator);
                self.on_topics(outcome, |spread, context| spread.committee_changed(context, &renamed));
                self.streams.end_cooldowns(self.now);
            }
            Input::Opened { stream, peer, topic, by_us, max_message_bytes } => {
                self.on_opened(outcome, stream, (peer, topic), by_us, max_message_bytes);
            }
            Input::Closed { stream, fault, is_unsupported } => {
                if let Some((peer, topic)) = self.streams.topic(stream)
                    && let Some(fault) = fault.filter(|fault| fault.bans())
                {
                    let reason = format!("broke the rules of a stream of topic {topic}");
                    outcome.effects.push(Effect::Report { peer, fault, reason });
                }
                self.on_stream(outcome, stream, |spread, context| spread.closed(context, stream));
                self.streams.closed(self.now, stream, is_unsupported);
            }
            Input::Written { stream, bytes } => self.on_stream(outcome, stream, |spread, _| {
                if let Some(slot) = spread.links.slot(stream) {
                    spread.links.written(slot, bytes);
                }
            }),
            Input::Publish { topic, message } => {
                let (spread, mut context) = self.split(outcome, topic);
                spread.published(&mut context, message);
            }
            Input::Received { stream, frame, messages, control } => {
                let topic = self.streams.topic(stream).map(|(_, topic)| topic);
                match topic.filter(|topic| self.topics[place(*topic)].links.slot(stream).is_some()) {
                    Some(topic) => {
                        let (spread, mut context) = self.split(outcome, topic);
                        spread.received(&mut context, stream, frame, messages, control);
                    }
                    // The stream was ended while the frame was on its way. Its topic is not known any more.
                    None => self.on_stray(outcome, &messages),
                }
            }
            Input::Checked { check, verdicts } => {
                let topic = Topic::ALL.into_iter().find(|topic| self.topics[place(*topic)].runs_check(check));
                if let Some(topic) = topic {
                    let (spread, mut context) = self.split(outcome, topic);
                    spread.checked(&mut context, check, verdicts);
                }
            }
        }
    }

    fn on_stray(&mut self, outcome: &mut Outcome, messages: &[MessageInfo]) {
        let is_held = |message: &MessageInfo| self.topics.iter().any(|topic| topic.holds(&message.id));
        let messages: Vec<_> = messages.iter().filter(|message| !is_held(message)).map(|message| message.id).collect();
        if !messages.is_empty() {
            outcome.effects.push(Effect::Forget { messages });
        }
    }

    fn on_peer(&mut self, outcome: &mut Outcome, event: PeerEvent) {
        let peer = match event {
            PeerEvent::Connected(peer) => {
                self.streams.connected(self.now, peer);
                peer
            }
            PeerEvent::Lost { peer, .. } => {
                for stream in self.streams.of_link(&peer) {
                    self.end(outcome, stream);
                }
                self.streams.lost(self.now, peer);
                peer
            }
        };
        let is_outbound = self.streams.has_link(&peer);
        self.on_topics(outcome, |spread, context| spread.links.set_outbound(context, peer, is_outbound));
        while let Some((stream, peer, topic)) = self.streams.next(self.now) {
            outcome.effects.push(Effect::Open { stream, peer, topic });
        }
    }

    /// Ends a stream from this side.
    fn end(&mut self, outcome: &mut Outcome, stream: StreamKey) {
        outcome.effects.push(Effect::Close { stream });
        self.on_stream(outcome, stream, |spread, context| spread.closed(context, stream));
        self.streams.closed(self.now, stream, false);
    }

    fn on_opened(
        &mut self,
        outcome: &mut Outcome,
        stream: StreamKey,
        (peer, topic): (PeerId, Topic),
        by_us: bool,
        max_message_bytes: u32,
    ) {
        match self.streams.opened(self.now, stream, peer, topic, by_us) {
            Ready::Refuse => outcome.effects.push(Effect::Close { stream }),
            Ready::Use { instead_of } => {
                let is_outbound = self.streams.has_link(&peer);
                let (spread, mut context) = self.split(outcome, topic);
                if let Some(before) = instead_of {
                    context.effects.push(Effect::Close { stream: before });
                    spread.closed(&mut context, before);
                }
                spread.opened(&mut context, stream, peer, is_outbound, max_message_bytes);
            }
        }
    }

    /// Ends the streams that have to end.
    fn close(&mut self, outcome: &mut Outcome) {
        for Closing { stream, why } in std::mem::take(&mut outcome.closing) {
            let Some((peer, topic)) = self.streams.topic(stream) else { continue };
            if let Why::Useless { reported: is_at_fault } = why {
                self.streams.cool_down(self.now, peer, topic, is_at_fault);
                if is_at_fault {
                    let reason = format!("sends too much that is of no use on topic {topic}");
                    outcome.effects.push(Effect::Report { peer, fault: Fault::Unproven, reason });
                }
            }
            self.end(outcome, stream);
        }
    }
}

impl Core for Broadcast {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "broadcast";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now.monotonic);
        let mut outcome = Outcome::default();
        if self.next_wake.is_some_and(|wake| wake <= self.now) {
            self.run_timers(&mut outcome);
        }
        self.on_input(&mut outcome, input);
        self.close(&mut outcome);
        for topic in Topic::ALL {
            if outcome.touched[place(topic)] {
                let (spread, mut context) = self.split(&mut outcome, topic);
                spread.finish(&mut context);
                self.topic_wakes[place(topic)] = self.topics[place(topic)].next_wake(self.config.history);
            }
        }
        self.set_next_wake();
        outcome.effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        self.next_wake
    }

    fn snapshot(&self) -> Snapshot {
        let of_topic = |topic: Topic| (topic, self.topics[place(topic)].snapshot(self.now));
        Snapshot {
            topics: Topic::ALL.into_iter().map(of_topic).collect(),
            epoch: self.committee.epoch(),
            silent_validators: self.committee.silent(self.now, &self.config.own),
            equivocations: self.topics.iter().map(|topic| topic.equivocations() as u64).sum(),
        }
    }
}
