//! Connections: dials peers, admits callers, and announces links to other actors.
//!
//! ```text
//!   Dial --> core --> dial task (transport, chain handshake) --> registry of live links, PeerChanged to subscribers
//!   transport --InboundArrived--> core --> admitted or not
//! ```
//!
//! Dials run as tasks, so a dead address delays no other dial. Only this actor writes the registry of live links.

mod dial;
mod links;
pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use dial::Settings;
pub use links::{LinkRegistry, Links};
pub use shell::Connections;
