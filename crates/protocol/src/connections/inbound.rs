//! Inbound connections: which may stay, and which one makes room for a newcomer.
//!
//! An attacker with identities and addresses without number must not be able to push out earlier peers. So a
//! newcomer takes the place of a peer with nothing that is hard to come by: trust, a network that a secret
//! favours, having been useful lately, or having been here for long. Of the rest the network with most connections
//! gives one up; so an attacker with few networks displaces himself. As in Bitcoin Core's `SelectNodeToEvict`.

use super::{ConnectionEnd, Connections, Effect, InboundEnd};
use crate::{core::Now, peer_heights::PROVEN_FOR};
use serde::{Deserialize, Serialize};
use soma_types::{ContentDigest, NetworkGroup, PeerId, codec};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// How long a newcomer cannot be displaced: so that it can ask its first question.
const GRACE: Duration = Duration::from_secs(1);

/// Networks that keep one connection each. A secret decides which networks.
const KEPT_NETWORKS: usize = 4;

/// Connections that are kept because their peers were useful most recently.
const KEPT_USEFUL: usize = 8;

/// Admitted connections.
#[derive(Serialize, Deserialize)]
pub(super) struct InboundTable {
    /// Of the order of networks.
    key: [u8; 32],
    connections: BTreeMap<u64, Connection>,
}

#[derive(Serialize, Deserialize)]
struct Connection {
    id: u64,
    peer: PeerId,
    source: IpAddr,
    group: NetworkGroup,
    /// The group's place in an order that only the key tells.
    rank: ContentDigest,
    since: Duration,
    useful: Option<Duration>,
}

impl Connection {
    /// Older ones first.
    fn age(&self) -> (Duration, u64) {
        (self.since, self.id)
    }
}

impl InboundTable {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, connections: BTreeMap::new() }
    }

    fn insert(&mut self, now: Now, id: u64, peer: PeerId, source: IpAddr) {
        let group = NetworkGroup::of_ip(source);
        let rank = ContentDigest::of(&[&self.key, &codec::encode(&group)]);
        self.connections.insert(id, Connection { id, peer, source, group, rank, since: now.monotonic, useful: None });
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Ends what there is of a peer.
    pub(super) fn remove_peer(&mut self, peer: PeerId) -> Vec<u64> {
        let of_peer = self.connections.values().filter(|connection| connection.peer == peer);
        let ids: Vec<u64> = of_peer.map(|connection| connection.id).collect();
        self.connections.retain(|_, connection| connection.peer != peer);
        ids
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.connections.values().map(|connection| connection.peer)
    }

    fn count(&self, of: impl Fn(&Connection) -> bool) -> usize {
        self.connections.values().filter(|connection| of(connection)).count()
    }

    /// Whom a newcomer displaces: nobody, if all are protected, or if no other network has as many connections as its
    /// own would have then and of its own none may go yet.
    fn least_useful(&self, now: Now, newcomer: &NetworkGroup, trusted: impl Fn(PeerId) -> bool) -> Option<u64> {
        let strangers = self.connections.values().filter(|connection| !trusted(connection.peer));
        let is_new = |connection: &&Connection| now.monotonic.saturating_sub(connection.since) < GRACE;
        let (new, open): (Vec<_>, Vec<_>) = strangers.partition(is_new);
        let open = without_oldest_half(without_useful(without_favoured(open)));

        let mut sizes: BTreeMap<&NetworkGroup, usize> = BTreeMap::from([(newcomer, 1)]);
        for connection in open.iter().chain(&new) {
            *sizes.entry(&connection.group).or_default() += 1;
        }
        let size = |group: &NetworkGroup| sizes.get(group).copied().unwrap_or_default();
        let victim = open.into_iter().max_by_key(|connection| (size(&connection.group), connection.age()))?;
        (size(&victim.group) >= size(newcomer)).then_some(victim.id)
    }

    /// The one that has lost least when it makes room for a trusted peer.
    fn youngest_stranger(&self, trusted: impl Fn(PeerId) -> bool) -> Option<u64> {
        let strangers = self.connections.values().filter(|connection| !trusted(connection.peer));
        strangers.max_by_key(|connection| connection.age()).map(|connection| connection.id)
    }
}

/// Leaves out the oldest connection of each of the networks that the key favours.
fn without_favoured(mut open: Vec<&Connection>) -> Vec<&Connection> {
    open.sort_by_key(|connection| (connection.rank, connection.age()));
    let mut kept = BTreeSet::new();
    open.retain(|connection| kept.len() >= KEPT_NETWORKS || !kept.insert(&connection.group));
    open
}

