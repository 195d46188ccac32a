//! Messages that Connections takes.

use crate::Reply;
use soma_protocol::{PeerEvent, connections::DialPurpose};
use soma_transport::{ConnectionId, Inbound};
use soma_types::{Address, PeerId};
use std::time::Duration;

/// From Discovery: this peer is to be dialled.
#[derive(Debug)]
pub struct Dial {
    /// Whom.
    pub peer: PeerId,
    /// Where, best first.
    pub addresses: Vec<Address>,
    /// What for.
    pub purpose: DialPurpose,
}

/// From StateSync, when it starts and at each handover: the validators of the epoch of the next commit.
#[derive(Clone, Debug)]
pub struct CommitteeChanged {
    /// Their network keys, and where the committee says that they listen.
    pub validators: Vec<(PeerId, Address)>,
}

/// From PeerHeights: disconnect the peer and keep it out.
#[derive(Debug)]
pub struct Ban {
    /// Whom.
    pub peer: PeerId,
    /// For how long.
    pub duration: Duration,
    /// Why, for logs.
    pub reason: String,
}

/// From the transport: an authenticated peer asks to stay.
#[derive(Debug)]
pub struct InboundArrived {
    /// The connection.
    pub inbound: Inbound,
    /// Whether it may.
    pub reply: Reply<bool>,
}

/// From the transport: an admitted connection ended.
#[derive(Debug)]
pub struct InboundClosed(pub ConnectionId);

/// From PeerHeights and Discovery when they start: tell me who is connected. Changes they are told anyway.
#[derive(Debug)]
pub struct TellConnected {
    /// Name of the actor to tell.
    pub subscriber: &'static str,
}

/// To PeerHeights and Discovery: who can be asked has changed.
#[derive(Debug)]
pub struct PeerChanged(pub PeerEvent);
