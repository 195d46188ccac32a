//! The settings of a simulation.

use std::{ops::RangeInclusive, time::Duration};

/// The nodes and the attacker of a simulation, and how they are configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Honest nodes, seeds included.
    pub nodes: usize,
    /// Number of seeds among the honest nodes. Every other node is configured with one seed, each seed with the next.
    pub seeds: usize,
    /// Identities of the attacker.
    pub attackers: usize,
    /// Number of /16 networks of the attacker.
    pub attacker_networks: usize,
    /// Number of /16 networks of the honest nodes.
    pub networks: usize,
    /// Discovery's interval.
    pub interval: Duration,
    /// Target number of outbound links per node.
    pub target_connections: usize,
    /// Latency of a message, in milliseconds.
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
