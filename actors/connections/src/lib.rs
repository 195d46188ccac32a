//! Connections: dials peers, admits those who dial us, and tells the others who is connected.
//!
//! ```text
//!   Dial --> core --> dial task (transport, chain handshake) --> registry of live links, PeerChanged to subscribers
//!   transport --InboundArrived--> core --> admitted or not
//! ```
//!
//! Dials run as tasks: a dead address delays nobody. The registry of live links is written here and nowhere else.

#![deny(missing_docs)]

mod actor;
mod dial;
mod metrics;

pub use actor::{Connections, Settings, Wiring};
