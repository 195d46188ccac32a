//! Runs the nodes: passes inputs to their cores, and carries out effects as the shell would.

use super::{
    event::{End, Event, nanos},
    frame::Frame,
    node::{ACCEPTED, ARRIVED, DELIVERED, HELD, PUBLISHED},
    stream::{MAX_UNTAKEN, Stream, StreamEnd, StreamId, WINDOW},
    world::World,
};
use soma_protocol::{
    Core,
    broadcast::{Control, Effect, Input, StreamKey},
};
use soma_types::{Fault, MessageId, PeerId, Topic};
use std::collections::VecDeque;

impl World {
    /// Passes inputs to a node's core and carries out the effects, until no input is left.
    pub(super) fn tell(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.clock();
            let Some(process) = self.process(node) else { return };
            let effects = process.core.handle(now, input);
            self.figures.note(self.now, node, &effects);
            for effect in effects {
                self.carry_out(node, effect, &mut inputs);
            }
        }
        self.wake_later(node);
    }

    fn wake_later(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        let Some(at) = process.core.next_wake().map(|at| nanos(at).max(now)) else { return };
        if process.wake.is_none_or(|set| at < set) {
            process.wake = Some(at);
            let incarnation = process.incarnation;
            self.events.put(at, Event::Wake { node, incarnation });
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::Open { stream, peer, topic } => {
                if !self.open(node, stream, peer, topic) {
                    inputs.push_back(Input::Closed { stream, fault: None, is_unsupported: false });
                }
            }
            Effect::Close { stream } => self.close(node, stream),
            Effect::Send { stream, messages, control } => self.send(node, stream, &messages, control),
            Effect::Check { check, messages, signatures, .. } => self.check(node, check, &messages, signatures),
            Effect::Taken { frame } => {
                let Some((stream, end)) = self.process(node).and_then(|process| process.untaken.remove(&frame)) else {
                    self.figures.broken(format!("node {node} takes frame {frame}, which it does not have"));
                    return;
                };
                let end_state = &mut self.streams[stream].ends[usize::from(end)];
                end_state.untaken -= 1;
                if let Some(next) = end_state.unread.pop_front() {
                    inputs.extend(self.read(stream, end, next));
                }
            }
            Effect::Deliver { messages, .. } => {
                for id in messages {
                    self.deliver(node, id);
                }
            }
            Effect::Equivocation { first, second, .. } => self.equivocation(node, first, second),
            Effect::Forget { messages } => {
                for id in messages {
                    let number = self.messages.number(id);
                    if let (Some(number), Some(process)) = (number, self.process(node)) {
                        process.forget(number);
                    }
                }
            }
            Effect::Report { peer, fault, reason } => self.report(node, peer, fault, &reason),
        }
    }

    /// Returns false if there is no connection to open it on.
    fn open(&mut self, node: usize, key: StreamKey, peer: PeerId, topic: Topic) -> bool {
        let Some(other) = self.by_peer.get(&peer).copied() else { return false };
        let Some(number) = self.topology.nodes[node].links.get(&other).copied() else { return false };
        let stream = self.streams.len();
        let Some(process) = self.process(node) else { return false };
        if !process.connected.contains(&number) {
            return false;
        }
        process.name_stream(key, (stream, 0));
        let link = &mut self.topology.links[number];
        if !link.is_up {
            return false;
        }
        link.streams.push(stream);
        let ends = [StreamEnd::new(node, Some(key)), StreamEnd::new(other, None)];
        let at = self.now + link.delay;
        self.streams.push(Stream { link: number, topic, is_dead: false, ends });
        self.events.put(at, Event::Offered { stream });
        true
    }

    /// A peer opens a stream: this end answers, and has it.
    pub(super) fn offered(&mut self, stream: StreamId) {
        let Stream { link, is_dead, ends, .. } = &mut self.streams[stream];
        let node = ends[1].node;
        let Some(process) = &mut self.topology.nodes[node].process else { return };
        if *is_dead {
            return;
        }
        let key = process.next_key();
        process.name_stream(key, (stream, 1));
        ends[1].key = Some(key);
        let at = self.now + self.topology.links[*link].delay;
        self.events.put(at, Event::Ready { stream });
        self.opened(stream, 1);
    }

    /// The hello of the other end has arrived.
    pub(super) fn opened(&mut self, id: StreamId, end: End) {
        let stream = &mut self.streams[id];
        if !stream.can_send(end) {
            return;
        }
        let peer = self.topology.nodes[stream.ends[usize::from(1 - end)].node].peer;
        let mine = &mut stream.ends[usize::from(end)];
        let (node, topic, Some(key)) = (mine.node, stream.topic, mine.key) else { return };
        mine.is_open = true;
        let max_message_bytes = super::node::MAX_MESSAGE_BYTES;
        self.tell(node, Input::Opened { stream: key, peer, topic, by_us: end == 0, max_message_bytes });
    }

    fn close(&mut self, node: usize, key: StreamKey) {
        let Some((id, end)) = self.process(node).and_then(|process| process.stream(key)) else { return };
        let stream = &mut self.streams[id];
        if !stream.can_send(end) {
            return;
        }
        stream.ends[usize::from(end)].end();
        let at = self.now + self.topology.links[stream.link].delay;
        self.events.put(at, Event::Ended { stream: id, end: Stream::other(end) });
    }

    /// The other end has ended the stream.
    pub(super) fn ended(&mut self, stream: StreamId, end: End) {
        if !self.streams[stream].is_dead {
            self.close_end(stream, end);
        }
    }

    /// Ends a stream at one end, and tells the core.
    pub(super) fn close_end(&mut self, stream: StreamId, end: End) {
        let mine = &mut self.streams[stream].ends[usize::from(end)];
        let (node, Some(key), false) = (mine.node, mine.key, mine.is_over) else { return };
        mine.end();
        self.tell(node, Input::Closed { stream: key, fault: None, is_unsupported: false });
    }

    fn send(&mut self, node: usize, key: StreamKey, messages: &[MessageId], control: Control) {
        let Some((id, end)) = self.process(node).and_then(|process| process.stream(key)) else {
            self.figures.broken(format!("node {node} sends over {key:?}, which it does not have"));
            return;
        };
        if !self.streams[id].can_send(end) {
            return;
        }
        if !self.streams[id].ends[usize::from(end)].is_open {
            self.figures.broken(format!("node {node} sends over {key:?} before it is open"));
        }
        let mut numbers = Vec::with_capacity(messages.len());
        for message in messages {
            let number = self.messages.number(*message);
            match number.filter(|number| self.process(node).is_some_and(|one| one.knows(*number) & HELD != 0)) {
                Some(number) => numbers.push(number),
                None => self.figures.broken(format!("node {node} sends {message}, which it does not have")),
            }
        }
        let frame = Frame::new(numbers, control, 0);
        let payloads = self.messages.payloads(&frame.messages);
        let bytes = frame.bytes + payloads;
        let frame = Frame { bytes, counted: bytes, ..frame };
        let stream = &mut self.streams[id];
        let mine = &mut stream.ends[usize::from(end)];
        mine.queued += frame.bytes;
        self.figures.longest_queue[stream.topic as usize] =
            self.figures.longest_queue[stream.topic as usize].max(mine.queued);
        match self.topology.nodes[node].behaviour {
            Some(behaviour) => self.send_hostile(behaviour, id, end, frame),
            None => self.upload(id, end, frame),
        }
    }

    /// A frame arrives.
    pub(super) fn arrive(&mut self, stream: StreamId, end: End, frame: Frame) {
        let Stream { is_dead, ends, .. } = &mut self.streams[stream];
        let mine = &mut ends[usize::from(end)];
        let node = mine.node;
        if *is_dead || mine.is_over || frame.is_empty() {
            return;
        }
        self.count_arrival(node, &frame);
        let does_not_read = self.does_not_read(node);
        let mine = &mut self.streams[stream].ends[usize::from(end)];
        if mine.untaken >= MAX_UNTAKEN || does_not_read {
            mine.unread.push_back(frame);
            return;
        }
        if let Some(input) = self.read(stream, end, frame) {
            self.tell(node, input);
        }
    }

    /// The shell reads a frame.
    fn read(&mut self, id: StreamId, end: End, frame: Frame) -> Option<Input> {
        let stream = &mut self.streams[id];
        let mine = &mut stream.ends[usize::from(end)];
        let (node, key) = (mine.node, mine.key?);
        mine.untaken += 1;
        mine.consumed += frame.bytes;
        if mine.consumed >= WINDOW / 2 {
            let bytes = std::mem::take(&mut mine.consumed);
            let at = self.now + self.topology.links[stream.link].delay;
            self.events.put(at, Event::Credit { stream: id, end: Stream::other(end), bytes });
        }
        let process = self.topology.nodes[node].process.as_mut()?;
        process.last_frame += 1;
        let number = process.last_frame;
        process.untaken.insert(number, (id, end));
        frame.messages.iter().for_each(|message| process.note(*message, HELD | ARRIVED));
        let messages = frame.messages.iter().map(|message| self.messages.get(*message).info).collect();
        Some(Input::Received { stream: key, frame: number, messages, control: frame.control })
    }

    fn check(&mut self, node: usize, check: u64, ids: &[MessageId], signatures: bool) {
        let messages: Vec<_> = ids.iter().filter_map(|id| self.messages.number(*id)).collect();
        let cost = nanos(self.settings.check_cost) * if signatures { messages.len() as u64 } else { 0 };
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        if messages.iter().any(|message| process.knows(*message) & HELD == 0) {
            self.figures.broken(format!("node {node} checks a message that it does not have"));
            return;
        }
        let Some(thread) = process.threads.iter_mut().min() else { return };
        let at = now.max(*thread) + cost;
        *thread = at;
        let incarnation = process.incarnation;
        self.events.put(at, Event::Checked { node, incarnation, check, messages });
    }

    pub(super) fn checked(&mut self, node: usize, check: u64, messages: &[u32]) {
        let verdicts: Vec<_> = messages.iter().map(|message| self.messages.get(*message).verdict).collect();
        if let Some(process) = self.process(node) {
            messages.iter().for_each(|message| process.note(*message, ACCEPTED));
        }
        self.tell(node, Input::Checked { check, verdicts: Some(verdicts) });
    }

    fn deliver(&mut self, node: usize, id: MessageId) {
        let Some(number) = self.messages.number(id) else { return };
        let record = self.messages.get(number);
        if self.topology.nodes[node].behaviour.is_some() {
            return;
        }
        let is_accepted = matches!(record.verdict, soma_protocol::broadcast::MessageVerdict::Accept { .. });
        let Some(process) = &mut self.topology.nodes[node].process else { return };
        let flags = process.knows(number);
        process.note(number, DELIVERED);
        if flags & (DELIVERED | PUBLISHED) != 0 {
            self.figures.broken(format!("node {node} delivers {id} twice"));
            return;
        }
        if flags & HELD == 0 || flags & ACCEPTED == 0 || !is_accepted {
            self.figures.broken(format!("node {node} delivers {id}, which was not accepted"));
        }
        self.count_delivery(node, number);
    }

    fn report(&mut self, node: usize, peer: PeerId, fault: Fault, reason: &str) {
        let Some(other) = self.by_peer.get(&peer).copied() else { return };
        if self.topology.nodes[node].behaviour.is_some() {
            return;
        }
        match self.topology.nodes[other].behaviour {
            Some(behaviour) => self.figures.penalty(behaviour, fault),
            None => {
                let at = self.clock().monotonic;
                self.figures.wrong_penalties += 1;
                self.figures.broken(format!("{at:?}: node {node} blames honest node {other}: {fault:?}, {reason}"));
            }
        }
        if fault.bans() {
            self.ban(node, other);
        }
    }

    /// Ends the link to a peer for good. The node dials another one later.
    fn ban(&mut self, node: usize, other: usize) {
        let Some(link) = self.topology.nodes[node].links.get(&other).copied() else { return };
        if !self.topology.links[link].is_banned {
            self.topology.links[link].is_banned = true;
            self.break_link(link);
            if let Some(link) = self.topology.dial_anyone(node, &self.settings) {
                self.dial_soon(link, 1_000..5_000);
            }
        }
    }
}
