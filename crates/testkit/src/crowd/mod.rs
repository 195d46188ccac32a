//! Thousands of nodes that find each other, in one thread and in virtual time.
//!
//! ```text
//!   Settings + seed --> World: one queue of events, each at its time
//!      |- node x n     the real cores of Discovery and Connections; what their shells do, the world does
//!      |    `- disk    the address book: survives a crash
//!      |- attacker x m identities in a few networks: let everybody in, connect to everybody, tell only of one another
//!      `- network      an address for each, latency for each message
//! ```
//!
//! The whole nodes of [`simulation`](crate::simulation) are more real, and too large for a thousand of them: here are
//! no chain, no signatures (an info is as its owner made it) and no actors. Everything random comes from the seed: two runs with
//! equal settings are equal.

mod attacker;
mod graph;
mod node;
mod run;
mod world;

pub use graph::Graph;
pub use run::{Broken, Run};
pub use world::World;

use std::{ops::RangeInclusive, time::Duration};

/// Who is there, and how they are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Honest nodes, seeds among them.
    pub nodes: usize,
    /// How many of them are seeds. Every other node is configured with one of them, each seed with the next one.
    pub seeds: usize,
    /// Identities of the attacker.
    pub attackers: usize,
    /// In how many networks of 16 bits they are.
    pub attacker_networks: usize,
    /// In how many networks of 16 bits the honest nodes are.
    pub networks: usize,
    /// Discovery's interval.
    pub interval: Duration,
    /// How many links each node wants.
    pub target_connections: usize,
    /// What a message takes, in milliseconds.
    pub latency_ms: RangeInclusive<u64>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Settings {
    /// A thousand nodes with default configuration, in 400 networks.
    fn default() -> Self {
        Self {
            nodes: 1_000,
            seeds: 3,
            attackers: 0,
            attacker_networks: 2,
            networks: 400,
            interval: Duration::from_secs(5),
            target_connections: 20,
            latency_ms: 10..=100,
            seed: 1,
        }
    }
}

/// How far the honest nodes that are up have got.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Virtual time.
    pub at: Duration,
    /// Nodes that are up.
    pub up: usize,
    /// Of the other honest nodes, those that are down included: what the node that knows fewest knows, in percent.
    pub known_least: f64,
    /// The same of all nodes on average.
    pub known_mean: f64,
    /// Links of the node that has fewest.
    pub links_least: usize,
    /// The same on average.
    pub links_mean: f64,
    /// Nodes that have as many links as they want.
    pub at_target: usize,
    /// Most links that any node has to the attacker.
    pub attacker_links_most: usize,
    /// Fewest links of a node to honest peers.
    pub honest_least: usize,
    /// Parts that the graph of the honest nodes that are up falls into; 1: it is connected.
    pub parts: usize,
    /// Most hops between two of them in one part.
    pub diameter: usize,
}
