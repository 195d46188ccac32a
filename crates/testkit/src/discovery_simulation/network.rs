//! Plays the events: dials, connections, queries, answers and the turns of the attacker.

use super::{
    attacker,
    event::{Connection, CoreInput, Event, Party},
    node::ConnectionId,
    shells::number,
    world::World,
};
use soma_protocol::{
    Opaque,
    connections::{self, DialFailure, Endpoint, LinkId},
    discovery::{self, Answer, Seen},
};
use soma_types::{Address, PeerId};
use std::time::Duration;

impl World {
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

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, incarnation, core } => {
                if self.is_current(node, incarnation) {
                    if let Some(process) = &mut self.machines[node].process {
                        process.wakes[core] = None;
                    }
                    let wake = match core {
                        0 => CoreInput::Discovery(discovery::Input::Wake),
                        _ => CoreInput::Connections(connections::Input::Wake),
                    };
                    self.tell(node, [wake]);
                }
            }
            Event::Arrives { from, incarnation, link, peer, addresses } => {
                self.arrives(from, incarnation, link, peer, addresses)
            }
            Event::Dialled { node, incarnation, link, peer, result, failed } => {
                if !self.is_current(node, incarnation) {
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
                self.tell(node, [CoreInput::Connections(connections::Input::Dialled { link, peer, result, failed })]);
            }
            Event::LinkClosed { node, incarnation, link, peer } => {
                if self.is_current(node, incarnation) {
                    self.tell(
                        node,
                        [CoreInput::Connections(connections::Input::LinkClosed {
                            link,
                            peer,
                            end: connections::ConnectionEnd::Usual,
                        })],
                    );
                }
            }
            Event::InboundClosed { node, incarnation, connection } => {
                if self.is_current(node, incarnation) {
                    if let Some(process) = &mut self.machines[node].process {
                        process.inbound.remove(&connection);
                    }
                    self.tell(
                        node,
                        [CoreInput::Connections(connections::Input::InboundClosed {
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

    /// Connects to the first address at which the peer listens and admits the connection.
    fn arrives(&mut self, from: Party, incarnation: u64, link: LinkId, peer: PeerId, addresses: Vec<Address>) {
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
            Party::Honest(node) => self.later(Event::Dialled { node, incarnation, link, peer, result, failed }),
            Party::Attacker(_) => {
                if let Ok((connection, _)) = result {
                    let own_info = self.infos[self.attacker_infos[link.0 as usize]].bytes.clone();
                    self.later(Event::Asked { connection, own_info });
                }
            }
        }
    }

    /// Returns true if `to` admits the connection, whose id is then `last_connection`.
    fn admits(&mut self, from: Party, to: Party, link: LinkId) -> bool {
        self.last_connection += 1;
        let connection = self.last_connection;
        self.connections.insert(connection, Connection { from, link, to });
        if let Party::Attacker(number) = from {
            self.held[number] += 1;
        }
        if let Party::Honest(node) = to {
            let (peer, source) = self.party(from);
            self.tell(node, [CoreInput::Connections(connections::Input::Inbound { connection, peer, source })]);
        }
        self.connections.contains_key(&connection)
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
                self.tell(node, [CoreInput::Discovery(asked)]);
            }
            Party::Attacker(identity) => {
                let announced = attacker::announced(self.attackers.len(), &mut self.rng);
                let mut infos = vec![self.attacker_infos[identity]];
                infos.extend(announced.into_iter().map(|number| self.attacker_infos[number]));
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
        self.tell(node, [CoreInput::Discovery(discovery::Input::Answered { peer, remote, answer })]);
        // A probe ends with its first answer.
        let kept = self.machines[node].process.as_ref().is_some_and(|process| process.links.contains_key(&link));
        if !kept {
            self.close(connection);
        }
    }

    /// Dials one more honest node, up to the limit of an identity.
    fn attack(&mut self, identity: usize) {
        let again = self.now + self.settings.interval / 4 + self.latency();
        self.at(again, Event::Attack { identity });
        if self.held[identity] < attacker::VICTIMS_AT_ONCE {
            let node = attacker::victim(self.machines.len(), &mut self.rng);
            let (peer, addresses) = (self.machines[node].peer, vec![self.machines[node].address.clone()]);
            let link = LinkId(identity as u64);
            self.later(Event::Arrives { from: Party::Attacker(identity), incarnation: 0, link, peer, addresses });
        }
    }
}
