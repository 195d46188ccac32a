//! The discovery simulation: thousands of nodes find each other in one thread and in virtual time.
//!
//! ```text
//!   Settings + seed --> World: one queue of events, each at its time
//!      |- node x n     the real cores of Discovery and Connections; the world does the work of their shells
//!      |    `- disk    the address book: survives a crash
//!      |- attacker x m identities in a few networks: admit and dial every node, announce only each other
//!      `- network      an address for each, latency for each message
//! ```
//!
//! [`simulation`](crate::simulation) runs whole nodes and is too expensive for a thousand nodes.
//! This simulation has no chain, no signatures (a node info is taken as its owner made it) and no actors.
//! All randomness comes from the seed: two runs with equal settings are equal.

mod addresses;
mod attacker;
mod event;
mod graph;
mod network;
mod node;
mod progress;
mod run;
mod settings;
mod shells;
mod world;

pub use graph::Graph;
pub use progress::Progress;
pub use run::{Broken, Run};
pub use settings::Settings;
pub use world::World;
