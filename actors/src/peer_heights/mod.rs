//! PeerHeights: knows the heights and the standing of peers, picks peers, announces commits to peers.

pub mod messages;
mod metrics;
mod push_times;
mod shell;
pub mod wiring;

pub use shell::{PeerHeights, Settings};
