//! The queue of events, and what the shells and the network would do.

use super::{
    Graph, Settings, Standing,
    attacker::{self, Identity},
    node::{ConnectionId, Machine, Process},
};
use crate::address_of;
use bytes::Bytes;
use rand::{RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use soma_protocol::{
    Core, Now, Opaque, PeerEvent,
    connections::{self, DialFailure, Endpoint, LinkId},
    discovery::{self, Answer, KnownPeer, Seen},
};
use soma_types::{Access, Address, PeerId, TimestampMs};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Wall clock at the start.
const START_MS: TimestampMs = 1_700_000_000_000;

/// Where everybody listens.
const PORT: u16 = 9000;

/// A network of 16 bits and an address in it.
pub(super) fn address_in(first: u8, network: usize, host: usize) -> (IpAddr, Address) {
    let [network_high, network_low] = ((network / 250) as u8, (network % 250) as u8).into();
    let ip = IpAddr::V4(Ipv4Addr::new(first + network_high, network_low, (host / 250) as u8, 1 + (host % 250) as u8));
    (ip, address_of(SocketAddr::new(ip, PORT)))
}

/// Who is at one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Honest(usize),
    Attacker(usize),
}

/// A connection that was admitted.
struct Connection {
    from: Party,
    link: LinkId,
    to: Party,
}

enum Event {
    /// A core asked to be woken.
    Wake {
        node: usize,
        life: u64,
        core: usize,
    },
    /// A dial reaches the addresses.
    Arrives {
        from: Party,
        life: u64,
        link: LinkId,
        peer: PeerId,
        addresses: Vec<Address>,
    },
    /// The word comes back.
    Dialled {
        node: usize,
        life: u64,
        link: LinkId,
        peer: PeerId,
        result: Result<(ConnectionId, Endpoint), DialFailure>,
        failed: Vec<Address>,
    },
    /// The end of a connection is noticed.
    LinkClosed {
        node: usize,
        life: u64,
        link: LinkId,
        peer: PeerId,
    },
    InboundClosed {
        node: usize,
        life: u64,
        connection: ConnectionId,
    },
    /// A question arrives, with the asker's info.
    Asked {
        connection: ConnectionId,
        own_info: Opaque,
    },
    /// The answer arrives.
    Answered {
        connection: ConnectionId,
        infos: Vec<usize>,
        seen: Seen,
    },
    /// It is an attacker's turn.
    Attack {
        identity: usize,
    },
}

/// What a core is told.
enum Told {
    Discovery(discovery::Input),
    Connections(connections::Input),
}

/// All machines, the network between them, and the time.
pub struct World {
    settings: Settings,
    rng: ChaCha8Rng,
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    last_event: u64,
    machines: Vec<Machine>,
    attackers: Vec<Identity>,
    by_address: BTreeMap<Address, Party>,
    by_peer: BTreeMap<PeerId, Party>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: ConnectionId,
    /// How many connections each identity has.
    held: Vec<usize>,
    /// Every info there is; what travels as its bytes is its number.
    infos: Vec<KnownPeer>,
    attacker_infos: Vec<usize>,
    attacker_links_most: usize,
}

