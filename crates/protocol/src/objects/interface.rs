//! What Objects is told, and what it has its shell do.

use crate::core::PeerEvent;
use serde::{Deserialize, Serialize};
use soma_types::{ObjectId, ObjectKind, PeerFailure, PeerId, TimestampMs};
use std::time::Duration;
use strum::VariantNames;

/// How Objects works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Objects that are wanted at once. A request for more is refused.
    pub max_wanted: usize,
    /// Calls to all peers at once.
    pub max_calls: usize,
    /// Calls to one peer at once.
    pub max_calls_per_peer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_wanted: 65_536, max_calls: 16, max_calls_per_peer: 4 }
    }
}

/// What can happen to Objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Connections: a link was made, or is lost.
    Peer(PeerEvent),
    /// From the handle: get these objects.
    Fetch {
        /// The request's number in the shell.
        request: u64,
        /// What they are.
        kind: ObjectKind,
        /// The objects, none twice.
        ids: Vec<ObjectId>,
        /// When the asker gives up.
        within: Duration,
        /// The peer that sent the reference. It is asked first.
        first_from: Option<PeerId>,
    },
    /// From the handle: nobody waits for this request any more.
    Dropped {
        /// The request.
        request: u64,
    },
    /// From a call: objects have arrived, and their digests are right, or the peer lacks them.
    Arrived {
        /// The call.
        call: u64,
        /// Positions in the call of those that have arrived.
        found: Vec<u32>,
        /// Positions of those that the peer lacks.
        missing: Vec<u32>,
        /// Bytes that have arrived.
        bytes: u64,
    },
    /// From a call: it has ended.
    Ended {
        /// The call.
        call: u64,
        /// What went wrong. `None`: every object was answered.
        failure: Option<PeerFailure>,
        /// Whether the peer has no objects at all. It is not asked again on this link.
        is_unsupported: bool,
    },
}

/// How an object was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Answer {
    /// It is there.
    Found,
    /// Every connected peer lacks it.
    NotFound {
        /// Peers that were asked.
        asked: u32,
    },
    /// The deadline has passed.
    Late {
        /// Peers that lack it.
        asked: u32,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask a peer.
    Call {
        /// The number that the call gets.
        call: u64,
        /// The peer.
        peer: PeerId,
        /// What the objects are.
        kind: ObjectKind,
        /// The objects.
        ids: Vec<ObjectId>,
    },
    /// End a call: nobody needs what it would still bring.
    Cancel {
        /// The call.
        call: u64,
    },
    /// Answer objects of a request.
    Answer {
        /// The request.
        request: u64,
        /// The objects.
        ids: Vec<ObjectId>,
        /// How.
        answer: Answer,
    },
    /// Refuse a request: too many objects are wanted already.
    Refuse {
        /// The request.
        request: u64,
    },
    /// Tell PeerHeights what a peer did.
    Report {
        /// The peer.
        peer: PeerId,
        /// The failure.
        failure: PeerFailure,
    },
}

/// The object that has been wanted for longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldestWanted {
    /// What it is.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// When it was first requested, in milliseconds since 1970.
    pub since_ms: TimestampMs,
    /// Peers that lack it.
    pub lacking: usize,
}

/// Objects as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Requests that are not answered.
    pub requests: usize,
    /// Objects that are wanted.
    pub wanted: usize,
    /// Objects that no peer can be asked for now.
    pub waiting: usize,
    /// Calls to peers.
    pub calls: usize,
    /// Connected peers that have objects.
    pub peers: usize,
    /// Objects that have arrived since the start.
    pub found: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that every asked peer lacked.
    pub not_found: u64,
    /// Objects that did not arrive in time.
    pub late: u64,
    /// Objects that arrived when nobody needed them any more.
    pub unused: u64,
    /// Calls that failed.
    pub failed_calls: u64,
    /// Calls made because another peer was late.
    pub hedges: u64,
    /// The object that has been wanted for longest.
    pub oldest: Option<OldestWanted>,
}
