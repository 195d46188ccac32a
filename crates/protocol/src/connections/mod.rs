//! Connections: whom this node dials, whom it lets in, and who is connected.
//!
//! ```text
//!   Dial --> waiting --> dial --> Link:  registry, Connected ... Lost      (outbound.rs, failed_addresses.rs)
//!                             \-> Probe: handed to Discovery, which ends it
//!   Inbound --> admitted, in somebody's place if there is no room, or refused (inbound.rs)
//! ```
//!
//! A connection has a direction: whoever made it asks over it. A peer may have an outbound link (we ask over it) and
//! inbound connections (it asks us); the two live and die independently, so two nodes that dial each other at once end
//! with one link each way and neither is a duplicate of the other. Always:
//! - At most one dial or link for a peer, and one dial waiting for each purpose; at most [`Config::max_dials`] dials.
//!   Beside trusted peers at most [`Config::max_outbound`] links, [`Config::max_outbound_per_group`] of them to one
//!   network that is not near by, and [`Config::max_waiting_dials`] dials that wait.
//! - A probe is a dial and never a link: it counts as a dial only, and nobody but Discovery hears of it.
//! - An address that failed is left alone for a pause that doubles; a banned or denied peer is neither dialled nor let in.
//! - Inbound has its own limit, in all, for each peer and for each source address, so neither side can take the other's
//!   slots. Only trusted peers go beyond the one in all.
//! - Trusted are the allowlist and the validators of the current committee: their number is bounded, so they need no other
//!   bound, and no newcomer takes their place.

mod failed_addresses;
mod inbound;
mod outbound;
mod stalls;

use crate::core::{Core, Now, PeerEvent};
use failed_addresses::FailedAddresses;
use inbound::InboundTable;
pub use outbound::most_dials;
use outbound::{Links, Waiting};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Address, Fault, PeerId};
use stalls::Stalls;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use strum::VariantNames;

/// Peers whose bans are remembered. Beyond, the ban that ends first is forgotten.
const MAX_BANS: usize = 4_096;

/// How Connections works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Outbound links, beside those to trusted peers.
    pub max_outbound: usize,
    /// Those of them to one network. Machines near by, trusted peers and seeds are exempt.
    pub max_outbound_per_group: usize,
    /// Inbound connections in all. 0 lets nobody in; otherwise trusted peers may go beyond it.
    pub max_inbound: usize,
    /// Inbound connections from one source address. Loopback is exempt: there it says nothing of who calls. So are
    /// trusted peers.
    pub max_inbound_per_source: usize,
    /// Inbound connections of one peer: one, and one more for a reconnection that overtakes the old one's end.
    pub max_inbound_per_peer: usize,
    /// Dials at once.
    pub max_dials: usize,
    /// Dials asked for and not yet begun, beside those of trusted peers.
    pub max_waiting_dials: usize,
    /// Peers that are always welcome.
    pub allowlist: BTreeSet<PeerId>,
    /// Peers that are neither dialled nor let in.
    pub denylist: BTreeSet<PeerId>,
    /// Peers that the operator begins with: their networks are of his choice.
    pub seeds: BTreeSet<PeerId>,
    /// Seed of the jitter in pauses and of the choice whom no newcomer displaces.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_outbound: 50,
            max_outbound_per_group: 2,
            max_inbound: 100,
            max_inbound_per_source: 10,
            max_inbound_per_peer: 2,
            max_dials: 8,
            max_waiting_dials: 256,
            allowlist: BTreeSet::new(),
            denylist: BTreeSet::new(),
            seeds: BTreeSet::new(),
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
    /// The peer is there, and lets this node not in: it is full, or has banned it.
    #[error("it does not let this node in: {reason}")]
    Refused {
        /// What the transport said.
        reason: String,
    },
    /// Banned here.
    #[error("it is banned")]
    Banned,
    /// On the denylist.
    #[error("it is on the denylist")]
    Denied,
    /// Every address failed lately: there is no dial under way.
    #[error("its addresses failed lately, and the first is dialled again in {wait:?}")]
    Pausing {
        /// Until the first of them may be dialled.
        wait: Duration,
    },
    /// There are as many links to its networks as there may be.
    #[error("there are enough links to its network")]
    GroupFull,
    /// No slot free.
    #[error("no outbound slot is free")]
    Full,
}

impl DialFailure {
    /// Whether it says something of the peer, and not only of this node.
    pub fn is_of_peer(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::WrongKey { .. } | Self::OtherChain { .. } => true,
            Self::Refused { .. }
            | Self::Banned
            | Self::Denied
            | Self::Pausing { .. }
            | Self::GroupFull
            | Self::Full => false,
        }
    }
}

/// Where a link goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address that was dialled.
    pub address: Address,
    /// The IP address behind it, where that is known.
    pub ip: Option<IpAddr>,
}

/// Why an inbound connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InboundEnd {
    /// Its peer was banned.
    Banned,
    /// Somebody else was given its place.
    Evicted,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionEnd {
    /// One side hung up, or the other cannot be reached any more.
    Usual,
    /// The peer sent HTTP/2 frames as no honest peer does.
    Flooded,
    /// The peer did not read what it had asked for.
    Stalled,
}