/// Leaves out those that were useful most recently.
fn without_useful(mut open: Vec<&Connection>) -> Vec<&Connection> {
    open.sort_by_key(|connection| Reverse((connection.useful, Reverse(connection.age()))));
    let useful = open.iter().take(KEPT_USEFUL).filter(|connection| connection.useful.is_some()).count();
    open.split_off(useful)
}

/// Leaves out the half that has been here longest.
fn without_oldest_half(mut open: Vec<&Connection>) -> Vec<&Connection> {
    open.sort_by_key(|connection| connection.age());
    open.split_off(open.len() / 2)
}

/// The host behind an address: a host with one IPv6 address has all 2^64 of its network.
fn host(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        IpAddr::V4(_) => source,
    }
}

impl Connections {
    pub(super) fn on_inbound(
        &mut self,
        now: Now,
        connection: u64,
        peer: PeerId,
        source: IpAddr,
        effects: &mut Vec<Effect>,
    ) {
        let admitted = self.is_admissible(now, peer, source) && self.make_room(now, peer, source, effects);
        if admitted {
            self.inbound.insert(now, connection, peer, source);
        }
        if admitted && self.is_trusted(peer) {
            effects.push(Effect::Favour { connection, time: None });
        }
        effects.push(Effect::Admit { connection, admitted });
    }

    /// These peers served this node, or told it of something new.
    pub(super) fn on_useful(&mut self, now: Now, peers: Vec<PeerId>, effects: &mut Vec<Effect>) {
        let peers: BTreeSet<PeerId> = peers.into_iter().collect();
        for connection in self.inbound.connections.values_mut().filter(|connection| peers.contains(&connection.peer)) {
            connection.useful = Some(now.monotonic);
            effects.push(Effect::Favour { connection: connection.id, time: Some(PROVEN_FOR) });
        }
    }

    /// Validators of the new committee are trusted from now on. Validators of the old one keep their connections.
    pub(super) fn on_committee(&mut self, validators: Vec<PeerId>, effects: &mut Vec<Effect>) {
        let before = self.trusted();
        self.validators = validators.into_iter().collect();
        self.favour_newly_trusted(&before, effects);
    }

    /// Lifts the limits of connections whose peers have just become trusted.
    pub(super) fn favour_newly_trusted(&self, before: &BTreeSet<PeerId>, effects: &mut Vec<Effect>) {
        let new = |peer: &PeerId| self.is_trusted(*peer) && !before.contains(peer);
        let connections = self.inbound.connections.values().filter(|connection| new(&connection.peer));
        effects.extend(connections.map(|connection| Effect::Favour { connection: connection.id, time: None }));
    }

    pub(super) fn on_inbound_closed(
        &mut self,
        now: Now,
        connection: u64,
        end: ConnectionEnd,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Connection { peer, .. }) = self.inbound.connections.remove(&connection) else { return };
        self.on_flooded(peer, end, effects);
        if end == ConnectionEnd::Stalled {
            self.stalls.stalled(now.monotonic, peer);
        }
    }

    fn is_admissible(&self, now: Now, peer: PeerId, source: IpAddr) -> bool {
        let of_peer = self.inbound.count(|other| other.peer == peer);
        let of_source = || self.inbound.count(|other| host(other.source) == host(source));
        self.kept_out(now, peer).is_none()
            && (self.is_trusted(peer) || !self.stalls.is_kept_out(now.monotonic, peer))
            && of_peer < self.config.max_inbound_per_peer
            && (source.is_loopback() || self.is_trusted(peer) || of_source() < self.config.max_inbound_per_source)
    }

    /// Whether the newcomer gets a place, if necessary that of another connection.
    fn make_room(&mut self, now: Now, peer: PeerId, source: IpAddr, effects: &mut Vec<Effect>) -> bool {
        if self.inbound.connections.len() < self.config.max_inbound {
            return true;
        }
        if self.config.max_inbound == 0 {
            return false;
        }
        let is_trusted = |peer| self.is_trusted(peer);
        let mut victim = self.inbound.least_useful(now, &NetworkGroup::of_ip(source), is_trusted);
        if victim.is_none() && is_trusted(peer) {
            victim = self.inbound.youngest_stranger(is_trusted);
        }
        let Some(connection) = victim else { return is_trusted(peer) };
        self.inbound.remove(connection);
        effects.push(Effect::HangUpInbound { connection, reason: InboundEnd::Evicted });
        true
    }
}

#[cfg(test)]
mod tests;
