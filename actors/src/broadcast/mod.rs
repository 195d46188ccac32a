//! Broadcast: spreads messages among nodes, and hands them to the embedder.
//!
//! ```text
//!   Publish ------------> core --Send--> queue of a stream --> writing task --> peer
//!   peer --> reading task --FrameArrived--> core --Check--> Verifier
//!                                           core <--verdicts--'
//!                                           core --Deliver--> queues of readers
//! ```
//!
//! The core decides with ids and sizes. The shell holds the messages under their ids, until the core forgets them.

pub mod messages;
mod metrics;
mod shell;
mod stream;
pub mod wiring;

pub use shell::{Broadcast, Publisher};
