//! Dials and links: connections that this node makes.

use super::{Connections, DialFailure, DialPurpose, Effect, Endpoint, LinkId};
use crate::core::{LostReason, Now, PeerEvent};
use serde::{Deserialize, Serialize};
use soma_types::{Address, NetworkGroup, PeerId};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// How long a dial keeps its place from others: an honest peer has answered by then.
const LATE_DIAL_AFTER: Duration = Duration::from_secs(1);

/// How many times as many dials there may be with those that are late.
const MAX_LATE_DIALS: usize = 4;

/// Dials at once, those that are late included.
pub fn most_dials(max_dials: usize) -> usize {
    max_dials * MAX_LATE_DIALS
}

/// Dials under way, and links.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Links {
    last_id: u64,
    outbound: BTreeMap<PeerId, Outbound>,
    probes: BTreeMap<PeerId, LinkId>,
    /// When each dial under way began.
    begun: BTreeMap<LinkId, Duration>,
}

#[derive(Serialize, Deserialize)]
struct Outbound {
    link: LinkId,
    state: State,
}

#[derive(Serialize, Deserialize)]
enum State {
    /// To addresses of these networks.
    Dialling(BTreeSet<NetworkGroup>),
    Connected {
        address: Address,
        group: NetworkGroup,
        since: Duration,
    },
}

impl Outbound {
    fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    fn is_in(&self, group: &NetworkGroup) -> bool {
        match &self.state {
            State::Dialling(groups) => groups.contains(group),
            State::Connected { group: connected, .. } => connected == group,
        }
    }
}

impl Links {
    /// Dials under way, of either purpose.
    pub(super) fn dials(&self) -> usize {
        self.begun.len()
    }

    /// When each dial under way is late.
    pub(super) fn late_at(&self) -> impl Iterator<Item = Duration> {
        self.begun.values().map(|begun| *begun + LATE_DIAL_AFTER)
    }

    /// Whether another dial may begin.
    fn has_place(&self, now: Duration, max_dials: usize) -> bool {
        let prompt = self.late_at().filter(|late_at| *late_at > now).count();
        prompt < max_dials && self.dials() < most_dials(max_dials)
    }

    /// Peers that there is a link to.
    pub(super) fn connected(&self) -> impl Iterator<Item = PeerId> {
        self.outbound.iter().filter(|(_, outbound)| outbound.is_connected()).map(|(peer, _)| *peer)
    }

    /// Whether the peer is linked or being dialled, for any purpose.
    fn is_busy(&self, peer: PeerId) -> bool {
        self.outbound.contains_key(&peer) || self.probes.contains_key(&peer)
    }

    fn is_dialling(&self, peer: PeerId, link: LinkId) -> bool {
        self.outbound.get(&peer).is_some_and(|outbound| outbound.link == link && !outbound.is_connected())
    }
}

/// Dials that were asked for and have not begun, in this order.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Waiting(VecDeque<WaitingDial>);

#[derive(Serialize, Deserialize)]
struct WaitingDial {
    peer: PeerId,
    addresses: Vec<Address>,
    purpose: DialPurpose,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, peer: PeerId, purpose: DialPurpose) -> bool {
        self.0.iter().any(|dial| dial.peer == peer && dial.purpose == purpose)
    }

    /// Takes out the first of those with the lowest rank; those without a rank stay.
    fn take(&mut self, rank: impl Fn(&WaitingDial) -> Option<u8>) -> Option<WaitingDial> {
        let ranked = self.0.iter().enumerate().filter_map(|(place, dial)| Some((rank(dial)?, place)));
        let (_, place) = ranked.min()?;
        self.0.remove(place)
    }
}

/// The network that a link really goes to: what a name resolves to is known by now.
fn group_of(endpoint: &Endpoint) -> NetworkGroup {
    endpoint.ip.map_or_else(|| NetworkGroup::of(&endpoint.address), NetworkGroup::of_ip)
}

fn refusal(peer: PeerId, purpose: DialPurpose, failure: DialFailure) -> Effect {
    match purpose {
        DialPurpose::Link => Effect::DialFailed { peer, failure },
        DialPurpose::Probe => Effect::ProbeFailed { peer, failure },
    }
}

