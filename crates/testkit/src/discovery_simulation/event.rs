//! The events of the simulation, and the ends of its connections.

use super::node::ConnectionId;
use soma_protocol::{
    Opaque,
    connections::{self, DialFailure, Endpoint, LinkId},
    discovery::{self, Seen},
};
use soma_types::{Address, PeerId};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Honest(usize),
    Attacker(usize),
}

/// A connection, admitted or waiting for the decision about it.
pub(super) struct Connection {
    pub(super) from: Party,
    pub(super) link: LinkId,
    pub(super) to: Party,
}

pub(super) enum Event {
    /// A core's timer fires.
    Wake { node: usize, incarnation: u64, core: usize },
    /// A dial reaches the addresses.
    Arrives { from: Party, incarnation: u64, link: LinkId, peer: PeerId, addresses: Vec<Address> },
    /// The result of a dial reaches the dialling node.
    Dialled {
        node: usize,
        incarnation: u64,
        link: LinkId,
        peer: PeerId,
        result: Result<(ConnectionId, Endpoint), DialFailure>,
        failed: Vec<Address>,
    },
    /// The dialling node notices the end of a connection.
    LinkClosed { node: usize, incarnation: u64, link: LinkId, peer: PeerId },
    /// The dialled node notices the end of a connection.
    InboundClosed { node: usize, incarnation: u64, connection: ConnectionId },
    /// A query arrives, with the node info of its sender.
    Asked { connection: ConnectionId, own_info: Opaque },
    /// The answer arrives.
    Answered { connection: ConnectionId, infos: Vec<usize>, seen: Seen },
    /// An identity of the attacker takes its turn.
    Attack { identity: usize },
}

/// An input for one of a node's two cores.
pub(super) enum CoreInput {
    Discovery(discovery::Input),
    Connections(connections::Input),
}
