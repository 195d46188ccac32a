//! One machine: its cores while it is up, its disk, and what its shells would keep.

use super::Settings;
use soma_protocol::{
    connections::{self, Connections, LinkId},
    discovery::{self, Discovery, StoredPeer},
};
use soma_types::{Address, PeerId};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Names a connection, for both of its ends.
pub(super) type ConnectionId = u64;

/// Who and where it is.
pub(super) struct Machine {
    pub(super) peer: PeerId,
    pub(super) ip: IpAddr,
    pub(super) address: Address,
    /// What it is configured with.
    pub(super) seeds: Vec<(PeerId, Vec<Address>)>,
    /// How often it was started or ended: what was meant for a former process is for nobody.
    pub(super) life: u64,
    /// The process.
    pub(super) process: Option<Process>,
    /// The address book on its disk.
    pub(super) stored: BTreeMap<PeerId, StoredPeer>,
}

/// What is gone when the machine goes down.
pub(super) struct Process {
    pub(super) discovery: Discovery,
    pub(super) connections: Connections,
    /// Which connection a link is.
    pub(super) links: BTreeMap<LinkId, ConnectionId>,
    /// The connection over which a peer can be asked.
    pub(super) connected: BTreeMap<PeerId, ConnectionId>,
    /// Connections of probes, to be asked once.
    pub(super) probed: BTreeMap<PeerId, ConnectionId>,
    /// Peers with an inbound connection.
    pub(super) inbound: BTreeMap<ConnectionId, PeerId>,
    /// Inbound connections that wait to be admitted: the first is being decided about.
    pub(super) asked: BTreeMap<u64, (ConnectionId, PeerId)>,
    pub(super) next_asked: u64,
    /// Infos, by number, that were no news when they were told last: they are not told again.
    pub(super) had: Vec<bool>,
    /// When each core is to be woken next.
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
