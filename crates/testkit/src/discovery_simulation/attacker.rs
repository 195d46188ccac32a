//! The identities of one attacker.
//!
//! Each identity:
//! - claims a second address in another network,
//! - admits every connection,
//! - connects to up to [`VICTIMS_AT_ONCE`] honest nodes and queries them, so that they learn about the identity,
//! - announces only other identities,
//! - reports every peer as unreachable.

use super::{addresses::address_in, settings::Settings};
use rand::{RngExt, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use soma_types::{Address, PeerId};
use std::net::IpAddr;

/// Honest nodes that an identity keeps connected to.
pub(super) const VICTIMS_AT_ONCE: usize = 40;

/// Node infos in an answer.
const INFOS_PER_ANSWER: usize = 200;

/// One identity.
pub(super) struct Identity {
    pub(super) peer: PeerId,
    pub(super) ip: IpAddr,
    pub(super) address: Address,
}

/// All identities.
pub(super) fn identities(settings: &Settings) -> Vec<Identity> {
    let identity = |number: usize| {
        let network = number % settings.attacker_networks.max(1);
        let host = number / settings.attacker_networks.max(1);
        let (ip, address) = address_in(200, network, host);
        let mut peer = [0xaa; 32];
        peer[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Identity { peer: PeerId(peer), ip, address }
    };
    (0..settings.attackers).map(identity).collect()
}

/// The identities that an answer announces.
pub(super) fn announced(identities: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    (0..identities).sample(rng, INFOS_PER_ANSWER)
}

/// The honest node that an identity connects to next.
pub(super) fn victim(honest: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..honest.max(1))
}
