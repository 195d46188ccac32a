//! Misbehaving nodes: their side of the wire, and their own initiatives.

use crate::{
    address_of,
    hostile::{Behaviour, Means, Mischief, Victim, attack},
    simulation::{
        identity::{address, key, peer_id},
        names::NodeName,
        network::SimNetwork,
        node::{Common, WALL_CLOCK_MS},
        objects,
        wire::SimTransport,
    },
};
use soma_network::Transport;
use soma_p2p::{ChainId, PeerId, SigningKey};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};
use tokio::task::{AbortHandle, spawn_local};

/// Identities of a node that connects under one after the other: more than anyone lets in.
const IDENTITIES: u64 = 150;

/// The hostile nodes of one run.
pub(super) struct Hostility {
    network: SimNetwork,
    chain: ChainId,
    seed: u64,
    honest: Vec<NodeName>,
    attacks: RefCell<BTreeMap<NodeName, Vec<AbortHandle>>>,
}

impl Hostility {
    pub(super) fn new(common: &Common<'_>) -> Self {
        Self {
            network: common.network.clone(),
            chain: common.chain.genesis.chain_id(),
            seed: common.seed,
            honest: common.scenario.honest_nodes(),
            attacks: RefCell::default(),
        }
    }

    /// From now on the node behaves so, and no other way.
    pub(super) fn begin(&self, name: NodeName, behaviour: Behaviour) {
        self.end_of(name);
        let own_key = key(name);
        // Of the node and the run: hostile nodes of one kind do not all make the same choices.
        let seed =
            self.seed.rotate_left(32) ^ u64::from_le_bytes(own_key.to_bytes()[..8].try_into().unwrap_or_default());
        let network = self.network.clone();
        let hang_up = move |caller: PeerId| {
            if let Some(caller) = network.host(caller) {
                network.end_connections_between(caller.name, name);
            }
        };
        let objects = Some(objects::source_of(&self.honest));
        let means = Means { key: own_key.clone(), seed, hang_up: Arc::new(hang_up), trickle: None, objects };
        self.network.set_mischief(peer_id(name), Mischief::new(behaviour, means));
        if behaviour.attacks() {
            for (number, victim) in (0..).zip(&self.honest) {
                let victim = Victim {
                    peer: peer_id(*victim),
                    address: address_of(address(*victim)),
                    chain: self.chain,
                    now_ms: WALL_CLOCK_MS,
                };
                let network = self.network.clone();
                let identity = move |number| -> Arc<dyn Transport> {
                    Arc::new(SimTransport::new(name, identity(name, number), network.clone()))
                };
                let attacking =
                    attack(behaviour, victim, own_key.clone(), identity, IDENTITIES, seed.wrapping_add(number));
                self.attacks.borrow_mut().entry(name).or_default().push(spawn_local(attacking).abort_handle());
            }
        }
    }

    /// The node does nothing more of its own accord.
    pub(super) fn end_of(&self, name: NodeName) {
        for attack in self.attacks.borrow_mut().remove(&name).into_iter().flatten() {
            attack.abort();
        }
    }

    /// No node does.
    pub(super) fn end(&self) {
        for attack in self.attacks.take().into_values().flatten() {
            attack.abort();
        }
    }
}

/// One of a node's identities; 0 is its own.
fn identity(name: NodeName, number: u64) -> PeerId {
    match number {
        0 => peer_id(name),
        number => {
            let mut bytes = key(name).to_bytes();
            bytes[16..24].copy_from_slice(&number.to_le_bytes());
            PeerId::from(&SigningKey::from_bytes(&bytes))
        }
    }
}
