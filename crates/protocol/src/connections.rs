//! Connections: whom this node dials, whom it lets in, and who is connected.
//!
//! A peer may have an outbound link (we ask over it) and inbound connections (it asks us); the two live and die
//! independently. Always:
//! - At most one dial or link for a peer; at most [`Config::max_outbound`] links, [`Config::max_dials`] dials and
//!   [`Config::max_waiting_dials`] waiting to be dialled.
//! - Inbound has its own limit, in all, for each peer and for each source address, so neither side can take the other's slots.
//! - A failed dial is followed by a pause that doubles; a banned peer is neither dialled nor let in.

use crate::core::{Core, Now, PeerEvent};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Address, PeerId};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// First pause after a failed dial.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest pause after failed dials.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Peers whose failed dials or bans are remembered. Beyond, the entry that ends first is forgotten.
const MAX_REMEMBERED: usize = 4_096;

/// How Connections works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Outbound links.
    pub max_outbound: usize,
    /// Inbound connections in all.
    pub max_inbound: usize,
    /// Inbound connections from one source address. Loopback is exempt: there it says nothing of who calls.
    pub max_inbound_per_source: usize,
    /// Inbound connections of one peer: one, and one more for a reconnection that overtakes the old one's end.
    pub max_inbound_per_peer: usize,
    /// Dials at once.
    pub max_dials: usize,
    /// Dials asked for and not yet begun.
    pub max_waiting_dials: usize,
    /// Seed of the jitter in pauses.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_outbound: 50,
            max_inbound: 100,
            max_inbound_per_source: 10,
            max_inbound_per_peer: 2,
            max_dials: 8,
            max_waiting_dials: 256,
            seed: 0,
        }
    }
}

/// What a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DialPurpose {
    /// A link that stays.
    Link,
    /// To see whether the peer can be reached where it says; the link goes to Discovery, which ends it.
    Probe,
}

/// Names one dial and the link that comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId(pub u64);

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum DialFailure {
    /// No connection, or the handshake failed.
    #[error("{reason}")]
    Unreachable {
        /// What the transport said.
        reason: String,
    },
    /// Somebody else answered.
    #[error("another key than the dialled one answered: {reason}")]
    WrongKey {
        /// Which key.
        reason: String,
    },
    /// The peer is on another chain.
    #[error("it is on another chain: {reason}")]
    OtherChain {
        /// Which.
        reason: String,
    },
    /// Banned here.
    #[error("it is banned")]
    Banned,
    /// No slot free.
    #[error("no outbound slot is free")]
    Full,
}

impl DialFailure {
    /// Whether it says something of the peer, and not only of this node.
    pub fn is_of_peer(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::WrongKey { .. } | Self::OtherChain { .. } => true,
            Self::Banned | Self::Full => false,
        }
    }
}

/// What can happen to Connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Discovery: this peer is to be dialled.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where, best first.
        addresses: Vec<Address>,
        /// What for.
        purpose: DialPurpose,
    },
    /// From the shell's dial, answering [`Effect::Dial`].
    Dialled {
        /// Which dial.
        link: LinkId,
        /// Whom.
        peer: PeerId,
        /// Connected, or why not.
        result: Result<(), DialFailure>,
    },
    /// From the transport: a link ended.
    LinkClosed {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: PeerId,
    },
    /// From the transport: a peer has connected and asks to stay.
    Inbound {
        /// Which connection.
        connection: u64,
        /// Who.
        peer: PeerId,
        /// From where.
        source: IpAddr,
    },
    /// From the transport: an admitted inbound connection ended.
    InboundClosed {
        /// Which.
        connection: u64,
    },
    /// From PeerHeights: keep this peer out.
    Ban {
        /// Whom.
        peer: PeerId,
        /// For how long.
        duration: Duration,
    },
    /// From one of those who ask peers, when it starts: who is connected?
    WhoIsConnected {
        /// Its name.
        subscriber: String,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Dial; answer with [`Input::Dialled`].
    Dial {
        /// Names the dial.
        link: LinkId,
        /// Whom.
        peer: PeerId,
        /// Where, best first.
        addresses: Vec<Address>,
    },
    /// End a link, or a dial that came through too late.
    HangUp {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: PeerId,
    },
    /// Answer an [`Input::Inbound`].
    Admit {
        /// Which.
        connection: u64,
        /// Whether it may stay.
        admitted: bool,
    },
    /// End an inbound connection.
    HangUpInbound {
        /// Which.
        connection: u64,
    },
    /// Tell all who ask peers.
    Event(PeerEvent),
    /// Tell one of them of every link there is.
    TellConnected {
        /// Its name.
        subscriber: String,
        /// To whom.
        peers: Vec<PeerId>,
    },
    /// Tell Discovery that a dial it asked for failed.
    DialFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
}

