//! The simulated wire: which nodes reach each other, how long a message takes, and whether it arrives.

use crate::{
    hostile::Mischief,
    simulation::{
        invariant::Invariant,
        journal::{Entry, Fate, Journal},
        names::NodeName,
        scenario::Scenario,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_network::{ConnectionId, Inbound, MemoryNetwork};
use soma_p2p::{PeerId, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// After this time without an answer an end of a connection believes that the other is gone: the keep-alives of the
/// TLS transport.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes of a message beyond its payload: headers of the call and of packets.
const FRAMING_BYTES: usize = 200;

/// The network of one run. Clones are the same network.
#[derive(Clone)]
pub(super) struct SimNetwork {
    memory: MemoryNetwork,
    journal: Journal,
    // Stands for cables and routers: no actor's state is in here.
    state: Arc<Mutex<State>>,
}

struct State {
    rng: ChaCha8Rng,
    latency: Range<Duration>,
    loss_percent: f64,
    /// One side of the partition; empty without one.
    partition: BTreeSet<NodeName>,
    /// Bytes per second of each link in each direction, if they have a limit.
    bandwidth: Option<u64>,
    /// When each link is free again, by sender and receiver, in time since the start.
    taken: BTreeMap<(NodeName, NodeName), Duration>,
    hosts: BTreeMap<PeerId, Host>,
    connections: BTreeMap<ConnectionId, (NodeName, NodeName, Inbound)>,
}

/// Knowledge of a node, to check its messages or to change them.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) store: Arc<dyn Store>,
    /// How it misbehaves, if it does.
    pub(super) mischief: Option<Mischief>,
}

impl SimNetwork {
    pub(super) fn new(seed: u64, scenario: &Scenario, journal: Journal) -> Self {
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(seed),
            latency: scenario.latency.clone(),
            loss_percent: scenario.loss_percent,
            partition: BTreeSet::new(),
            bandwidth: scenario.bandwidth,
            taken: BTreeMap::new(),
            hosts: BTreeMap::new(),
            connections: BTreeMap::new(),
        };
        Self { memory: MemoryNetwork::new(), journal, state: Arc::new(Mutex::new(state)) }
    }

    /// The network below, without delays.
    pub(super) fn memory(&self) -> &MemoryNetwork {
        &self.memory
    }

    /// Makes a node known; every node is, before any starts.
    pub(super) fn attach(&self, peer: PeerId, host: Host) {
        self.state().hosts.insert(peer, host);
    }

    /// From now on the node answers so.
    pub(super) fn set_mischief(&self, peer: PeerId, mischief: Mischief) {
        if let Some(host) = self.state().hosts.get_mut(&peer) {
            host.mischief = Some(mischief);
        }
    }

    pub(super) fn set_latency(&self, latency: Range<Duration>) {
        self.state().latency = latency;
    }

    pub(super) fn set_loss_percent(&self, percent: f64) {
        self.state().loss_percent = percent;
    }

    /// Cuts these nodes off from all others. Any other partition ends.
    pub(super) fn partition(&self, nodes: BTreeSet<NodeName>) {
        self.state().partition = nodes.clone();
        if nodes.is_empty() {
            return;
        }
        let network = self.clone();
        tokio::task::spawn_local(async move {
            sleep(KEEP_ALIVE).await;
            if network.state().partition == nodes {
                network.end_cut_connections();
            }
        });
    }

    fn end_cut_connections(&self) {
        let partition = self.state().partition.clone();
        self.hang_up(|from, to| partition.contains(&from) != partition.contains(&to));
    }

    /// Ends the connections of a node that crashes, in the order in which they were made, as its operating system
    /// does: in which order the dying process drops its links differs from run to run.
    pub(super) fn end_connections_of(&self, node: NodeName) {
        self.hang_up(|from, to| from == node || to == node);
    }

    /// Ends the connections from one node to another.
    pub(super) fn end_connections_between(&self, caller: NodeName, responder: NodeName) {
        self.hang_up(|from, to| (from, to) == (caller, responder));
    }

    /// How many connections a node has.
    pub(super) fn connections_of(&self, node: NodeName) -> usize {
        self.state().connections.values().filter(|(from, to, _)| *from == node || *to == node).count()
    }

    fn hang_up(&self, chosen: impl Fn(NodeName, NodeName) -> bool) {
        let state = self.state();
        let connections = state.connections.values().filter(|(from, to, _)| chosen(*from, *to));
        let connections: Vec<Inbound> = connections.map(|(_, _, connection)| connection.clone()).collect();
        drop(state);
        for connection in connections {
            connection.hang_up();
        }
    }

    /// The owner of this key. Only nodes are attached to the network, so every key has one.
    pub(super) fn host(&self, peer: PeerId) -> Option<Host> {
        self.state().hosts.get(&peer).cloned()
    }

    /// Whether links have a bandwidth: only then does it matter how long a message is.
    pub(super) fn has_bandwidth(&self) -> bool {
        self.state().bandwidth.is_some()
    }

    /// The shortest time that a message is on its way.
    pub(super) fn latency(&self) -> Duration {
        self.state().latency.start
    }

    /// Whether nothing gets from one to the other now.
    pub(super) fn cuts(&self, from: NodeName, to: NodeName) -> bool {
        self.state().cuts(from, to)
    }

    /// Sends one message with a payload of this many bytes.
    pub(super) fn depart(&self, from: NodeName, to: NodeName, what: &'static str, bytes: usize) -> Fate {
        let now = self.journal.now();
        let mut state = self.state();
        let mut fate = state.fate(from, to);
        if let Fate::Arrives(latency) = fate {
            fate = Fate::Arrives(latency + state.transmission(now, from, to, bytes));
        }
        drop(state);
        self.journal.write(Entry::Message { from, to, what, fate });
        fate
    }

    /// One message on its way. Resolves when it arrives; never if it does not.
    pub(super) async fn cross(&self, from: NodeName, to: NodeName, what: &'static str, bytes: usize) {
        let fate = self.depart(from, to, what, bytes);
        self.arrive(from, to, fate).await;
    }

    /// The way of a message that was sent just now.
    pub(super) async fn arrive(&self, from: NodeName, to: NodeName, fate: Fate) {
        let Fate::Arrives(latency) = fate else { return std::future::pending().await };
        sleep(latency).await;
        // Cut in the middle of its way.
        if self.cuts(from, to) {
            std::future::pending().await
        }
    }

    pub(super) fn connected(&self, from: NodeName, to: NodeName, connection: Inbound, admitted: bool) {
        self.journal.write(Entry::Connected { from, to, admitted });
        if admitted {
            self.state().connections.insert(connection.id(), (from, to, connection));
        }
    }

    pub(super) fn closed(&self, connection: ConnectionId) {
        let ended = self.state().connections.remove(&connection);
        if let Some((from, to, _)) = ended {
            self.journal.write(Entry::Disconnected { from, to });
        }
    }

    /// Checks that an honest node advertises no commit that it could lose.
    pub(super) fn check_told(&self, host: &Host, told: u32, how: &str) {
        let durable = host.store.watermarks().map_or(0, |watermarks| watermarks.highest_synced.index);
        self.journal.check(host.mischief.is_some() || told <= durable, Invariant::DurableBeforeTold, host.name, || {
            format!("it tells of commit {told} by {how}, but {durable} is the last one on its disk")
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No use of the lock panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cuts(&self, from: NodeName, to: NodeName) -> bool {
        self.partition.contains(&from) != self.partition.contains(&to)
    }

    /// How long until the last byte of a message is sent, after earlier messages on the same link.
    fn transmission(&mut self, now: Duration, from: NodeName, to: NodeName, bytes: usize) -> Duration {
        let Some(bandwidth) = self.bandwidth else { return Duration::ZERO };
        let taken = self.taken.entry((from, to)).or_default();
        let nanoseconds = (bytes + FRAMING_BYTES) as u64 * 1_000_000_000 / bandwidth.max(1);
        *taken = (*taken).max(now) + Duration::from_nanos(nanoseconds);
        *taken - now
    }

    fn fate(&mut self, from: NodeName, to: NodeName) -> Fate {
        if self.cuts(from, to) {
            return Fate::CutOff;
        }
        if self.rng.random_bool((self.loss_percent / 100.0).clamp(0.0, 1.0)) {
            return Fate::Lost;
        }
        let (min, max) = (self.latency.start.as_millis() as u64, self.latency.end.as_millis() as u64);
        Fate::Arrives(Duration::from_millis(self.rng.random_range(min..max.max(min + 1))))
    }
}