impl Connections {
    pub(super) fn on_dial(
        &mut self,
        now: Now,
        peer: PeerId,
        addresses: Vec<Address>,
        purpose: DialPurpose,
        effects: &mut Vec<Effect>,
    ) {
        // A link is dialled also while the peer is probed: it waits its turn. A probe of a linked peer would tell
        // nothing.
        let under_way = match purpose {
            DialPurpose::Link => self.links.outbound.contains_key(&peer),
            DialPurpose::Probe => self.links.is_busy(peer),
        };
        if under_way || self.waiting.contains(peer, purpose) {
            return;
        }
        let refused = match self.kept_out(now, peer) {
            Some(failure) => Some(failure),
            None => self.usable(now, peer, purpose, &addresses).err(),
        };
        if let Some(failure) = refused {
            effects.push(refusal(peer, purpose, failure));
        } else if !self.has_room_reserved(peer, purpose) && self.strangers_waiting() >= self.config.max_waiting_dials {
            effects.push(refusal(peer, purpose, DialFailure::Full));
        } else {
            self.waiting.0.push_back(WaitingDial { peer, addresses, purpose });
        }
    }

    /// Links of trusted peers count in no limit: the number of trusted peers bounds them.
    fn has_room_reserved(&self, peer: PeerId, purpose: DialPurpose) -> bool {
        purpose == DialPurpose::Link && self.is_trusted(peer)
    }

    fn strangers_waiting(&self) -> usize {
        self.waiting.0.iter().filter(|dial| !self.has_room_reserved(dial.peer, dial.purpose)).count()
    }

    /// Dials and links to peers that are not trusted.
    fn strangers(&self) -> impl Iterator<Item = &Outbound> {
        self.links.outbound.iter().filter(|(peer, _)| !self.is_trusted(**peer)).map(|(_, outbound)| outbound)
    }

    /// The addresses that may be dialled now: neither given a pause nor in a network with enough links.
    fn usable(
        &self,
        now: Now,
        peer: PeerId,
        purpose: DialPurpose,
        addresses: &[Address],
    ) -> Result<Vec<Address>, DialFailure> {
        if addresses.is_empty() {
            return Err(DialFailure::Unreachable { reason: "no address is known".into() });
        }
        let limited = purpose == DialPurpose::Link && self.is_of_limited_group(peer);
        let (mut usable, mut first_wait) = (Vec::new(), None::<Duration>);
        for address in addresses {
            if let Some(wait) = self.failed_addresses.wait(now, peer, address) {
                first_wait = Some(first_wait.map_or(wait, |first| first.min(wait)));
            } else if !limited || self.has_room(&NetworkGroup::of(address), |_| true) {
                usable.push(address.clone());
            }
        }
        match first_wait {
            _ if !usable.is_empty() => Ok(usable),
            Some(wait) => Err(DialFailure::Pausing { wait }),
            None => Err(DialFailure::GroupFull),
        }
    }

    /// Whether links to the peer count with their network.
    fn is_of_limited_group(&self, peer: PeerId) -> bool {
        !self.is_trusted(peer) && !self.config.seeds.contains(&peer)
    }

    /// Whether one more link to the network would be within the limit, of those that count.
    fn has_room(&self, group: &NetworkGroup, counts: impl Fn(&Outbound) -> bool) -> bool {
        let links = || {
            let limited = self.links.outbound.iter().filter(|(peer, _)| self.is_of_limited_group(**peer));
            limited.filter(|(_, outbound)| counts(outbound) && outbound.is_in(group)).count()
        };
        // What a name stands for is known when it has been dialled.
        group.is_near() || group.is_name() || links() < self.config.max_outbound_per_group
    }

    /// Starts waiting dials that have room: links of trusted peers first, probes last.
    pub(super) fn start_dials(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.links.has_place(now.monotonic, self.config.max_dials) {
            let has_room = self.strangers().count() < self.config.max_outbound;
            // Peers that ask and never answer do not keep this node from dialling others.
            let may_probe = self.links.probes.len() < self.config.max_dials.div_ceil(2);
            let mut waiting = std::mem::take(&mut self.waiting);
            let next = waiting.take(|dial| match dial.purpose {
                _ if self.links.is_busy(dial.peer) => None,
                DialPurpose::Link if self.is_trusted(dial.peer) => Some(0),
                DialPurpose::Link => has_room.then_some(1),
                DialPurpose::Probe => may_probe.then_some(2),
            });
            self.waiting = waiting;
            let Some(WaitingDial { peer, addresses, purpose }) = next else { break };
            // Failures and links of the meantime count.
            match self.usable(now, peer, purpose, &addresses) {
                Ok(addresses) => effects.push(self.start_dial(now, peer, addresses, purpose)),
                Err(failure) => effects.push(refusal(peer, purpose, failure)),
            }
        }
    }