/// Connections as operators see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Peers with an outbound link.
    pub outbound: Vec<PeerId>,
    /// Peers with an inbound connection.
    pub inbound: Vec<PeerId>,
    /// Dials under way.
    pub dialling: usize,
    /// Peers kept out.
    pub banned: Vec<PeerId>,
}

#[derive(Serialize, Deserialize)]
enum Outbound {
    Dialling(LinkId),
    Connected(LinkId),
}

/// The core of Connections.
#[derive(Serialize, Deserialize)]
pub struct Connections {
    config: Config,
    rng: ChaCha8Rng,
    next_link: u64,
    outbound: BTreeMap<PeerId, Outbound>,
    waiting: VecDeque<(PeerId, Vec<Address>)>,
    inbound: BTreeMap<u64, (PeerId, IpAddr)>,
    /// Failed dials in a row, and until when there is no further one.
    backoff: BTreeMap<PeerId, (u32, Duration)>,
    banned: BTreeMap<PeerId, Duration>,
    last_now: Duration,
}

impl Connections {
    /// Starts without connections.
    pub fn new(config: Config) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            next_link: 0,
            outbound: BTreeMap::new(),
            waiting: VecDeque::new(),
            inbound: BTreeMap::new(),
            backoff: BTreeMap::new(),
            banned: BTreeMap::new(),
            last_now: Duration::ZERO,
        }
    }

    fn is_banned(&self, now: Now, peer: PeerId) -> bool {
        self.banned.get(&peer).is_some_and(|until| *until > now.monotonic)
    }

    fn dials(&self) -> usize {
        self.outbound.values().filter(|state| matches!(state, Outbound::Dialling(_))).count()
    }

    fn connected(&self) -> impl Iterator<Item = PeerId> {
        self.outbound.iter().filter(|(_, state)| matches!(state, Outbound::Connected(_))).map(|(peer, _)| *peer)
    }

    fn on_dial(&mut self, now: Now, peer: PeerId, addresses: Vec<Address>, effects: &mut Vec<Effect>) {
        let known = self.outbound.contains_key(&peer) || self.waiting.iter().any(|(waiting, _)| *waiting == peer);
        let pausing = self.backoff.get(&peer).is_some_and(|(_, until)| *until > now.monotonic);
        if known || pausing || addresses.is_empty() {
            return;
        }
        let refuse = |failure| Effect::DialFailed { peer, failure };
        if self.is_banned(now, peer) {
            effects.push(refuse(DialFailure::Banned));
        } else if self.outbound.len() + self.waiting.len() >= self.config.max_outbound + self.config.max_waiting_dials
            || self.waiting.len() >= self.config.max_waiting_dials
        {
            effects.push(refuse(DialFailure::Full));
        } else {
            self.waiting.push_back((peer, addresses));
        }
    }

    fn start_dials(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.dials() < self.config.max_dials && self.outbound.len() < self.config.max_outbound {
            let Some((peer, addresses)) = self.waiting.pop_front() else { break };
            if self.is_banned(now, peer) {
                continue;
            }
            self.next_link += 1;
            let link = LinkId(self.next_link);
            self.outbound.insert(peer, Outbound::Dialling(link));
            effects.push(Effect::Dial { link, peer, addresses });
        }
    }

    fn on_dialled(
        &mut self,
        now: Now,
        link: LinkId,
        peer: PeerId,
        result: Result<(), DialFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let expected = matches!(self.outbound.get(&peer), Some(Outbound::Dialling(dialled)) if *dialled == link);
        if !expected || (result.is_ok() && self.is_banned(now, peer)) {
            if expected {
                self.outbound.remove(&peer);
            }
            if result.is_ok() {
                effects.push(Effect::HangUp { link, peer });
            }
            return;
        }
        match result {
            Ok(()) => {
                self.backoff.remove(&peer);
                self.outbound.insert(peer, Outbound::Connected(link));
                effects.push(Effect::Event(PeerEvent::Connected(peer)));
            }
            Err(failure) => {
                self.outbound.remove(&peer);
                self.back_off(now, peer);
                effects.push(Effect::DialFailed { peer, failure });
            }
        }
    }

    /// No dial to the peer for a while: up to the doubled pause, at least half of it.
    fn back_off(&mut self, now: Now, peer: PeerId) {
        let failures = self.backoff.get(&peer).map_or(0, |(failures, _)| *failures);
        let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        let pause = pause.mul_f64(self.rng.random_range(0.5..=1.0));
        if self.backoff.len() >= MAX_REMEMBERED {
            forget_first(&mut self.backoff, |(_, until)| *until);
        }
        self.backoff.insert(peer, (failures + 1, now.monotonic + pause));
    }

    fn on_link_closed(&mut self, now: Now, link: LinkId, peer: PeerId, effects: &mut Vec<Effect>) {
        if matches!(self.outbound.get(&peer), Some(Outbound::Connected(current)) if *current == link) {
            self.outbound.remove(&peer);
            // A peer that accepts and hangs up at once is not dialled in a tight loop.
            self.back_off(now, peer);
            effects.push(Effect::Event(PeerEvent::Lost(peer)));
        }
    }

    fn admits(&self, now: Now, peer: PeerId, source: IpAddr) -> bool {
        let of_peer = self.inbound.values().filter(|(other, _)| *other == peer).count();
        let of_source = self.inbound.values().filter(|(_, other)| host(*other) == host(source)).count();
        !self.is_banned(now, peer)
            && self.inbound.len() < self.config.max_inbound
            && of_peer < self.config.max_inbound_per_peer
            && (source.is_loopback() || of_source < self.config.max_inbound_per_source)
    }

    fn on_ban(&mut self, now: Now, peer: PeerId, duration: Duration, effects: &mut Vec<Effect>) {
        if self.banned.len() >= MAX_REMEMBERED {
            forget_first(&mut self.banned, |until| *until);
        }
        self.banned.insert(peer, now.monotonic + duration);
        self.waiting.retain(|(waiting, _)| *waiting != peer);
        if let Some(Outbound::Connected(link)) = self.outbound.get(&peer) {
            let link = *link;
            self.outbound.remove(&peer);
            effects.push(Effect::HangUp { link, peer });
            effects.push(Effect::Event(PeerEvent::Lost(peer)));
        }
        let connections: Vec<_> =
            self.inbound.iter().filter(|(_, (other, _))| *other == peer).map(|(connection, _)| *connection).collect();
        for connection in connections {
            self.inbound.remove(&connection);
            effects.push(Effect::HangUpInbound { connection });
        }
    }
}

