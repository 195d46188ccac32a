//! Connections: dials peers, admits those who dial us, and tells the others who is connected.
//!
//! ```text
//!   Dial --> core --> dial task (transport, chain handshake) --> registry of live links, PeerChanged to subscribers
//!   transport --InboundArrived--> core --> admitted or not
//! ```
//!
//! Dials run as tasks: a dead address delays nobody. The registry of live links is written here and nowhere else.

mod dial;
mod links;
pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use dial::Settings;
pub use links::{LinkRegistry, Links};
pub use shell::Connections;
