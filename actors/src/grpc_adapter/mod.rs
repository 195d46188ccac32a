//! GrpcAdapter: translates calls of peers into actor messages, and answers from the store.
//!
//! ```text
//!   transport --call--> Service --CallArrived--> actor (admission) --> permit
//!                          |                                             |
//!                          +--> Discovery, PeerHeights, or the store ----+--> answer; the permit's end is noticed
//! ```
//!
//! The actor decides which calls are answered; the service answers them, each in its own task, so that a slow reader
//! delays no other. Reads of the store run on blocking threads and never wait for the writer.

mod call_flows;
mod gate;
pub mod messages;
mod metrics;
mod object_answer;
mod service;
mod shell;
pub mod wiring;

pub use gate::InboundGate;
pub use service::{READ_BYTES, Service};
pub use shell::GrpcAdapter;