/// Makes room by forgetting the entry whose time comes first.
fn forget_first<V>(entries: &mut BTreeMap<PeerId, V>, until: impl Fn(&V) -> Duration) {
    if let Some(first) = entries.iter().min_by_key(|(_, value)| until(value)).map(|(peer, _)| *peer) {
        entries.remove(&first);
    }
}

/// Who is behind an address: whoever has one IPv6 address has all 2^64 of its network.
fn host(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        IpAddr::V4(_) => source,
    }
}

impl Core for Connections {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "connections";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.last_now = now.monotonic;
        let mut effects = Vec::new();
        match input {
            Input::Wake => self.banned.retain(|_, until| *until > now.monotonic),
            Input::Dial { peer, addresses, purpose: _ } => self.on_dial(now, peer, addresses, &mut effects),
            Input::Dialled { link, peer, result } => self.on_dialled(now, link, peer, result, &mut effects),
            Input::LinkClosed { link, peer } => self.on_link_closed(now, link, peer, &mut effects),
            Input::Inbound { connection, peer, source } => {
                let admitted = self.admits(now, peer, source);
                if admitted {
                    self.inbound.insert(connection, (peer, source));
                }
                effects.push(Effect::Admit { connection, admitted });
            }
            Input::InboundClosed { connection } => {
                self.inbound.remove(&connection);
            }
            Input::Ban { peer, duration } => self.on_ban(now, peer, duration, &mut effects),
            Input::WhoIsConnected { subscriber } => {
                effects.push(Effect::TellConnected { subscriber, peers: self.connected().collect() });
            }
        }
        self.start_dials(now, &mut effects);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        self.banned.values().copied().filter(|until| *until > self.last_now).min()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            outbound: self.connected().collect(),
            inbound: self.inbound.values().map(|(peer, _)| *peer).collect(),
            dialling: self.dials(),
            banned: self.banned.keys().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