/// What can happen to Connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
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
        /// Where it has connected, or why not.
        result: Result<Endpoint, DialFailure>,
        /// Addresses that did not work.
        failed: Vec<Address>,
    },
    /// From the transport: a link ended.
    LinkClosed {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: PeerId,
        /// How.
        end: ConnectionEnd,
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
        /// How.
        end: ConnectionEnd,
    },
    /// From PeerHeights: keep this peer out.
    Ban {
        /// Whom.
        peer: PeerId,
        /// For how long.
        duration: Duration,
    },
    /// From StateSync: the validators of the epoch of the next commit.
    Committee {
        /// Their network keys.
        validators: Vec<PeerId>,
    },
    /// From PeerHeights: these peers told of something new or served.
    Useful {
        /// Who.
        peers: Vec<PeerId>,
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
    /// Hand the link of a probe to Discovery. Nothing is kept of it here.
    HandOver {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: PeerId,
    },
    /// Tell Discovery that a probe failed.
    ProbeFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
    /// Answer an [`Input::Inbound`].
    Admit {
        /// Which.
        connection: u64,
        /// Whether it may stay.
        admitted: bool,
    },
    /// The peer of an admitted connection is known: what strangers share does not limit it.
    Favour {
        /// Which connection.
        connection: u64,
        /// For how long; `None`: as long as the connection lives.
        time: Option<Duration>,
    },
    /// End an inbound connection.
    HangUpInbound {
        /// Which.
        connection: u64,
        /// Why.
        reason: InboundEnd,
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
    /// Tell PeerHeights of a fault of the peer.
    Report {
        /// Whose.
        peer: PeerId,
        /// Of which kind.
        fault: Fault,
        /// What it did.
        reason: String,
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
    /// Peers that are always welcome: the allowlist and the current validators.
    pub trusted: Vec<PeerId>,
}

/// The core of Connections.
#[derive(Serialize, Deserialize)]
pub struct Connections {
    config: Config,
    rng: ChaCha8Rng,
    validators: BTreeSet<PeerId>,
    links: Links,
    waiting: Waiting,
    inbound: InboundTable,
    failed_addresses: FailedAddresses,
    banned: BTreeMap<PeerId, Duration>,
    stalls: Stalls,
    last_now: Duration,
}

impl Connections {
    /// Starts without connections, and without a committee.
    pub fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self {
            inbound: InboundTable::new(rng.random()),
            rng,
            config,
            validators: BTreeSet::new(),
            links: Links::default(),
            waiting: Waiting::default(),
            failed_addresses: FailedAddresses::default(),
            banned: BTreeMap::new(),
            stalls: Stalls::default(),
            last_now: Duration::ZERO,
        }
    }

    fn is_trusted(&self, peer: PeerId) -> bool {
        self.config.allowlist.contains(&peer) || self.validators.contains(&peer)
    }

    /// Why the peer is to be kept out, if it is.
    fn kept_out(&self, now: Now, peer: PeerId) -> Option<DialFailure> {
        if self.config.denylist.contains(&peer) {
            return Some(DialFailure::Denied);
        }
        self.banned.get(&peer).is_some_and(|until| *until > now.monotonic).then_some(DialFailure::Banned)
    }

    /// A peer that floods a connection proves itself hostile, whichever of the two made it.
    fn on_flooded(&self, peer: PeerId, end: ConnectionEnd, effects: &mut Vec<Effect>) {
        if end == ConnectionEnd::Flooded {
            let reason = "it flooded its connection with HTTP/2 frames".into();
            effects.push(Effect::Report { peer, fault: Fault::Malformed, reason });
        }
    }

    fn on_ban(&mut self, now: Now, peer: PeerId, duration: Duration, effects: &mut Vec<Effect>) {
        if self.banned.len() >= MAX_BANS
            && let Some(first) = self.banned.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.banned.remove(&first);
        }
        self.banned.insert(peer, now.monotonic + duration);
        self.end_outbound(peer, effects);
        for connection in self.inbound.remove_peer(peer) {
            effects.push(Effect::HangUpInbound { connection, reason: InboundEnd::Banned });
        }
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
            Input::Dial { peer, addresses, purpose } => self.on_dial(now, peer, addresses, purpose, &mut effects),
            Input::Dialled { link, peer, result, failed } => {
                self.on_dialled(now, link, peer, result, failed, &mut effects);
            }
            Input::LinkClosed { link, peer, end } => {
                self.on_flooded(peer, end, &mut effects);
                self.on_link_closed(now, link, peer, &mut effects);
            }
            Input::Inbound { connection, peer, source } => {
                self.on_inbound(now, connection, peer, source, &mut effects);
            }
            Input::InboundClosed { connection, end } => self.on_inbound_closed(now, connection, end, &mut effects),
            Input::Ban { peer, duration } => self.on_ban(now, peer, duration, &mut effects),
            Input::Committee { validators } => self.on_committee(validators, &mut effects),
            Input::Useful { peers } => self.on_useful(now, peers, &mut effects),
            Input::WhoIsConnected { subscriber } => {
                effects.push(Effect::TellConnected { subscriber, peers: self.links.connected().collect() });
            }
        }
        self.start_dials(now, &mut effects);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let late = self.links.late_at().filter(|_| !self.waiting.is_empty());
        self.banned.values().copied().chain(late).filter(|at| *at > self.last_now).min()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            outbound: self.links.connected().collect(),
            inbound: self.inbound.peers().collect(),
            dialling: self.links.dials(),
            banned: self.banned.keys().copied().collect(),
            trusted: self.config.allowlist.union(&self.validators).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
