//! What goes into Discovery, and what comes out.

use super::{Seen, Trouble};
use crate::{
    chosen_peers::ChosenPeers,
    connections::{DialFailure, DialPurpose},
    core::{Opaque, PeerEvent},
};
use serde::{Deserialize, Serialize};
use soma_types::{Access, Address, NetworkGroup, PeerId, TimestampMs};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use strum::VariantNames;

/// How Discovery works. Defaults are the seed documents'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub own_id: PeerId,
    /// Peers to begin with; never given up.
    pub seeds: Vec<(PeerId, Vec<Address>)>,
    /// Peers to be connected to always, and trusted.
    pub allowlist: BTreeSet<PeerId>,
    /// Peers to have nothing to do with.
    pub denylist: BTreeSet<PeerId>,
    /// The advertised addresses of this node.
    pub addresses: Vec<Address>,
    /// Its port; with it and without addresses, the address is learned from what peers see.
    pub listen_port: Option<u16>,
    /// How often peers are asked for others.
    pub interval: Duration,
    /// How many peers are asked each time.
    pub peers_to_query: usize,
    /// How many links to have.
    pub target_connections: usize,
    /// Maximum links to one network.
    pub max_per_group: usize,
    /// Infos in one answer.
    pub max_answer: usize,
    /// Seed of all choices.
    pub seed: u64,
}

impl Config {
    /// The same, with the peers that the operator chose. This node itself is left out.
    pub fn with_chosen_peers(self, chosen: &ChosenPeers) -> Self {
        let seeds = chosen.seeds.iter().filter(|(peer, _)| **peer != self.own_id);
        let seeds = seeds.map(|(peer, addresses)| (*peer, addresses.clone())).collect();
        Self { seeds, allowlist: chosen.trusted.clone(), ..self }
    }
}

/// A node info with valid signature, chain and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// The peer.
    pub peer: PeerId,
    /// When it was signed.
    pub timestamp_ms: TimestampMs,
    /// Where its node listens.
    pub addresses: Vec<Address>,
    /// Which peers may learn the address.
    pub access: Access,
    /// As its owner signed it.
    pub bytes: Opaque,
}

/// What can happen to Discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From the shell, answering [`Effect::SignOwnInfo`].
    OwnInfo {
        /// Signed bytes.
        bytes: Opaque,
        /// When it was signed.
        timestamp_ms: TimestampMs,
    },
    /// From the store, at the start: the address book.
    Book {
        /// Peers with valid infos.
        stored: Vec<StoredPeer>,
        /// What could not be read, or did not pass.
        unreadable: Vec<PeerId>,
    },
    /// From StateSync: the validators of the epoch of the next commit, and where the committee says that they listen.
    Committee(Vec<(PeerId, Address)>),
    /// From Connections.
    Peer {
        /// The event.
        event: PeerEvent,
        /// Where the peer of a new link really is, if the transport tells.
        ip: Option<IpAddr>,
    },
    /// From Connections: a dial failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
    /// From Connections: how a dial for a probe ended. The shell has the link, and ends it after the next query.
    Probed {
        /// The peer.
        peer: PeerId,
        /// Reached, and at which IP address if the transport tells; or why not.
        result: Result<Option<IpAddr>, DialFailure>,
    },
    /// From the shell's call, answering [`Effect::Query`].
    Answered {
        /// The peer that was asked.
        peer: PeerId,
        /// Where it really is, if the transport tells.
        remote: Option<IpAddr>,
        /// The answer, or why there was none.
        answer: Result<Answer, String>,
    },
    /// From the gRPC adapter: a peer asks us. Its info, if it verified.
    Asked {
        /// Under which the shell keeps the answer's address.
        key: u64,
        /// The peer that asks.
        peer: PeerId,
        /// From where it is connected.
        remote: Option<IpAddr>,
        /// The asker's own info.
        info: Option<KnownPeer>,
    },
    /// From the handle: the operator changed the seeds or the trusted peers.
    ChosenPeers(ChosenPeers),
}

/// What a peer that was asked answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the infos those that verified: its own, and others'.
    pub infos: Vec<KnownPeer>,
    /// How the peer sees this node.
    pub seen: Seen,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Sign this node's info with the present time.
    SignOwnInfo {
        /// Where it says that this node listens.
        addresses: Vec<Address>,
    },
    /// Ask Connections for a dial.
    Dial {
        /// The peer to answer.
        peer: PeerId,
        /// Where.
        addresses: Vec<Address>,
        /// What for.
        purpose: DialPurpose,
    },
    /// Ask the peer for the peers that it knows.
    Query {
        /// The peer.
        peer: PeerId,
        /// This node's info, to be told.
        own_info: Opaque,
    },
    /// Answer an [`Input::Asked`].
    Answer {
        /// Which.
        key: u64,
        /// This node's info.
        own_info: Opaque,
        /// Others'.
        peers: Vec<Opaque>,
        /// What this node has to say of the asker, but for its address.
        seen: Seen,
    },
    /// Have these peers stored, and those removed.
    SaveBook {
        /// New or changed ones.
        put: Vec<StoredPeer>,
        /// Forgotten peers.
        remove: Vec<PeerId>,
    },
}

/// Discovery as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Peers in the book.
    pub known: usize,
    /// Bytes of their infos.
    pub known_bytes: u64,
    /// Known peers that this node has reached.
    pub seen_live: usize,
    /// Peers connected now.
    pub connected: usize,
    /// Where this node says that it listens.
    pub addresses: Vec<Address>,
    /// The network issue, if there is one.
    pub trouble: Option<Trouble>,
}

/// A peer of the address book as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookEntry {
    /// The peer.
    pub peer: PeerId,
    /// Where it says that it listens.
    pub addresses: Vec<Address>,
    /// Which peers may learn the address.
    pub access: Access,
    /// When it signed that, in milliseconds since 1970.
    pub signed_ms: TimestampMs,
    /// When this node was last connected to it, in milliseconds since 1970; `None`: never, it was only heard of.
    pub seen_live_ms: Option<TimestampMs>,
    /// Whether this node has a link to it now.
    pub connected: bool,
}

/// A peer of the book as it is kept in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPeer {
    /// Its info.
    pub info: KnownPeer,
    /// The network of the peer that advertised it.
    pub source: NetworkGroup,
    /// When it was last connected; `None`: never.
    pub seen_live_ms: Option<TimestampMs>,
}
