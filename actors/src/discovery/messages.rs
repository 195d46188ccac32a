//! Messages that Discovery takes, beside [`PeerChanged`](crate::connections::messages::PeerChanged).

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
    /// Whom.
    pub peer: PeerId,
    /// Why.
    pub failure: DialFailure,
}

/// From Connections: how a dial for [`DialPurpose::Probe`](soma_protocol::connections::DialPurpose) ended.
#[derive(Debug)]
pub struct Probed {
    /// Whom.
    pub peer: PeerId,
    /// A link that nobody else has, to be ended by the receiver; or why there is none.
    pub result: Result<Link, DialFailure>,
}

/// From the gRPC adapter: a peer asks whom this node knows.
#[derive(Debug)]
pub struct KnownPeersAsked {
    /// Who asks.
    pub peer: PeerId,
    /// Where its connection comes from, if that is known.
    pub remote: Option<IpAddr>,
    /// What it says of itself, not yet verified.
    pub own_info: Bytes,
    /// The answer.
    pub reply: Reply<KnownPeers>,
}
