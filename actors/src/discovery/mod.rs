//! Discovery: finds peers by gossip of signed node infos.
//!
//! Infos are checked on the CPU pool before the core sees them; this node's own is signed here, where the key is,
//! and nobody else's ever is.

pub mod messages;
mod metrics;
mod shell;
mod stored;
mod verified_info_cache;
pub mod wiring;

pub use shell::{Discovery, Settings};
