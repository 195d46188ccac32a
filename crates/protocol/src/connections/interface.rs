//! What goes into Connections, and what comes out.

use crate::{chosen_peers::ChosenPeers, core::PeerEvent};
use serde::{Deserialize, Serialize};
use soma_types::{Address, Fault, PeerId, TimestampMs};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use strum::VariantNames;

/// How Connections works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Outbound links, without those to trusted peers.
    pub max_outbound: usize,
    /// Maximum of these links to one network. Local machines, trusted peers and seeds are exempt.
    pub max_outbound_per_group: usize,
    /// Inbound connections in total. With 0 no peer gets in; otherwise trusted peers may exceed the limit.
    pub max_inbound: usize,
    /// Inbound connections from one source address. Loopback is exempt: there it does not identify the caller. So are
    /// trusted peers.
    pub max_inbound_per_source: usize,
    /// Inbound connections of one peer: one, and one more for a reconnection that overtakes the old one's end.
    pub max_inbound_per_peer: usize,
    /// Dials at once.
    pub max_dials: usize,
    /// Dials that wait, without those to trusted peers.
    pub max_waiting_dials: usize,
    /// Peers that are always welcome.
    pub allowlist: BTreeSet<PeerId>,
    /// Peers that are neither dialled nor let in.
    pub denylist: BTreeSet<PeerId>,
    /// Peers that the operator begins with: their networks are of his choice.
    pub seeds: BTreeSet<PeerId>,
    /// Seed of the jitter in pauses, and of the choice of protected networks.
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

impl Config {
    /// The same, with the peers that the operator chose.
    pub fn with_chosen_peers(self, chosen: &ChosenPeers) -> Self {
        Self { allowlist: chosen.trusted.clone(), seeds: chosen.seeds.keys().copied().collect(), ..self }
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

/// Identifies one dial and the link that it becomes.
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
    /// Another key answered.
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
        /// Time until the first address may be dialled.
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
    /// Another peer was given its place.
    Evicted,
    /// The operator had its peer disconnected.
    Disconnected,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionEnd {
    /// One side hung up, or the other cannot be reached any more.
    Usual,
    /// The peer sent HTTP/2 frames as no honest peer does.
    Flooded,
    /// The peer did not read the answers to its requests.
    Stalled,
}

/// What can happen to Connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Discovery: dial this peer.
    Dial {
        /// The peer.
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
        /// The peer.
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
        /// The peer.
        peer: PeerId,
        /// How.
        end: ConnectionEnd,
    },
    /// From the transport: a peer has connected and asks to stay.
    Inbound {
        /// Which connection.
        connection: u64,
        /// The peer.
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
        /// The peer.
        peer: PeerId,
        /// How long it lasts.
        duration: Duration,
        /// Why, for the status.
        reason: String,
    },
    /// From StateSync: the validators of the epoch of the next commit.
    Committee {
        /// Their network keys.
        validators: Vec<PeerId>,
    },
    /// From PeerHeights: these peers served a range, or announced a new commit.
    Useful {
        /// The peers.
        peers: Vec<PeerId>,
    },
    /// From a subscriber that starts: which peers are connected?
    WhoIsConnected {
        /// Its name.
        subscriber: String,
    },
    /// From the handle: the operator changed the seeds or the trusted peers.
    ChosenPeers(ChosenPeers),
    /// From the handle: end every connection with the peer.
    Disconnect {
        /// The peer. It may connect again.
        peer: PeerId,
    },
    /// From PeerHeights: let the peer in again.
    Unban {
        /// The peer.
        peer: PeerId,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Dial; answer with [`Input::Dialled`].
    Dial {
        /// Names the dial.
        link: LinkId,
        /// The peer.
        peer: PeerId,
        /// Where, best first.
        addresses: Vec<Address>,
    },
    /// End a link, or a dial that came through too late.
    HangUp {
        /// Which.
        link: LinkId,
        /// The peer.
        peer: PeerId,
    },
    /// Hand the link of a probe to Discovery. Connections keeps nothing of it.
    HandOver {
        /// Which.
        link: LinkId,
        /// The peer.
        peer: PeerId,
    },
    /// Tell Discovery that a probe failed.
    ProbeFailed {
        /// The peer.
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
    /// Tell all subscribers.
    Event(PeerEvent),
    /// Tell one subscriber of every link.
    TellConnected {
        /// Its name.
        subscriber: String,
        /// The subscriber.
        peers: Vec<PeerId>,
    },
    /// Tell PeerHeights of a fault of the peer.
    Report {
        /// The peer.
        peer: PeerId,
        /// Of which kind.
        fault: Fault,
        /// The peer's fault.
        reason: String,
    },
    /// Tell Discovery that a dial it asked for failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
}

/// A peer that is kept out for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BannedPeer {
    /// The peer.
    pub peer: PeerId,
    /// When the ban ends, in milliseconds since 1970.
    pub until_ms: TimestampMs,
    /// Why.
    pub reason: String,
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
    pub banned: Vec<BannedPeer>,
    /// Peers that are always welcome: the allowlist and the current validators.
    pub trusted: Vec<PeerId>,
}
