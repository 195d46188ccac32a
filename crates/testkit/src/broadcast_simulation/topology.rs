//! Which nodes have links, and how long these are.

use super::{behaviour::Behaviour, event::Time, node::Node, settings::Settings};
use rand::{RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use soma_types::PeerId;
use std::collections::BTreeMap;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// Share of the links that both ends dial.
const DIALLED_TWICE: f64 = 0.2;

/// Honest nodes that the sybils surround.
const SURROUNDED: usize = 3;

/// A link between two nodes.
pub(super) struct Link {
    pub(super) nodes: [usize; 2],
    /// Which ends have dialled: only these may open streams.
    pub(super) dials: [bool; 2],
    pub(super) delay: Time,
    pub(super) is_up: bool,
    /// An end has banned the other one.
    pub(super) is_banned: bool,
    /// Counts how often it was lost.
    pub(super) generation: u32,
    pub(super) streams: Vec<usize>,
}

/// All nodes and links.
pub(super) struct Topology {
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    rng: ChaCha8Rng,
}

impl Topology {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let node = |rng: &mut ChaCha8Rng| Node {
            peer: PeerId(rng.random()),
            behaviour: None,
            links: BTreeMap::new(),
            epoch: 0,
            starts: 0,
            process: None,
        };
        let nodes = (0..settings.nodes).map(|_| node(&mut rng)).collect();
        let mut topology = Self { nodes, links: Vec::new(), rng };
        topology.corrupt(settings);
        for one in 0..settings.validators {
            for other in 0..one {
                topology.join(one, other, settings);
            }
        }
        for node in 0..settings.nodes {
            for _ in 0..settings.dials {
                topology.dial_anyone(node, settings);
            }
        }
        topology.surround(settings);
        topology
    }

    /// Chooses the hostile nodes: less than a third of the validators, and other nodes.
    fn corrupt(&mut self, settings: &Settings) {
        let of_validators = (settings.hostile * settings.validators / settings.nodes.max(1))
            .min(settings.validators.saturating_sub(1) / 3);
        let mut hostile = (0..settings.validators).sample(&mut self.rng, of_validators);
        let others = settings.hostile - of_validators;
        hostile.extend((settings.validators..settings.nodes).sample(&mut self.rng, others));
        let offset = self.rng.random_range(0..settings.behaviours.len().max(1));
        for (place, node) in hostile.into_iter().enumerate() {
            let behaviours = &settings.behaviours;
            self.nodes[node].behaviour = behaviours.get((place + offset) % behaviours.len().max(1)).copied();
        }
    }

    /// Every sybil has a link to each node that the sybils surround.
    fn surround(&mut self, settings: &Settings) {
        let sybils: Vec<_> =
            (0..settings.nodes).filter(|node| self.nodes[*node].behaviour == Some(Behaviour::Sybil)).collect();
        if sybils.is_empty() {
            return;
        }
        let honest = (settings.validators..settings.nodes).filter(|node| self.nodes[*node].behaviour.is_none());
        for victim in honest.sample(&mut self.rng, SURROUNDED) {
            for sybil in &sybils {
                self.join(*sybil, victim, settings);
            }
        }
    }

    /// Joins a node to another one that it has no link to.
    pub(super) fn dial_anyone(&mut self, node: usize, settings: &Settings) -> Option<usize> {
        for _ in 0..20 {
            let other = self.rng.random_range(0..settings.nodes);
            if let Some(link) = self.join(node, other, settings) {
                return Some(link);
            }
        }
        None
    }

    fn join(&mut self, from: usize, to: usize, settings: &Settings) -> Option<usize> {
        if from == to || self.nodes[from].links.contains_key(&to) {
            return None;
        }
        let delay = self.rng.random_range(settings.delay_ms.start() * MS..=settings.delay_ms.end() * MS);
        let both = self.rng.random_bool(DIALLED_TWICE);
        let link = self.links.len();
        self.links.push(Link {
            nodes: [from, to],
            dials: [true, both],
            delay,
            is_up: false,
            is_banned: false,
            generation: 0,
            streams: Vec::new(),
        });
        self.nodes[from].links.insert(to, link);
        self.nodes[to].links.insert(from, link);
        Some(link)
    }
}
