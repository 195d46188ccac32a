//! The machines, the connections between them, and the queue of events.

use super::{
    addresses::address_in,
    attacker::{self, Identity},
    event::{Connection, Event, Party},
    node::{ConnectionId, Machine, Process},
    settings::Settings,
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use soma_protocol::{Now, Opaque, discovery::KnownPeer};
use soma_types::{Access, Address, PeerId, TimestampMs};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Wall clock at the start.
const START_MS: TimestampMs = 1_700_000_000_000;

/// All machines, the network between them, and the time.
pub struct World {
    pub(super) settings: Settings,
    pub(super) rng: ChaCha8Rng,
    pub(super) now: Duration,
    pub(super) events: BTreeMap<(Duration, u64), Event>,
    pub(super) last_event: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) attackers: Vec<Identity>,
    pub(super) by_address: BTreeMap<Address, Party>,
    pub(super) by_peer: BTreeMap<PeerId, Party>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) last_connection: ConnectionId,
    /// Number of connections of each identity.
    pub(super) held: Vec<usize>,
    /// All node infos. The bytes of an info that travel are its index here.
    pub(super) infos: Vec<KnownPeer>,
    pub(super) attacker_infos: Vec<usize>,
    pub(super) attacker_links_most: usize,
}

impl World {
    /// A world in which all machines are down.
    pub fn new(settings: Settings) -> Self {
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(settings.seed),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            last_event: 0,
            machines: Vec::new(),
            attackers: attacker::identities(&settings),
            by_address: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            held: vec![0; settings.attackers],
            infos: Vec::new(),
            attacker_infos: Vec::new(),
            attacker_links_most: 0,
            settings,
        };
        world.machines = world.honest();
        for (number, machine) in world.machines.iter().enumerate() {
            world.by_address.insert(machine.address.clone(), Party::Honest(number));
            world.by_peer.insert(machine.peer, Party::Honest(number));
        }
        for number in 0..world.attackers.len() {
            let Identity { peer, address, .. } = &world.attackers[number];
            let (peer, address) = (*peer, address.clone());
            world.by_address.insert(address.clone(), Party::Attacker(number));
            world.by_peer.insert(peer, Party::Attacker(number));
            // The identity also claims an address in a network of its choice, or the address of an honest node.
            let elsewhere = match number % 2 {
                0 => address_in(90, world.rng.random_range(0..10_000), 1).1,
                _ => world.machines[world.rng.random_range(0..world.machines.len())].address.clone(),
            };
            let info = world.info(peer, vec![elsewhere, address], START_MS);
            world.attacker_infos.push(info);
            world.at(Duration::ZERO, Event::Attack { identity: number });
        }
        world
    }

    fn honest(&self) -> Vec<Machine> {
        let Settings { nodes, seeds, networks, .. } = self.settings;
        let place = |number: usize| {
            let (ip, address) = address_in(20, number % networks, number / networks);
            let mut peer = [0x11; 32];
            peer[..8].copy_from_slice(&(number as u64).to_be_bytes());
            (PeerId(peer), ip, address)
        };
        let machine = |number| {
            let (peer, ip, address) = place(number);
            let (seed, _, seed_address) = place(if number < seeds { (number + 1) % seeds } else { number % seeds });
            let seeds = vec![(seed, vec![seed_address])];
            Machine { peer, ip, address, seeds, incarnation: 0, process: None, stored: BTreeMap::new() }
        };
        (0..nodes).map(machine).collect()
    }

    /// Number of honest nodes. Seeds have the lowest numbers.
    pub fn nodes(&self) -> usize {
        self.machines.len()
    }

    /// The virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Some of the nodes that are up.
    pub fn some_up(&mut self, count: usize) -> Vec<usize> {
        let up: Vec<_> = self.processes().map(|(node, _)| node).collect();
        up.into_iter().sample(&mut self.rng, count)
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.machines.iter().enumerate().filter_map(|(node, machine)| Some((node, machine.process.as_ref()?)))
    }

    pub(super) fn clock(&self) -> Now {
        Now { monotonic: self.now, unix_ms: START_MS + self.now.as_millis() as u64 }
    }

    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(self.settings.latency_ms.clone()))
    }

    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.last_event += 1;
        self.events.insert((at, self.last_event), event);
    }

    /// Queues an event after the latency of one message.
    pub(super) fn later(&mut self, event: Event) {
        let at = self.now + self.latency();
        self.at(at, event);
    }

    pub(super) fn info(&mut self, peer: PeerId, addresses: Vec<Address>, timestamp_ms: TimestampMs) -> usize {
        let number = self.infos.len();
        let bytes = Opaque::from(Bytes::copy_from_slice(&(number as u64).to_le_bytes()));
        self.infos.push(KnownPeer { peer, timestamp_ms, addresses, access: Access::Public, bytes });
        number
    }

    pub(super) fn party(&self, party: Party) -> (PeerId, IpAddr) {
        match party {
            Party::Honest(node) => (self.machines[node].peer, self.machines[node].ip),
            Party::Attacker(number) => (self.attackers[number].peer, self.attackers[number].ip),
        }
    }

    pub(super) fn is_up(&self, party: Party) -> bool {
        match party {
            Party::Honest(node) => self.machines[node].process.is_some(),
            Party::Attacker(_) => true,
        }
    }

    pub(super) fn is_current(&self, node: usize, incarnation: u64) -> bool {
        self.machines[node].incarnation == incarnation && self.machines[node].process.is_some()
    }

    /// Ends a connection, and notifies each end that is still up.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let Some(Connection { from, link, to }) = self.connections.remove(&connection) else { return };
        match from {
            Party::Honest(node) => {
                let (incarnation, peer) = (self.machines[node].incarnation, self.party(to).0);
                if let Some(process) = &mut self.machines[node].process {
                    process.links.remove(&link);
                    process.probed.retain(|_, probed| *probed != connection);
                }
                self.later(Event::LinkClosed { node, incarnation, link, peer });
            }
            Party::Attacker(number) => self.held[number] -= 1,
        }
        if let Party::Honest(node) = to {
            let incarnation = self.machines[node].incarnation;
            self.later(Event::InboundClosed { node, incarnation, connection });
        }
    }
}
