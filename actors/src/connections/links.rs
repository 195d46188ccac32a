//! The registry of live links: the peers that can be called right now.

use dashmap::DashMap;
use soma_network::Link;
use soma_types::PeerId;
use std::{collections::BTreeSet, sync::Arc};

/// The writing end, held by Connections alone.
#[derive(Clone, Default)]
pub struct LinkRegistry(Arc<DashMap<PeerId, Link>>);

impl LinkRegistry {
    /// Puts a new link in place of an older one.
    pub fn insert(&self, link: Link) {
        self.0.insert(link.peer(), link);
    }

    /// Takes the peer's link out.
    pub fn remove(&self, peer: PeerId) -> Option<Link> {
        self.0.remove(&peer).map(|(_, link)| link)
    }

    /// Takes every link out, in the order of their peers: the map's own order differs from run to run.
    pub fn clear(&self) -> Vec<Link> {
        let peers: BTreeSet<_> = self.0.iter().map(|entry| *entry.key()).collect();
        peers.into_iter().filter_map(|peer| self.remove(peer)).collect()
    }

    /// The reading end, for actors that call peers.
    pub fn links(&self) -> Links {
        Links(self.0.clone())
    }
}

/// The reading end of the registry.
#[derive(Clone)]
pub struct Links(Arc<DashMap<PeerId, Link>>);

impl Links {
    /// The link to a peer, if there is one.
    pub fn get(&self, peer: PeerId) -> Option<Link> {
        self.0.get(&peer).map(|entry| entry.value().clone())
    }
}
