//! Links: how they come up, and how they break.

use super::{
    event::{End, Event, StreamId},
    world::World,
};
use rand::RngExt;
use soma_protocol::{LostReason, PeerEvent, broadcast::Input};
use std::{ops::Range, time::Duration};

impl World {
    /// Dials a link after a while, in milliseconds.
    pub(super) fn dial_soon(&mut self, link: usize, wait_ms: Range<u64>) {
        let generation = self.topology.links[link].generation;
        let wait = self.random.nodes.random_range(wait_ms);
        self.after(Duration::from_millis(wait), Event::Connect { link, generation });
    }

    pub(super) fn connect(&mut self, number: usize, generation: u32) {
        let link = &mut self.topology.links[number];
        let are_up = link.nodes.iter().all(|node| self.topology.nodes[*node].process.is_some());
        if link.generation != generation || link.is_up || link.is_banned || !are_up {
            return;
        }
        link.is_up = true;
        let dials = link.dials;
        for end in [0, 1] {
            if dials[usize::from(end)] {
                // The second connection comes a little later.
                let wait = Duration::from_millis(200 * u64::from(end));
                self.after(wait, Event::Connected { link: number, generation, end });
            }
        }
    }

    pub(super) fn connected(&mut self, number: usize, generation: u32, end: End) {
        let link = &self.topology.links[number];
        if !link.is_up || link.generation != generation {
            return;
        }
        let (node, other) = (link.nodes[usize::from(end)], link.nodes[usize::from(1 - end)]);
        let peer = self.topology.nodes[other].peer;
        if self.process(node).is_some_and(|process| process.connected.insert(number)) {
            self.tell(node, Input::Peer(PeerEvent::Connected(peer)));
        }
    }

    /// Ends a link: nothing in flight arrives. Both ends notice within the delay of the link.
    pub(super) fn break_link(&mut self, number: usize) {
        let link = &mut self.topology.links[number];
        if !link.is_up {
            return;
        }
        link.is_up = false;
        link.generation += 1;
        let delay = link.delay;
        let streams = std::mem::take(&mut link.streams);
        for stream in &streams {
            self.streams[*stream].is_dead = true;
        }
        for end in [0, 1] {
            let at = self.now + self.random.unrest.random_range(0..=delay);
            self.events.put(at, Event::Lost { link: number, end, streams: streams.clone() });
        }
    }

    pub(super) fn lost(&mut self, number: usize, end: End, streams: Vec<StreamId>) {
        let link = &self.topology.links[number];
        let (node, other) = (link.nodes[usize::from(end)], link.nodes[usize::from(1 - end)]);
        let reason = if link.is_banned { LostReason::Banned } else { LostReason::Closed };
        let peer = self.topology.nodes[other].peer;
        for stream in streams {
            let side = self.streams[stream].ends.iter().position(|one| one.node == node);
            if let Some(side) = side {
                self.close_end(stream, side as End);
            }
        }
        if self.process(node).is_some_and(|process| process.connected.remove(&number)) {
            self.tell(node, Input::Peer(PeerEvent::Lost { peer, reason }));
        }
    }
}
