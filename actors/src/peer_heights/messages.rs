//! Messages that PeerHeights takes, beside [`PeerChanged`](crate::connections::messages::PeerChanged).

use soma_protocol::peer_heights::{NoPeer, Outcome};
use soma_runtime::Reply;
use soma_types::{CommitIndex, PeerId};

/// From StateSync: who is to serve a range?
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
    /// The answer. Whoever is picked is to be reported on.
    pub reply: Reply<Result<PeerId, NoPeer>>,
}

/// From StateSync: how a picked peer did.
#[derive(Debug)]
pub struct Report {
    /// Who.
    pub peer: PeerId,
    /// The range's first commit.
    pub start: CommitIndex,
    /// How.
    pub outcome: Outcome,
}

/// From StateSync: this node has every commit up to here, durably.
#[derive(Debug)]
pub struct OwnHeight(pub CommitIndex);

/// From the gRPC adapter: a peer says that it has this commit.
#[derive(Debug)]
pub struct Pushed {
    /// Who.
    pub peer: PeerId,
    /// Which.
    pub index: CommitIndex,
}
