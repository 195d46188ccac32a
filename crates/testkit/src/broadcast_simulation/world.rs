//! All nodes, the links and streams between them, and the queue of events.

use super::{
    event::{Event, Queue, Time, nanos},
    figures::Figures,
    messages::Messages,
    node::Process,
    settings::Settings,
    stream::Stream,
    topology::Topology,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_protocol::{Now, broadcast::Input};
use soma_types::{Epoch, PeerId, TimestampMs};
use std::{collections::BTreeMap, time::Duration};

/// Wall clock at the start.
const START_MS: TimestampMs = 1_700_000_000_000;

/// The epoch at the start: there are epochs that are long over.
const FIRST_EPOCH: Epoch = 5;

/// Time in which all nodes start and connect, before any load.
pub(super) const SETTLE: Duration = Duration::from_secs(4);

/// Time after the last message, in which all must be delivered.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// All nodes, the network between them, and the time.
pub struct World {
    pub(super) settings: Settings,
    pub(super) now: Time,
    pub(super) events: Queue,
    pub(super) topology: Topology,
    pub(super) by_peer: BTreeMap<PeerId, usize>,
    pub(super) streams: Vec<Stream>,
    pub(super) messages: Messages,
    pub(super) figures: Figures,
    pub(super) epoch: Epoch,
    pub(super) is_measuring: bool,
    pub(super) is_finished: bool,
    /// A generator for each purpose, so that hostile nodes do not change what honest ones publish.
    pub(super) random: Random,
}

/// Sources of randomness.
pub(super) struct Random {
    pub(super) nodes: ChaCha8Rng,
    pub(super) loads: ChaCha8Rng,
    pub(super) unrest: ChaCha8Rng,
    pub(super) attacks: ChaCha8Rng,
}

impl World {
    /// A world in which all nodes are about to start.
    pub fn new(settings: Settings) -> Self {
        let topology = Topology::new(&settings);
        let by_peer = topology.nodes.iter().enumerate().map(|(number, node)| (node.peer, number)).collect();
        let stream = |number| {
            let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
            rng.set_stream(number);
            rng
        };
        let random = Random { nodes: stream(1), loads: stream(2), unrest: stream(3), attacks: stream(4) };
        let mut world = Self {
            now: 0,
            events: Queue::default(),
            by_peer,
            topology,
            streams: Vec::new(),
            messages: Messages::default(),
            figures: Figures::default(),
            epoch: FIRST_EPOCH,
            is_measuring: false,
            is_finished: false,
            random,
            settings,
        };
        world.plan();
        world
    }

    /// Queues the first event of each kind.
    fn plan(&mut self) {
        for node in 0..self.topology.nodes.len() {
            let at = self.random.nodes.random_range(0..nanos(Duration::from_secs(1)));
            if !(self.settings.hostile_absent && self.topology.nodes[node].behaviour.is_some()) {
                self.events.put(at, Event::Start { node });
            }
        }
        for load in 0..self.settings.loads.len() {
            self.events.put(nanos(SETTLE), Event::Publish { load });
        }
        let measure = SETTLE + self.settings.warm_up;
        let finish = measure + self.settings.measured;
        self.events.put(nanos(measure), Event::Measure);
        self.events.put(nanos(finish), Event::Finish);
        if let Some(every) = self.settings.epoch_every {
            for handover in 1.. {
                let at = SETTLE + every * handover;
                if at >= finish {
                    break;
                }
                for node in 0..self.topology.nodes.len() {
                    let late = self.random.nodes.random_range(0..nanos(Duration::from_secs(1)));
                    self.events
                        .put(nanos(at) + late, Event::Handover { node, epoch: FIRST_EPOCH + Epoch::from(handover) });
                }
            }
        }
        if self.settings.unrest.is_some() {
            self.events.put(nanos(SETTLE), Event::Leave);
            self.events.put(nanos(SETTLE), Event::Break);
        }
    }

    /// Plays everything.
    pub(super) fn run(&mut self) {
        let end = SETTLE + self.settings.warm_up + self.settings.measured + DRAIN;
        while let Some((at, event)) = self.events.next(nanos(end)) {
            self.now = at;
            self.happen(event);
        }
        self.now = nanos(end);
    }

    fn happen(&mut self, event: Event) {
        self.figures.events += 1;
        match event {
            Event::Start { node } => self.start(node),
            Event::Handover { node, epoch } => {
                self.epoch = self.epoch.max(epoch);
                self.topology.nodes[node].epoch = epoch;
                self.tell_committee(node);
            }
            Event::Wake { node, incarnation } => {
                if self.is_current(node, incarnation)
                    && let Some(process) = &mut self.topology.nodes[node].process
                {
                    if process.wake == Some(self.now) {
                        process.wake = None;
                    }
                    self.report_all_written(node);
                    self.tell(node, Input::Wake);
                }
            }
            Event::Connect { link, generation } => self.connect(link, generation),
            Event::Connected { link, generation, end } => self.connected(link, generation, end),
            Event::Lost { link, end, streams } => self.lost(link, end, streams),
            Event::Offered { stream } => self.offered(stream),
            Event::Ready { stream } => self.opened(stream, 0),
            Event::Ended { stream, end } => self.ended(stream, end),
            Event::Uploaded { node, incarnation } => {
                if self.is_current(node, incarnation) {
                    self.uploaded(node);
                }
            }
            Event::Arrive { stream, end, frame } => self.arrive(stream, end, *frame),
            Event::Credit { stream, end, bytes } => self.credited(stream, end, bytes),
            Event::Checked { node, incarnation, check, messages } => {
                if self.is_current(node, incarnation) {
                    self.checked(node, check, &messages);
                }
            }
            Event::Publish { load } => self.publish_next(load),
            Event::Review { message } => self.review(message),
            Event::Attack { node } => self.attack(node),
            Event::Leave => self.leave_next(),
            Event::Break => self.break_next(),
            Event::Measure => self.is_measuring = true,
            Event::Finish => {
                self.is_measuring = false;
                self.is_finished = true;
            }
        }
    }

    pub(super) fn clock(&self) -> Now {
        Now { monotonic: Duration::from_nanos(self.now), unix_ms: START_MS + self.now / 1_000_000 }
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.events.put(self.now + nanos(wait), event);
    }

    pub(super) fn is_current(&self, node: usize, incarnation: u32) -> bool {
        self.topology.nodes[node].process.as_ref().is_some_and(|process| process.incarnation == incarnation)
    }

    pub(super) fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.topology.nodes[node].process.as_mut()
    }

    fn start(&mut self, node: usize) {
        let seed = self.random.nodes.random();
        let now = self.now;
        let one = &mut self.topology.nodes[node];
        if one.process.is_some() {
            return;
        }
        one.starts += 1;
        one.epoch = one.epoch.max(self.epoch);
        one.process = Some(Process::new(one, &self.settings, seed, now));
        let links: Vec<_> = one.links.values().copied().collect();
        let is_hostile = one.behaviour.is_some();
        self.tell(node, Input::Wake);
        self.tell_committee(node);
        for link in links {
            self.dial_soon(link, 100..1_500);
        }
        if is_hostile {
            self.after(SETTLE, Event::Attack { node });
        }
    }

    fn tell_committee(&mut self, node: usize) {
        let validators = self.topology.nodes[..self.settings.validators].iter().map(|node| node.peer).collect();
        let epoch = self.topology.nodes[node].epoch;
        let is_validator = node < self.settings.validators;
        self.tell(node, Input::Committee { epoch, validators, is_validator });
    }
}
