//! For tests, localnet and benchmarks: a deterministic builder of valid chains, ways to break what it makes, and peers
//! that misbehave.
//!
//! The builder plays all authorities of a consensus: it makes a block DAG as they would, commits it, and hands over
//! from epoch to epoch. Equal specs make equal bytes.

#![deny(missing_docs)]

mod address;
#[cfg(feature = "simulation")]
pub mod broadcast_simulation;
mod chain;
mod chain_spec;
#[cfg(feature = "command")]
pub mod command;
mod damage;
#[cfg(feature = "decoders")]
pub mod decoders;
#[cfg(feature = "simulation")]
pub mod discovery_simulation;
#[cfg(feature = "simulation")]
pub mod hostile;
mod keys;
mod kinds;
mod live;
#[cfg(feature = "simulation")]
pub mod simulation;
mod users;

pub use address::address_of;
pub use chain::{ChainBuilder, SpecError};
pub use chain_spec::{ChainSpec, Payload};
pub use damage::flip_bit;
pub use kinds::BlockKind;
pub use live::LiveSource;
pub use users::Users;
