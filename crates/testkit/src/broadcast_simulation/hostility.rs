//! What hostile nodes do.
//!
//! A hostile node runs the real core: so its peers open streams to it and expect something of it. What its core sends
//! is changed on its way, and several times a second the node adds frames of its own.

use super::{
    behaviour::Behaviour,
    event::{End, Event, StreamId},
    flags::HELD,
    frame::Frame,
    messages::New,
    world::World,
};
use rand::{RngExt, seq::IteratorRandom};
use soma_protocol::broadcast::{Control, MessageVerdict};
use soma_types::{Author, MessageId, Topic};
use std::time::Duration;

/// Time between two turns of a hostile node.
const TURN: Duration = Duration::from_millis(100);

/// Ids in one frame of a hostile node: the limit of the wire.
const IDS: usize = 1_024;

/// Messages in one frame of a hostile node.
const MESSAGES: usize = 20;

impl World {
    pub(super) fn does_not_read(&self, node: usize) -> bool {
        self.topology.nodes[node].behaviour == Some(Behaviour::NeverReads)
    }

    /// Sends what is left of a frame of a hostile node's core. The core takes all of it for written.
    pub(super) fn send_hostile(&mut self, behaviour: Behaviour, id: StreamId, end: End, mut frame: Frame) {
        let topic = self.streams[id].topic;
        let announce = |world: &Self, frame: &mut Frame| {
            let ids = frame.messages.drain(..).map(|message| world.messages.get(message).info.id);
            frame.control.have.extend(ids);
        };
        match behaviour {
            Behaviour::DropsEverything => {
                frame.messages.clear();
                frame.control = Control::default();
            }
            Behaviour::DropsCertificates if topic == Topic::Certificates => {
                frame.messages.clear();
                frame.control.have.clear();
            }
            Behaviour::NeverDelivers => announce(self, &mut frame),
            Behaviour::Sybil => {
                announce(self, &mut frame);
                frame.control.graft.append(&mut frame.control.prune);
            }
            _ => {}
        }
        let payloads = self.messages.payloads(&frame.messages);
        let counted = frame.counted;
        self.upload(id, end, Frame { counted, ..Frame::new(frame.messages, frame.control, payloads) });
    }

    /// A hostile node takes its turn: sends a frame over each of its streams.
    pub(super) fn attack(&mut self, node: usize) {
        let Some(behaviour) = self.topology.nodes[node].behaviour else { return };
        if self.is_finished || self.topology.nodes[node].process.is_none() {
            return;
        }
        self.after(TURN, Event::Attack { node });
        if behaviour == Behaviour::Equivocates {
            self.equivocate(node);
            return;
        }
        let links: Vec<_> = self.topology.nodes[node].links.values().copied().collect();
        for link in links {
            for stream in self.topology.links[link].streams.clone() {
                let ends = &self.streams[stream].ends;
                let Some(end) = ends.iter().position(|end| end.node == node && end.is_open && !end.is_over) else {
                    continue;
                };
                if let Some(frame) = self.weapon(node, behaviour, self.streams[stream].topic) {
                    self.upload(stream, end as End, Frame { counted: 0, ..frame });
                }
            }
        }
    }

    /// The frame that a hostile node sends in its turn.
    fn weapon(&mut self, node: usize, behaviour: Behaviour, topic: Topic) -> Option<Frame> {
        let mut control = Control::default();
        let mut messages = Vec::new();
        match behaviour {
            Behaviour::HugeIdLists => control.have = self.made_up_ids(),
            Behaviour::AsksForAnything => control.want = self.made_up_ids(),
            Behaviour::SpamsDuplicates => {
                let process = self.topology.nodes[node].process.as_ref()?;
                let count = self.messages.all().len();
                let has =
                    |message: &u32| process.knows(*message) & HELD != 0 && self.messages.get(*message).topic == topic;
                messages = (count.saturating_sub(200) as u32..count as u32).filter(has).collect();
                messages.truncate(MESSAGES);
            }
            Behaviour::SpamsOldEpochs => messages = self.made_up_messages(node, topic, true),
            Behaviour::Forges => {
                messages = self.made_up_messages(node, topic, false);
                messages.truncate(1);
            }
            Behaviour::PrunesEveryone => {
                let authors = (0..self.settings.validators as u32).map(Author::Authority).take(256).collect();
                match self.random.attacks.random_bool(0.8) {
                    true => control.prune = authors,
                    false => control.graft = authors,
                }
            }
            _ => return None,
        }
        let payloads = self.messages.payloads(&messages);
        Some(Frame::new(messages, control, payloads)).filter(|frame| !frame.is_empty())
    }

    fn made_up_ids(&mut self) -> Vec<MessageId> {
        (0..IDS).map(|_| MessageId(self.random.attacks.random())).collect()
    }

    /// Messages in the names of validators: of an epoch that is over, or with wrong signatures.
    fn made_up_messages(&mut self, node: usize, topic: Topic, are_old: bool) -> Vec<u32> {
        let made = |world: &mut Self| {
            let validator = world.random.attacks.random_range(0..world.settings.validators as u32);
            let new = New {
                topic,
                author: Author::Authority(validator),
                epoch: if are_old { world.epoch.saturating_sub(3) } else { world.epoch },
                bytes: 200,
                verdict: MessageVerdict::Reject,
                publisher: node,
                is_measured: false,
            };
            world.messages.add(new, world.now, &mut world.random.attacks)
        };
        (0..MESSAGES).map(|_| made(self)).collect()
    }

    /// Publishes one message, and sends another one for its slot to half of the peers.
    fn equivocate(&mut self, node: usize) {
        let slot = Some(self.messages.all().len() as u64);
        let verdict = MessageVerdict::Accept { slot };
        let new = self.new_message(node, Topic::Certificates, 200, verdict);
        let one = self.messages.add(new, self.now, &mut self.random.attacks);
        let other = self.messages.add(new, self.now, &mut self.random.attacks);
        self.publish(node, one);
        let links: Vec<_> = self.topology.nodes[node].links.values().copied().collect();
        let half = links.len() / 2;
        for link in links.into_iter().sample(&mut self.random.attacks, half) {
            for stream in self.topology.links[link].streams.clone() {
                let Some(end) = self.streams[stream].ends.iter().position(|end| end.node == node && end.is_open) else {
                    continue;
                };
                if self.streams[stream].topic == Topic::Certificates && self.streams[stream].can_send(end as End) {
                    let frame = Frame::new(vec![other], Control::default(), 200);
                    self.upload(stream, end as End, Frame { counted: 0, ..frame });
                }
            }
        }
    }
}
