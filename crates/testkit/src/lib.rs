//! For tests, localnet and benchmarks: a deterministic builder of valid chains, ways to break what it makes, and peers
//! that misbehave.
//!
//! The builder plays all authorities of a consensus: it makes a block DAG as they would, commits it, and hands over
//! from epoch to epoch. Equal specs make equal bytes.

#![deny(missing_docs)]

mod chain;
#[cfg(feature = "command")]
pub mod command;
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

pub use chain::{ChainBuilder, ChainSpec, Payload, SpecError};
pub use kinds::BlockKind;
pub use live::LiveSource;

use bytes::Bytes;
use soma_types::Address;
use std::net::SocketAddr;

/// How peers are told of a socket that listens.
pub fn address_of(socket: SocketAddr) -> Address {
    Address::try_from(socket).expect("a port that is not 0")
}

/// The same bytes with one bit flipped; `bit` counts over all bytes and wraps around.
pub fn flip_bit(bytes: &[u8], bit: usize) -> Bytes {
    let mut flipped = bytes.to_vec();
    let bits = flipped.len() * 8;
    if bits > 0 {
        let bit = bit % bits;
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    flipped.into()
}
