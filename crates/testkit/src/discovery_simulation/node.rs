//! One machine: its cores while it is up, its disk, and the state of its shells.

use super::settings::Settings;
use soma_protocol::{
    connections::{self, Connections, LinkId},
    discovery::{self, Discovery, StoredPeer},
};
use soma_types::{Address, PeerId};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Identifies a connection at both of its ends.
pub(super) type ConnectionId = u64;

/// One simulated machine. Its process may be down.
pub(super) struct Machine {
    pub(super) peer: PeerId,
    pub(super) ip: IpAddr,
    pub(super) address: Address,
    /// Configured seeds.
    pub(super) seeds: Vec<(PeerId, Vec<Address>)>,
    /// Counts starts and crashes: an event for an earlier incarnation is dropped.
    pub(super) incarnation: u64,
    /// The process.
    pub(super) process: Option<Process>,
    /// The address book on its disk.
    pub(super) stored: BTreeMap<PeerId, StoredPeer>,
}

/// The volatile state of a machine: a crash loses it.
pub(super) struct Process {
    pub(super) discovery: Discovery,
    pub(super) connections: Connections,
    /// The connection of each link.
    pub(super) links: BTreeMap<LinkId, ConnectionId>,
    /// The connection over which a peer can be queried.
    pub(super) connected: BTreeMap<PeerId, ConnectionId>,
    /// Connections of probes: each is queried once.
    pub(super) probed: BTreeMap<PeerId, ConnectionId>,
    /// Peers with an inbound connection.
    pub(super) inbound: BTreeMap<ConnectionId, PeerId>,
    /// Queries that Discovery has not answered yet, by key.
    pub(super) asked: BTreeMap<u64, (ConnectionId, PeerId)>,
    pub(super) next_asked: u64,
    /// Node infos, by number, that were not new to Discovery when last received: they are not passed on again.
    pub(super) had: Vec<bool>,
    /// Next wake-up of each core.
    pub(super) wakes: [Option<Duration>; 2],
}

impl Process {
    pub(super) fn new(machine: &Machine, settings: &Settings, seed: u64) -> Self {
        let discovery = Discovery::new(discovery::Config {
            own_id: machine.peer,
            seeds: machine.seeds.clone(),
            allowlist: Default::default(),
            denylist: Default::default(),
            addresses: vec![machine.address.clone()],
            listen_port: None,
            interval: settings.interval,
            peers_to_query: 5,
            target_connections: settings.target_connections,
            max_per_group: connections::Config::default().max_outbound_per_group,
            max_answer: 200,
            seed,
        });
        let connections = Connections::new(connections::Config { seed, ..Default::default() });
        Self {
            discovery,
            connections,
            links: BTreeMap::new(),
            connected: BTreeMap::new(),
            probed: BTreeMap::new(),
            inbound: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_asked: 0,
            had: Vec::new(),
            wakes: [None; 2],
        }
    }
}
