//! Discovery: finds peers by gossip of signed node infos.
//!
//! Infos are checked on the CPU pool before the core sees them; this node's own is signed here, where the key is,
//! and nobody else's ever is.

#![deny(missing_docs)]

mod actor;
mod checked;
mod metrics;
mod stored;

pub use actor::{Discovery, Settings, Wiring};