    fn start_dial(&mut self, now: Now, peer: PeerId, addresses: Vec<Address>, purpose: DialPurpose) -> Effect {
        self.links.last_id += 1;
        let link = LinkId(self.links.last_id);
        self.links.begun.insert(link, now.monotonic);
        match purpose {
            DialPurpose::Link => {
                let groups = addresses.iter().map(NetworkGroup::of).collect();
                self.links.outbound.insert(peer, Outbound { link, state: State::Dialling(groups) });
            }
            DialPurpose::Probe => drop(self.links.probes.insert(peer, link)),
        }
        Effect::Dial { link, peer, addresses }
    }

    pub(super) fn on_dialled(
        &mut self,
        now: Now,
        link: LinkId,
        peer: PeerId,
        result: Result<Endpoint, DialFailure>,
        failed: Vec<Address>,
        effects: &mut Vec<Effect>,
    ) {
        self.links.begun.remove(&link);
        for address in failed {
            self.failed_addresses.failed(now, peer, address, &mut self.rng);
        }
        let purpose = if self.links.probes.get(&peer) == Some(&link) {
            self.links.probes.remove(&peer);
            DialPurpose::Probe
        } else if self.links.is_dialling(peer, link) {
            self.links.outbound.remove(&peer);
            DialPurpose::Link
        } else {
            if result.is_ok() {
                effects.push(Effect::HangUp { link, peer });
            }
            return;
        };
        let endpoint = match result {
            Ok(endpoint) => endpoint,
            Err(failure) => return effects.push(refusal(peer, purpose, failure)),
        };
        let refused = match self.kept_out(now, peer) {
            Some(failure) => Some(failure),
            None if purpose == DialPurpose::Probe => return effects.push(Effect::HandOver { link, peer }),
            None => self.exceeds_group(peer, &endpoint).then_some(DialFailure::GroupFull),
        };
        match refused {
            Some(failure) => {
                // Not dialled in vain again and again: a name may well hide a network that is full.
                self.failed_addresses.failed(now, peer, endpoint.address, &mut self.rng);
                effects.push(Effect::HangUp { link, peer });
                effects.push(refusal(peer, purpose, failure));
            }
            None => {
                let group = group_of(&endpoint);
                let state = State::Connected { address: endpoint.address, group, since: now.monotonic };
                self.links.outbound.insert(peer, Outbound { link, state });
                self.waiting.0.retain(|dial| dial.peer != peer);
                effects.push(Effect::Event(PeerEvent::Connected(peer)));
            }
        }
    }

    fn exceeds_group(&self, peer: PeerId, endpoint: &Endpoint) -> bool {
        self.is_of_limited_group(peer) && !self.has_room(&group_of(endpoint), Outbound::is_connected)
    }

    pub(super) fn on_link_closed(&mut self, now: Now, link: LinkId, peer: PeerId, effects: &mut Vec<Effect>) {
        let ended = self.links.outbound.get(&peer).filter(|outbound| outbound.link == link);
        let Some(State::Connected { address, since, .. }) = ended.map(|outbound| &outbound.state) else { return };
        self.failed_addresses.link_ended(now, *since, peer, address.clone(), &mut self.rng);
        self.links.outbound.remove(&peer);
        effects.push(Effect::Event(PeerEvent::Lost { peer, reason: LostReason::Closed }));
    }

    /// Refuses the dials that wait for a peer that was banned. A dial under way is hung up when it comes through.
    pub(super) fn refuse_waiting(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        let (refused, waiting) = std::mem::take(&mut self.waiting.0).into_iter().partition(|dial| dial.peer == peer);
        self.waiting.0 = waiting;
        let refused: VecDeque<WaitingDial> = refused;
        effects.extend(refused.into_iter().map(|dial| refusal(peer, dial.purpose, DialFailure::Banned)));
    }

    /// Ends the link to the peer, if there is one.
    pub(super) fn end_link(&mut self, peer: PeerId, reason: LostReason, effects: &mut Vec<Effect>) {
        if let Some(Outbound { link, state: State::Connected { .. } }) = self.links.outbound.get(&peer) {
            let link = *link;
            self.links.outbound.remove(&peer);
            effects.push(Effect::HangUp { link, peer });
            effects.push(Effect::Event(PeerEvent::Lost { peer, reason }));
        }
    }
}
