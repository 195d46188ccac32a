//! Messages that PeerHeights takes, with [`PeerChanged`](crate::connections::messages::PeerChanged).

use soma_protocol::peer_heights::{NoPeer, Outcome};
use soma_runtime::Reply;
use soma_types::{CommitIndex, PeerId};
use std::time::Duration;

/// From StateSync: which peer is to serve a range?
#[derive(Debug)]
pub struct Pick {
    /// The range's first commit.
    pub start: CommitIndex,
    /// Peers that serve it now, or just failed to.
    pub tried: Vec<PeerId>,
    /// Whether others serve it now.
    pub hedge: bool,
    /// Whether all other ranges wait for this one.
    pub next: bool,
    /// The answer. A report must follow on every picked peer.
    pub reply: Reply<Result<PeerId, NoPeer>>,
}

/// From StateSync: how a picked peer did.
#[derive(Debug)]
pub struct Report {
    /// The peer.
    pub peer: PeerId,
    /// The range's first commit.
    pub start: CommitIndex,
    /// How.
    pub outcome: Outcome,
}

/// From the handle: the operator bans the peer.
#[derive(Debug)]
pub struct BanPeer {
    /// The peer.
    pub peer: PeerId,
    /// How long the ban lasts.
    pub duration: Duration,
    /// The operator's reason, for logs.
    pub reason: String,
    /// Answered when the ban is noted.
    pub reply: Reply<()>,
}

/// From the handle: the operator ends the peer's ban.
#[derive(Debug)]
pub struct UnbanPeer {
    /// The peer.
    pub peer: PeerId,
    /// Answered when the end is noted.
    pub reply: Reply<()>,
}

/// From StateSync: this node has every commit up to here, durably.
#[derive(Debug)]
pub struct OwnHeight(pub CommitIndex);

/// From the gRPC adapter: a peer says that it has this commit.
#[derive(Debug)]
pub struct Pushed {
    /// The peer.
    pub peer: PeerId,
    /// The commit.
    pub index: CommitIndex,
}
