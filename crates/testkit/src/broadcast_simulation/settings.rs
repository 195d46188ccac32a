//! The settings of a simulation.

use super::behaviour::Behaviour;
use soma_types::Topic;
use std::{ops::RangeInclusive, time::Duration};

/// The nodes, the network between them, and what they publish.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All nodes, validators and hostile ones included.
    pub nodes: usize,
    /// The validators: each has a link to each other one.
    pub validators: usize,
    /// Links that each node dials at random. A node is dialled as often, on average.
    pub dials: usize,
    /// One-way delay of a link, in milliseconds.
    pub delay_ms: RangeInclusive<u64>,
    /// Bits that a node uploads in a second.
    pub upload: u64,
    /// CPU time to check one message.
    pub check_cost: Duration,
    /// Threads of a node that check messages.
    pub check_threads: usize,
    /// What is published.
    pub loads: Vec<Load>,
    /// Time of the loads before anything is measured.
    pub warm_up: Duration,
    /// Time of the loads that is measured.
    pub measured: Duration,
    /// Nodes and links that fail.
    pub unrest: Option<Unrest>,
    /// Hostile nodes, and what each does in turn.
    pub hostile: usize,
    /// What the hostile nodes do. Each node has one of these behaviours.
    pub behaviours: Vec<Behaviour>,
    /// Whether the hostile nodes stay down, to measure what the others do without them.
    pub hostile_absent: bool,
    /// Whether validators send messages of the topic `consensus` on to full nodes.
    pub relays_consensus: bool,
    /// Time between two epochs; none: there is one epoch only.
    pub epoch_every: Option<Duration>,
    /// Seed of everything random.
    pub seed: u64,
}

/// Messages of one kind, published by nodes at random.
#[derive(Clone, Debug)]
pub struct Load {
    /// The topic.
    pub topic: Topic,
    /// Bytes of a payload.
    pub payload: u32,
    /// Messages per second of all nodes together.
    pub per_second: f64,
    /// Whether only validators publish.
    pub by_validators: bool,
    /// Whether each message fills a slot of its author, like a proposal.
    pub has_slots: bool,
}

/// How often nodes and links fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Unrest {
    /// Share of the nodes that leave in a minute.
    pub leaves_per_minute: f64,
    /// How long a node is away, in seconds.
    pub away_s: RangeInclusive<u64>,
    /// How often each link breaks in a minute.
    pub breaks_per_minute: f64,
}

impl Default for Unrest {
    /// A tenth of the nodes leaves in a minute, and each link breaks every ten minutes.
    fn default() -> Self {
        Self { leaves_per_minute: 0.1, away_s: 3..=20, breaks_per_minute: 0.1 }
    }
}

impl Default for Settings {
    /// A thousand nodes, 100 of them validators, without a load.
    fn default() -> Self {
        Self {
            nodes: 1_000,
            validators: 100,
            dials: 10,
            delay_ms: 20..=150,
            upload: 50_000_000,
            check_cost: Duration::from_micros(20),
            check_threads: 2,
            loads: Vec::new(),
            warm_up: Duration::from_secs(10),
            measured: Duration::from_secs(60),
            unrest: None,
            hostile: 0,
            behaviours: Behaviour::ALL.to_vec(),
            hostile_absent: false,
            relays_consensus: false,
            epoch_every: None,
            seed: 1,
        }
    }
}

impl Settings {
    /// Mean one-way delay of a link.
    pub fn mean_delay(&self) -> Duration {
        Duration::from_micros((self.delay_ms.start() + self.delay_ms.end()) * 500)
    }
}
