//! Messages that Discovery takes, with [`PeerChanged`](crate::connections::messages::PeerChanged).

use bytes::Bytes;
use soma_network::Link;
use soma_network::wire::KnownPeers;
use soma_protocol::connections::DialFailure;
use soma_runtime::Reply;
use soma_types::PeerId;
use std::net::IpAddr;

/// From Connections: a dial that Discovery asked for failed.
#[derive(Debug)]
pub struct DialFailed {
    /// The peer.
    pub peer: PeerId,
    /// Why.
    pub failure: DialFailure,
}

/// From Connections: how a dial for [`DialPurpose::Probe`](soma_protocol::connections::DialPurpose) ended.
#[derive(Debug)]
pub struct Probed {
    /// The peer.
    pub peer: PeerId,
    /// A link that no other actor has, which the receiver ends; or why there is none.
    pub result: Result<Link, DialFailure>,
}

/// From the gRPC adapter: a peer asks for known peers.
#[derive(Debug)]
pub struct KnownPeersAsked {
    /// The peer that asks.
    pub peer: PeerId,
    /// Where its connection comes from, if that is known.
    pub remote: Option<IpAddr>,
    /// The asker's own info, not yet verified.
    pub own_info: Bytes,
    /// The answer.
    pub reply: Reply<KnownPeers>,
}
