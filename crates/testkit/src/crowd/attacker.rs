//! Identities of one attacker. They claim to be elsewhere, too, let everybody in, connect to every honest node as often as they may, ask it whom it
//! knows so that it hears of them, tell only of one another, and say that nobody can be reached.

use super::{Settings, world::address_in};
use rand::{RngExt, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use soma_types::{Address, PeerId};
use std::net::IpAddr;

/// Honest nodes that an identity keeps connected to.
pub(super) const VICTIMS_AT_ONCE: usize = 40;

/// Infos in an answer.
const TOLD: usize = 200;

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

/// Whom of all identities an answer tells of.
pub(super) fn told(identities: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    (0..identities).sample(rng, TOLD)
}

/// Whom an identity connects to next.
pub(super) fn victim(honest: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..honest.max(1))
}
