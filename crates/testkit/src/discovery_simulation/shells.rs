//! Runs the processes of the nodes: passes inputs to their cores, and carries out effects as the shells would.

use super::{
    event::{CoreInput, Event, Party},
    node::Process,
    world::World,
};
use rand::RngExt;
use soma_protocol::{
    Core, Opaque, PeerEvent, connections,
    discovery::{self, Seen},
};
use std::collections::VecDeque;

impl World {
    /// Starts a machine's process, unless it is up.
    pub fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let machine = &mut self.machines[node];
        if machine.process.is_some() {
            return;
        }
        machine.incarnation += 1;
        machine.process = Some(Process::new(machine, &self.settings, seed));
        let book = machine.stored.values().cloned().collect();
        self.tell(
            node,
            [
                CoreInput::Discovery(discovery::Input::Wake),
                CoreInput::Discovery(discovery::Input::Book { stored: book, unreadable: Vec::new() }),
            ],
        );
    }

    /// Kills a machine's process. Its disk stays.
    pub fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.process = None;
        machine.incarnation += 1;
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

    /// Passes inputs to a node's cores and carries out the effects, until no input is left.
    pub(super) fn tell(&mut self, node: usize, inputs: impl IntoIterator<Item = CoreInput>) {
        let mut inputs: VecDeque<CoreInput> = inputs.into_iter().collect();
        while let Some(next) = inputs.pop_front() {
            let now = self.clock();
            let Some(process) = &mut self.machines[node].process else { return };
            match next {
                CoreInput::Discovery(input) => {
                    for effect in process.discovery.handle(now, input) {
                        self.discovery_wants(node, effect, &mut inputs);
                    }
                }
                CoreInput::Connections(input) => {
                    for effect in process.connections.handle(now, input) {
                        self.connections_want(node, effect, &mut inputs);
                    }
                }
            }
        }
        self.wake_later(node);
    }

    fn wake_later(&mut self, node: usize) {
        let incarnation = self.machines[node].incarnation;
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
            self.at(at.max(self.now), Event::Wake { node, incarnation, core });
        }
    }

    fn discovery_wants(&mut self, node: usize, effect: discovery::Effect, inputs: &mut VecDeque<CoreInput>) {
        use discovery::{Effect, Input};
        let machine = &self.machines[node];
        match effect {
            Effect::SignOwnInfo { addresses } => {
                let timestamp_ms = self.clock().unix_ms;
                let number = self.info(machine.peer, addresses, timestamp_ms);
                let bytes = self.infos[number].bytes.clone();
                inputs.push_back(CoreInput::Discovery(Input::OwnInfo { bytes, timestamp_ms }));
            }
            Effect::Dial { peer, addresses, purpose } => {
                inputs.push_back(CoreInput::Connections(connections::Input::Dial { peer, addresses, purpose }));
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

    fn connections_want(&mut self, node: usize, effect: connections::Effect, inputs: &mut VecDeque<CoreInput>) {
        use connections::Effect;
        let incarnation = self.machines[node].incarnation;
        let Some(process) = &mut self.machines[node].process else { return };
        match effect {
            Effect::Dial { link, peer, addresses } => {
                let arrival = Event::Arrives { from: Party::Honest(node), incarnation, link, peer, addresses };
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
                inputs.push_back(CoreInput::Discovery(discovery::Input::Probed { peer, result: Ok(ip) }));
            }
            Effect::ProbeFailed { peer, failure } => {
                inputs.push_back(CoreInput::Discovery(discovery::Input::Probed { peer, result: Err(failure) }));
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
                inputs.push_back(CoreInput::Discovery(discovery::Input::Peer { event, ip }));
            }
            // No node floods a connection in this simulation.
            Effect::Report { .. } | Effect::Favour { .. } => {}
            Effect::DialFailed { peer, failure } => {
                inputs.push_back(CoreInput::Discovery(discovery::Input::DialFailed { peer, failure }));
            }
            Effect::TellConnected { .. } => {}
        }
    }
}

/// The index of a node info, from the bytes that travel for it.
pub(super) fn number(bytes: Opaque) -> Option<usize> {
    let bytes = bytes.into_bytes();
    Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?) as usize)
}
