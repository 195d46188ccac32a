//! What honest nodes publish, and what is measured of it.

use super::{
    event::{Event, nanos},
    figures::Phase,
    frame::Frame,
    messages::New,
    node::{ARRIVED, DELIVERED, HELD, PUBLISHED},
    world::World,
};
use rand::RngExt;
use soma_protocol::broadcast::{Input, MessageVerdict};
use soma_types::{Author, MessageId, Topic};
use std::time::Duration;

/// Time after which every node that was up all the while must have a message.
const REVIEW_AFTER: Duration = Duration::from_secs(9);

/// Time that a node needs after its start until it counts: to connect, and for peers to open streams.
const COUNTS_AFTER: Duration = Duration::from_secs(4);

impl World {
    /// A node at random publishes the next message of a load.
    pub(super) fn publish_next(&mut self, load: usize) {
        if self.is_finished {
            return;
        }
        let number = load;
        let load = self.settings.loads[load].clone();
        let wait = self.random.loads.random_range(0.5..1.5) / load.per_second;
        self.after(Duration::from_secs_f64(wait), Event::Publish { load: number });
        let publishers = if load.by_validators { self.settings.validators } else { self.settings.nodes };
        let slot = load.has_slots.then(|| self.messages.all().len() as u64);
        for _ in 0..100 {
            let node = self.random.loads.random_range(0..publishers.max(1));
            if self.topology.nodes[node].behaviour.is_some() || self.is_too_young(node, self.now) {
                continue;
            }
            let new = self.new_message(node, load.topic, load.payload, MessageVerdict::Accept { slot });
            let new = New { is_measured: self.is_measuring, ..new };
            let message = self.messages.add(new, self.now, &mut self.random.loads);
            self.after(REVIEW_AFTER, Event::Review { message });
            self.publish(node, message);
            return;
        }
    }

    /// Whether a node has not been up for long enough before `at`.
    fn is_too_young(&self, node: usize, at: u64) -> bool {
        let process = self.topology.nodes[node].process.as_ref();
        process.is_none_or(|process| {
            process.since > at || at - process.since < nanos(COUNTS_AFTER) && process.incarnation > 1
        })
    }

    /// Whether a node has left since.
    fn has_left_since(&self, node: usize, at: u64) -> bool {
        self.topology.nodes[node].process.as_ref().is_none_or(|process| process.since > at)
    }

    /// What a message of a node is made of.
    pub(super) fn new_message(&self, node: usize, topic: Topic, bytes: u32, verdict: MessageVerdict) -> New {
        let author = match node < self.settings.validators {
            true => Author::Authority(node as u32),
            false => Author::Peer(self.topology.nodes[node].peer),
        };
        let epoch = self.topology.nodes[node].epoch;
        New { topic, author, epoch, bytes, verdict, publisher: node, is_measured: false }
    }

    pub(super) fn publish(&mut self, node: usize, message: u32) {
        let record = self.messages.get(message);
        let (topic, info) = (record.topic, record.info);
        if let Some(process) = self.process(node) {
            process.note(message, HELD | ARRIVED | PUBLISHED);
        }
        self.tell(node, Input::Publish { topic, message: info });
    }

    /// Who is to get a message.
    fn is_receiver(&self, node: usize, topic: Topic) -> bool {
        topic != Topic::Consensus || self.settings.relays_consensus || node < self.settings.validators
    }

    pub(super) fn count_delivery(&mut self, node: usize, message: u32) {
        let now = self.now;
        let record = self.messages.get(message);
        let (at, topic, bytes) = (record.at, record.topic, record.info.bytes);
        let is_measured = record.is_measured && record.publisher != node;
        let phase = self.phase();
        phase.deliveries += 1;
        phase.delivered_bytes += u64::from(bytes);
        if is_measured && !self.is_too_young(node, at) && self.is_receiver(node, topic) {
            self.messages.get_mut(message).delays.push(((now - at) / 1_000) as u32);
        }
    }

    /// Counts the nodes that should have the message and do not.
    pub(super) fn review(&mut self, message: u32) {
        let record = self.messages.get(message);
        let (at, topic, publisher, is_measured) = (record.at, record.topic, record.publisher, record.is_measured);
        if !is_measured {
            return;
        }
        let lacks = |node: &usize| {
            let one = &self.topology.nodes[*node];
            let has = one.process.as_ref().is_some_and(|process| process.knows(message) & DELIVERED != 0);
            one.behaviour.is_none()
                && *node != publisher
                && !has
                && self.is_receiver(*node, topic)
                && !self.is_too_young(*node, at)
        };
        let lacking: Vec<_> = (0..self.topology.nodes.len()).filter(lacks).collect();
        let (missing, is_lost) = (lacking.len(), record.delays.is_empty() && self.has_left_since(publisher, at));
        let record = self.messages.get_mut(message);
        // What the publisher had sent to nobody when it left is lost, whatever the others do.
        (record.missing, record.is_measured) = (missing, !is_lost);
    }

    /// Counts what a frame costs and brings.
    pub(super) fn count_arrival(&mut self, node: usize, frame: &Frame) {
        if self.topology.nodes[node].behaviour.is_some() {
            return;
        }
        let payloads = self.messages.payloads(&frame.messages);
        let control = &frame.control;
        let Some(process) = &self.topology.nodes[node].process else { return };
        let again = frame.messages.iter().filter(|message| process.knows(**message) & ARRIVED != 0).count() as u64;
        let ids = control.have.len() + control.want.len() + control.do_not_send.len();
        let phase = self.phase();
        phase.bytes += frame.bytes;
        phase.payload_bytes += payloads;
        phase.messages += frame.messages.len() as u64;
        phase.duplicates += again;
        phase.ids += ids as u64;
    }

    /// Figures of the phase that the simulation is in.
    fn phase(&mut self) -> &mut Phase {
        match (self.is_measuring, self.is_finished) {
            (false, false) => &mut self.figures.warm_up,
            (true, _) => &mut self.figures.measured,
            (false, true) => &mut self.figures.drain,
        }
    }

    /// A first message that contradicts a second one.
    pub(super) fn equivocation(&mut self, node: usize, first: MessageId, second: MessageId) {
        let numbers = (self.messages.number(first), self.messages.number(second));
        let (Some(first), Some(second)) = numbers else { return };
        if self.topology.nodes[node].behaviour.is_some() {
            return;
        }
        let (one, other) = (self.messages.get(first), self.messages.get(second));
        if one.info.author != other.info.author || self.topology.nodes[one.publisher].behaviour.is_none() {
            self.figures.broken(format!("node {node} takes an honest author for one that equivocates"));
        }
        if !self.figures.equivocations.insert((node, first)) {
            self.figures.broken(format!("node {node} reports one equivocation twice"));
        }
    }
}
