//! The key and the address of each node.

use crate::{address_of, simulation::names::NodeName};
use soma_p2p::{PeerId, SeedPeer, SigningKey};
use std::net::SocketAddr;

pub(super) fn part_and_number(name: NodeName) -> (u8, u64) {
    match name {
        NodeName::Validator(number) => (0, u64::from(number)),
        // Behind all validators there can be.
        NodeName::Full(number) => (1, 500 + u64::from(number)),
    }
}

/// How others know a node.
pub(super) fn peer_id(name: NodeName) -> PeerId {
    PeerId::from(&key(name))
}

/// A node's network key.
pub(super) fn key(name: NodeName) -> SigningKey {
    let (part, number) = part_and_number(name);
    let mut bytes = [part + 1; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&bytes)
}

/// Where a node listens: on a port of its own.
pub(super) fn address(name: NodeName) -> SocketAddr {
    let (part, number) = part_and_number(name);
    SocketAddr::from(([10, part, (number >> 8) as u8, number as u8], 9_000))
}

/// The address for seed lists.
pub(super) fn seed_peer(name: NodeName) -> SeedPeer {
    SeedPeer { peer_id: PeerId::from(&key(name)), address: address_of(address(name)) }
}
