//! The pure cores of the actors: all state, all decisions, and nothing else.
//!
//! ```text
//!   message --> shell (actors/src/NAME) --Input--> core (here) --Effect--> shell --> messages, calls, disk, timers
//! ```
//!
//! A core is a plain value. Time and randomness come in ([`Now`], a seed in its configuration), bulk bytes stay in
//! the shell under a key, and nothing here can wait, fail halfway or be called twice at once. So the same inputs
//! always give the same effects, which is what replay and simulation build on. The crate depends on no runtime and
//! `make lint` keeps it so.

#![deny(missing_docs)]

pub mod archiver;
mod backoff;
pub mod broadcast;
mod chosen_peers;
pub mod connections;
mod core;
pub mod discovery;
pub mod grpc_adapter;
pub mod objects;
pub mod peer_heights;
pub mod state_sync;
pub mod store_writer;
pub mod verifier;

pub use crate::backoff::Backoff;
pub use crate::chosen_peers::ChosenPeers;
pub use crate::core::{Core, LostReason, Now, Opaque, PeerEvent};