impl World {
    /// All machines there, none of them up.
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
            // It claims an address elsewhere, too: one in a network of its own choice, or that of an honest node.
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
        let who = |number: usize| {
            let (ip, address) = address_in(20, number % networks, number / networks);
            let mut peer = [0x11; 32];
            peer[..8].copy_from_slice(&(number as u64).to_be_bytes());
            (PeerId(peer), ip, address)
        };
        let machine = |number| {
            let (peer, ip, address) = who(number);
            let (seed, _, seed_address) = who(if number < seeds { (number + 1) % seeds } else { number % seeds });
            let seeds = vec![(seed, vec![seed_address])];
            Machine { peer, ip, address, seeds, life: 0, process: None, stored: BTreeMap::new() }
        };
        (0..nodes).map(machine).collect()
    }

    /// Honest nodes, seeds first.
    pub fn nodes(&self) -> usize {
        self.machines.len()
    }

    /// The virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Starts a machine's process, unless it is up.
    pub fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let machine = &mut self.machines[node];
        if machine.process.is_some() {
            return;
        }
        machine.life += 1;
        machine.process = Some(Process::new(machine, &self.settings, seed));
        let book = machine.stored.values().cloned().collect();
        self.tell(
            node,
            [
                Told::Discovery(discovery::Input::Wake),
                Told::Discovery(discovery::Input::Book { stored: book, unreadable: Vec::new() }),
            ],
        );
    }

    /// Ends a machine's process at once. What its disk has stays.
    pub fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.process = None;
        machine.life += 1;
        let party = Party::Honest(node);
        let ended: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.from == party || connection.to == party)
            .map(|(id, _)| *id)
            .collect();
        for connection in ended {
            self.close(connection);
        }
    }

    /// Lets time pass.
    pub fn run_until(&mut self, until: Duration) {
        while let Some(first) = self.events.first_entry()
            && first.key().0 <= until
        {
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// How far the nodes have got.
    pub fn standing(&self) -> Standing {
        let up: Vec<usize> = (0..self.machines.len()).filter(|node| self.machines[*node].process.is_some()).collect();
        let mut graph = Graph::new(self.machines.len());
        let (mut links, mut honest) = (vec![0; self.machines.len()], vec![0; self.machines.len()]);
        for (node, process) in self.processes() {
            for peer in process.connected.keys() {
                links[node] += 1;
                match self.by_peer.get(peer) {
                    Some(Party::Honest(other)) => {
                        honest[node] += 1;
                        graph.join(node, *other);
                    }
                    Some(Party::Attacker(_)) | None => {}
                }
            }
        }
        let others = (self.machines.len() - 1).max(1);
        let known = |process: &Process| {
            if self.attackers.is_empty() {
                return process.discovery.snapshot().known as f64 * 100.0 / others as f64;
            }
            let book = process.discovery.book();
            let honest = book.iter().filter(|entry| matches!(self.by_peer.get(&entry.peer), Some(Party::Honest(_))));
            honest.count() as f64 * 100.0 / others as f64
        };
        let known: Vec<f64> = self.processes().map(|(_, process)| known(process)).collect();
        let of_up = |counts: &[usize]| up.iter().map(|node| counts[*node]).collect::<Vec<_>>();
        let links = of_up(&links);
        let count = up.len().max(1) as f64;
        let (parts, diameter) = graph.parts_and_diameter(&up);
        Standing {
            at: self.now,
            up: up.len(),
            known_least: known.iter().copied().fold(f64::INFINITY, f64::min),
            known_mean: known.iter().sum::<f64>() / count,
            links_least: links.iter().copied().min().unwrap_or(0),
            links_mean: links.iter().sum::<usize>() as f64 / count,
            at_target: links.iter().filter(|links| **links >= self.settings.target_connections).count(),
            attacker_links_most: self.attacker_links_most,
            honest_least: of_up(&honest).into_iter().min().unwrap_or(0),
            parts,
            diameter,
        }
    }

    fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.machines.iter().enumerate().filter_map(|(node, machine)| Some((node, machine.process.as_ref()?)))
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, unix_ms: START_MS + self.now.as_millis() as u64 }
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(self.settings.latency_ms.clone()))
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.last_event += 1;
        self.events.insert((at, self.last_event), event);
    }

    /// After a message's way.
    fn later(&mut self, event: Event) {
        let at = self.now + self.latency();
        self.at(at, event);
    }

    fn info(&mut self, peer: PeerId, addresses: Vec<Address>, timestamp_ms: TimestampMs) -> usize {
        let number = self.infos.len();
        let bytes = Opaque::from(Bytes::copy_from_slice(&(number as u64).to_le_bytes()));
        self.infos.push(KnownPeer { peer, timestamp_ms, addresses, access: Access::Public, bytes });
        number
    }

    fn party(&self, party: Party) -> (PeerId, IpAddr) {
        match party {
            Party::Honest(node) => (self.machines[node].peer, self.machines[node].ip),
            Party::Attacker(number) => (self.attackers[number].peer, self.attackers[number].ip),
        }
    }

    fn is_up(&self, party: Party) -> bool {
        match party {
            Party::Honest(node) => self.machines[node].process.is_some(),
            Party::Attacker(_) => true,
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.machines[node].life == life && self.machines[node].process.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, life, core } => {
                if self.lives(node, life) {
                    if let Some(process) = &mut self.machines[node].process {
                        process.wakes[core] = None;
                    }
                    let wake = match core {
                        0 => Told::Discovery(discovery::Input::Wake),
                        _ => Told::Connections(connections::Input::Wake),
                    };
                    self.tell(node, [wake]);
                }
            }
            Event::Arrives { from, life, link, peer, addresses } => self.arrives(from, life, link, peer, addresses),
            Event::Dialled { node, life, link, peer, result, failed } => {
                if !self.lives(node, life) {
                    if let Ok((connection, _)) = result {
                        self.close(connection);
                    }
                    return;
                }
                let result = result.and_then(|(connection, endpoint)| {
                    let ended = || DialFailure::Unreachable { reason: "the connection is gone".into() };
                    let process = self.machines[node].process.as_mut().ok_or_else(ended)?;
                    self.connections.contains_key(&connection).then_some(()).ok_or_else(ended)?;
                    process.links.insert(link, connection);
                    Ok(endpoint)
                });
                self.tell(node, [Told::Connections(connections::Input::Dialled { link, peer, result, failed })]);
            }
            Event::LinkClosed { node, life, link, peer } => {
                if self.lives(node, life) {
                    self.tell(
                        node,
                        [Told::Connections(connections::Input::LinkClosed {
                            link,
                            peer,
                            end: connections::ConnectionEnd::Usual,
                        })],
                    );
                }
            }
            Event::InboundClosed { node, life, connection } => {
                if self.lives(node, life) {
                    if let Some(process) = &mut self.machines[node].process {
                        process.inbound.remove(&connection);
                    }
                    self.tell(
                        node,
                        [Told::Connections(connections::Input::InboundClosed {
                            connection,
                            end: connections::ConnectionEnd::Usual,
                        })],
                    );
                }
            }
            Event::Asked { connection, own_info } => self.asked(connection, own_info),
            Event::Answered { connection, infos, seen } => self.answered(connection, infos, seen),
            Event::Attack { identity } => self.attack(identity),
        }
    }

    /// The first of the addresses at which the peer is takes the connection, or nobody does.
    fn arrives(&mut self, from: Party, life: u64, link: LinkId, peer: PeerId, addresses: Vec<Address>) {
        let mut failed = Vec::new();
        let mut result = Err(DialFailure::Unreachable { reason: "nobody listens there".into() });
        for address in addresses {
            match self.by_address.get(&address).copied() {
                Some(to) if self.party(to).0 == peer && self.is_up(to) => {
                    if self.admits(from, to, link) {
                        let ip = address.ip();
                        result = Ok((self.last_connection, Endpoint { address, ip }));
                        break;
                    }
                    result = Err(DialFailure::Refused { reason: "not admitted".into() });
                    failed.push(address);
                }
                _ => failed.push(address),
            }
        }
        match from {
            Party::Honest(node) => self.later(Event::Dialled { node, life, link, peer, result, failed }),
            Party::Attacker(_) => {
                if let Ok((connection, _)) = result {
                    let own_info = self.infos[self.attacker_infos[link.0 as usize]].bytes.clone();
                    self.later(Event::Asked { connection, own_info });
                }
            }
        }
    }

    /// Whether the other side takes the connection, which then is the last one.
    fn admits(&mut self, from: Party, to: Party, link: LinkId) -> bool {
        self.last_connection += 1;
        let connection = self.last_connection;
        self.connections.insert(connection, Connection { from, link, to });
        if let Party::Attacker(number) = from {
            self.held[number] += 1;
        }
        if let Party::Honest(node) = to {
            let (peer, source) = self.party(from);
            self.tell(node, [Told::Connections(connections::Input::Inbound { connection, peer, source })]);
        }
        self.connections.contains_key(&connection)
    }

    /// Ends a connection; each side that is still there hears of it.
    fn close(&mut self, connection: ConnectionId) {
        let Some(Connection { from, link, to }) = self.connections.remove(&connection) else { return };
        match from {
            Party::Honest(node) => {
                let (life, peer) = (self.machines[node].life, self.party(to).0);
                if let Some(process) = &mut self.machines[node].process {
                    process.links.remove(&link);
                    process.probed.retain(|_, probed| *probed != connection);
                }
                self.later(Event::LinkClosed { node, life, link, peer });
            }
            Party::Attacker(number) => self.held[number] -= 1,
        }
        if let Party::Honest(node) = to {
            let life = self.machines[node].life;
            self.later(Event::InboundClosed { node, life, connection });
        }
    }

    fn asked(&mut self, connection: ConnectionId, own_info: Opaque) {
        let Some(Connection { from, to, .. }) = self.connections.get(&connection) else { return };
        let (from, to) = (*from, *to);
        let (asker, source) = self.party(from);
        match to {
            Party::Honest(node) => {
                let Some(process) = &mut self.machines[node].process else { return };
                process.next_asked += 1;
                let key = process.next_asked;
                process.asked.insert(key, (connection, asker));
                let info = number(own_info).map(|number| self.infos[number].clone());
                let asked = discovery::Input::Asked { key, peer: asker, remote: Some(source), info };
                self.tell(node, [Told::Discovery(asked)]);
            }
            Party::Attacker(identity) => {
                let told = attacker::told(self.attackers.len(), &mut self.rng);
                let mut infos = vec![self.attacker_infos[identity]];
                infos.extend(told.into_iter().map(|number| self.attacker_infos[number]));
                let seen = Seen { ip: Some(self.attackers[identity].ip), time_ms: 1, reached: Some(false) };
                self.later(Event::Answered { connection, infos, seen });
            }
        }
    }

    fn answered(&mut self, connection: ConnectionId, infos: Vec<usize>, seen: Seen) {
        let Some(Connection { from, to, link }) = self.connections.get(&connection) else { return };
        let (from, to, link) = (*from, *to, *link);
        let Party::Honest(node) = from else { return };
        let peer = self.party(to).0;
        let Some(process) = &mut self.machines[node].process else { return };
        process.had.resize(self.infos.len(), false);
        let mut news = infos;
        news.retain(|number| {
            let had = process.had[*number] || !process.discovery.is_news(&self.infos[*number]);
            process.had[*number] = had;
            !had
        });
        let infos = news.into_iter().map(|number| self.infos[number].clone()).collect();
        let (answer, remote) = (Ok(Answer { infos, seen }), Some(self.party(to).1));
        self.tell(node, [Told::Discovery(discovery::Input::Answered { peer, remote, answer })]);
        // A probe has done its work.
        let kept = self.machines[node].process.as_ref().is_some_and(|process| process.links.contains_key(&link));
        if !kept {
            self.close(connection);
        }
    }

    /// Connects to one more honest node, if there is room.
    fn attack(&mut self, identity: usize) {
        let again = self.now + self.settings.interval / 4 + self.latency();
        self.at(again, Event::Attack { identity });
        if self.held[identity] < attacker::VICTIMS_AT_ONCE {
            let node = attacker::victim(self.machines.len(), &mut self.rng);
            let (peer, addresses) = (self.machines[node].peer, vec![self.machines[node].address.clone()]);
            let link = LinkId(identity as u64);
            self.later(Event::Arrives { from: Party::Attacker(identity), life: 0, link, peer, addresses });
        }
    }

    /// Tells a node's cores, and does what they want, until they want nothing more now.
    fn tell(&mut self, node: usize, told: impl IntoIterator<Item = Told>) {
        let mut told: VecDeque<Told> = told.into_iter().collect();
        while let Some(next) = told.pop_front() {
            let now = self.clock();
            let Some(process) = &mut self.machines[node].process else { return };
            match next {
                Told::Discovery(input) => {
                    for effect in process.discovery.handle(now, input) {
                        self.discovery_wants(node, effect, &mut told);
                    }
                }
                Told::Connections(input) => {
                    for effect in process.connections.handle(now, input) {
                        self.connections_want(node, effect, &mut told);
                    }
                }
            }
        }
        self.wake_later(node);
    }

    fn wake_later(&mut self, node: usize) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        let wanted = [process.discovery.next_wake(), process.connections.next_wake()];
        let mut due = Vec::new();
        for (core, wanted) in wanted.into_iter().enumerate() {
            if let Some(at) = wanted
                && process.wakes[core].is_none_or(|set| at < set)
            {
                process.wakes[core] = Some(at);
                due.push((core, at));
            }
        }
        for (core, at) in due {
            self.at(at.max(self.now), Event::Wake { node, life, core });
        }
    }

    fn discovery_wants(&mut self, node: usize, effect: discovery::Effect, told: &mut VecDeque<Told>) {
        use discovery::{Effect, Input};
        let machine = &self.machines[node];
        match effect {
            Effect::SignOwnInfo { addresses } => {
                let timestamp_ms = self.clock().unix_ms;
                let number = self.info(machine.peer, addresses, timestamp_ms);
                let bytes = self.infos[number].bytes.clone();
                told.push_back(Told::Discovery(Input::OwnInfo { bytes, timestamp_ms }));
            }
            Effect::Dial { peer, addresses, purpose } => {
                told.push_back(Told::Connections(connections::Input::Dial { peer, addresses, purpose }));
            }
            Effect::Query { peer, own_info } => {
                let Some(process) = &mut self.machines[node].process else { return };
                let connection = process.probed.remove(&peer).or_else(|| process.connected.get(&peer).copied());
                if let Some(connection) = connection {
                    self.later(Event::Asked { connection, own_info });
                }
            }
            Effect::Answer { key, own_info, peers, seen } => {
                let Some(process) = &mut self.machines[node].process else { return };
                let Some((connection, _)) = process.asked.remove(&key) else { return };
                let infos = std::iter::once(own_info).chain(peers).filter_map(number).collect();
                let ip = self.connections.get(&connection).map(|connection| self.party(connection.from).1);
                self.later(Event::Answered { connection, infos, seen: Seen { ip, ..seen } });
            }
            Effect::SaveBook { put, remove } => {
                let stored = &mut self.machines[node].stored;
                stored.extend(put.into_iter().map(|peer| (peer.info.peer, peer)));
                remove.iter().for_each(|peer| drop(stored.remove(peer)));
            }
        }
    }

    fn connections_want(&mut self, node: usize, effect: connections::Effect, told: &mut VecDeque<Told>) {
        use connections::Effect;
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        match effect {
            Effect::Dial { link, peer, addresses } => {
                let arrival = Event::Arrives { from: Party::Honest(node), life, link, peer, addresses };
                // TCP's handshake comes before TLS's.
                let at = self.now + self.latency() + self.latency() + self.latency();
                self.at(at, arrival);
            }
            Effect::HangUp { link, .. } => {
                if let Some(connection) = process.links.remove(&link) {
                    self.close(connection);
                }
            }
            Effect::HandOver { link, peer } => {
                let Some(connection) = process.links.remove(&link) else { return };
                process.probed.insert(peer, connection);
                let ip = self.by_peer.get(&peer).map(|party| self.party(*party).1);
                told.push_back(Told::Discovery(discovery::Input::Probed { peer, result: Ok(ip) }));
            }
            Effect::ProbeFailed { peer, failure } => {
                told.push_back(Told::Discovery(discovery::Input::Probed { peer, result: Err(failure) }));
            }
            Effect::Admit { connection, admitted: true } => {
                if let Some(from) = self.connections.get(&connection).map(|connection| connection.from) {
                    let peer = self.party(from).0;
                    if let Some(process) = &mut self.machines[node].process {
                        process.inbound.insert(connection, peer);
                    }
                }
            }
            Effect::Admit { connection, admitted: false } | Effect::HangUpInbound { connection, .. } => {
                process.inbound.remove(&connection);
                self.close(connection);
            }
            Effect::Event(event) => {
                match event {
                    PeerEvent::Connected(peer) => {
                        let link = process.links.values().copied().find(|connection| {
                            self.connections.get(connection).is_some_and(|connection| {
                                let party = connection.to;
                                self.by_peer.get(&peer) == Some(&party)
                            })
                        });
                        if let Some(connection) = link {
                            process.connected.insert(peer, connection);
                        }
                        let attackers = process
                            .connected
                            .keys()
                            .filter(|peer| matches!(self.by_peer.get(peer), Some(Party::Attacker(_))));
                        self.attacker_links_most = self.attacker_links_most.max(attackers.count());
                    }
                    PeerEvent::Lost { peer, .. } => drop(process.connected.remove(&peer)),
                }
                let ip = match event {
                    PeerEvent::Connected(peer) => self.by_peer.get(&peer).map(|party| self.party(*party).1),
                    PeerEvent::Lost { .. } => None,
                };
                told.push_back(Told::Discovery(discovery::Input::Peer { event, ip }));
            }
            // In this crowd nobody floods a connection.
            Effect::Report { .. } | Effect::Favour { .. } => {}
            Effect::DialFailed { peer, failure } => {
                told.push_back(Told::Discovery(discovery::Input::DialFailed { peer, failure }));
            }
            Effect::TellConnected { .. } => {}
        }
    }

    /// Some of the nodes that are up.
    pub fn some_up(&mut self, count: usize) -> Vec<usize> {
        let up: Vec<_> = self.processes().map(|(node, _)| node).collect();
        up.into_iter().sample(&mut self.rng, count)
    }
}

/// The number that stands for an info.
fn number(bytes: Opaque) -> Option<usize> {
    let bytes = bytes.into_bytes();
    Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?) as usize)
}
