//! What goes into PeerHeights, and what comes out.

use super::Standing;
use crate::{chosen_peers::ChosenPeers, core::PeerEvent};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Fault, PeerFailure, PeerId};
use std::{collections::BTreeSet, time::Duration};
use strum::VariantNames;

/// How PeerHeights works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How often each peer is asked for its heights, besides its announcements.
    pub query_interval: Duration,
    /// First ban of a peer that lied or sent malformed data; doubles with each further one.
    pub ban_min: Duration,
    /// Longest ban.
    pub ban_max: Duration,
    /// Peers that are never disconnected: what bans others is a pause for them.
    pub allowlist: BTreeSet<PeerId>,
    /// Seed of all choices.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            query_interval: Duration::from_secs(5),
            ban_min: Duration::from_secs(600),
            ban_max: Duration::from_secs(12 * 3600),
            allowlist: BTreeSet::new(),
            seed: 0,
        }
    }
}

impl Config {
    /// The same, with the peers that the operator chose.
    pub fn with_chosen_peers(self, chosen: &ChosenPeers) -> Self {
        Self { allowlist: chosen.trusted.clone(), ..self }
    }
}

/// What can happen to PeerHeights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Connections.
    Peer(PeerEvent),
    /// From the shell's call, answering [`Effect::Query`]: highest synced and lowest available commit.
    Queried {
        /// The peer that was asked.
        peer: PeerId,
        /// The answer, or why there was none.
        answer: Result<(CommitIndex, CommitIndex), Fault>,
    },
    /// From the gRPC adapter: a peer told us of a commit.
    Pushed {
        /// The peer.
        peer: PeerId,
        /// Up to where it has commits.
        index: CommitIndex,
    },
    /// From the shell's call, answering [`Effect::Push`].
    PushDone {
        /// The peer that was told.
        peer: PeerId,
        /// Whether it heard.
        heard: bool,
    },
    /// From StateSync: which peer is to serve a range?
    Pick {
        /// Under which the shell keeps the answer's address.
        key: u64,
        /// The range's first commit; 0 for any peer, to ask for epoch proofs.
        start: CommitIndex,
        /// Peers that serve it now, or just failed to.
        tried: Vec<PeerId>,
        /// Whether others serve it now.
        hedge: bool,
        /// Whether all other ranges wait for this one.
        next: bool,
    },
    /// From StateSync: how a picked peer did.
    Report {
        /// The peer.
        peer: PeerId,
        /// The range's first commit.
        start: CommitIndex,
        /// How.
        outcome: Outcome,
    },
    /// From StateSync: this node has every commit up to here, durably.
    OwnHeight(CommitIndex),
    /// From the handle: the operator changed the seeds or the trusted peers.
    ChosenPeers(ChosenPeers),
    /// From the handle: the operator bans the peer.
    Ban {
        /// The peer.
        peer: PeerId,
        /// How long, at most [`MAX_OPERATOR_BAN`](super::MAX_OPERATOR_BAN).
        duration: Duration,
        /// The operator's reason, for logs.
        reason: String,
    },
    /// From the handle: the operator ends the peer's ban.
    Unban {
        /// The peer.
        peer: PeerId,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the peer which commits it can serve.
    Query(PeerId),
    /// Answer a [`Input::Pick`].
    Picked {
        /// Which.
        key: u64,
        /// The peer, or why there is none.
        peer: Result<PeerId, NoPeer>,
    },
    /// Tell StateSync what peers claim; also when it is unchanged but peers became able to serve.
    Target(Target),
    /// Tell the peer that this node has the commit.
    Push {
        /// The peer.
        peer: PeerId,
        /// The commit.
        index: CommitIndex,
    },
    /// Have the peer disconnected and kept out.
    Ban {
        /// The peer.
        peer: PeerId,
        /// How long it lasts.
        duration: Duration,
        /// Why, for logs.
        reason: String,
    },
    /// Have these standings stored, and those peers' removed.
    SaveStandings {
        /// New or changed.
        put: Vec<(PeerId, Standing)>,
        /// Forgotten.
        remove: Vec<PeerId>,
    },
    /// Tell Connections which peers were useful since the last time.
    Useful(Vec<PeerId>),
    /// Have the peer let in again.
    Unban {
        /// The peer.
        peer: PeerId,
    },
}

/// What peers claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The highest commit of all claims that are not disproved; 0 without any.
    pub highest: CommitIndex,
    /// The highest commit that half of the recently serving peers advertise; 0 without any. One peer alone may lie.
    pub proven: CommitIndex,
    /// Why this says nothing about how far the chain has got, if it does not: no peer's word stands.
    pub doubt: Option<NoPeer>,
}

impl Target {
    /// As long as nothing has been heard.
    pub const NONE: Self = Self { highest: 0, proven: 0, doubt: Some(NoPeer::NotConnected) };
}

/// How a peer served one range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The peer delivered verified commits up to this index.
    Served {
        /// The last verified commit.
        last: CommitIndex,
        /// Bytes of commits, blocks and votes.
        bytes: u64,
    },
    /// The peer was late, and a hedge at another peer was faster.
    LostHedge {
        /// The peer had sent nothing, or nothing for long.
        silent: bool,
    },
    /// No fault of the peer: the range was not needed any more, or failed on this node's side.
    Unused,
    /// The peer failed.
    Failed(PeerFailure),
}

impl Outcome {
    /// Bytes served in the time of this range, if they tell the peer's speed. A refusal or a lie takes no time, and a
    /// failure on this node's side is not the peer's.
    pub(super) fn served(&self) -> Option<u64> {
        match self {
            Self::Served { bytes, .. } => Some(*bytes),
            Self::LostHedge { .. } => Some(0),
            Self::Unused | Self::Failed(_) => None,
        }
    }
}

/// Why no peer can serve a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum NoPeer {
    /// Not connected to anyone.
    #[error("not connected to any peer")]
    NotConnected,
    /// Connected, and no peer has answered yet.
    #[error("none of {peers} connected peers has told yet how far it has got")]
    Unheard {
        /// Connected peers.
        peers: usize,
    },
    /// Those that have got that far no longer keep it.
    #[error("all {peers} peers that got that far have pruned it; the lowest commit that any still has is {lowest}")]
    AllPruned {
        /// How many have pruned it.
        peers: usize,
        /// The lowest commit that one of these peers still has.
        lowest: CommitIndex,
    },
    /// No peer advertises it, or every such advertisement was disproved.
    #[error("none of {peers} connected peers has it")]
    NobodyHasIt {
        /// Connected peers.
        peers: usize,
    },
    /// Those that claim it could not serve it when they were asked.
    #[error("{peers} peers claim up to commit {claimed}, and none could serve it when asked")]
    ClaimsUnproven {
        /// How many.
        peers: usize,
        /// The highest claim.
        claimed: CommitIndex,
    },
    /// Those that claim it have proved nothing yet, and are asked for one range after the other.
    #[error("the peers that claim it, of {peers} connected ones, have served nothing yet, and are tried first")]
    Untested {
        /// Connected peers.
        peers: usize,
    },
    /// Those that have it failed lately and are given a pause.
    #[error("all {peers} peers that have it failed lately and are given a pause")]
    AllPaused {
        /// How many.
        peers: usize,
    },
}

impl NoPeer {
    /// The name of the cause, as metrics and the status have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::Unheard { .. } => "unheard",
            Self::AllPruned { .. } => "all-pruned",
            Self::NobodyHasIt { .. } => "nobody-has-it",
            Self::ClaimsUnproven { .. } => "claims-unproven",
            Self::Untested { .. } => "untested",
            Self::AllPaused { .. } => "all-paused",
        }
    }
}

/// One peer as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// The peer.
    pub peer: PeerId,
    /// Highest commit that it claims and may be asked for.
    pub highest: Option<CommitIndex>,
    /// Lowest commit that it says it has.
    pub lowest: Option<CommitIndex>,
    /// Ranges that it is serving us now.
    pub in_flight: usize,
    /// Ranges that it has served since it connected.
    pub served: u64,
    /// Failures in a row.
    pub failures: u32,
    /// How long its latest answer to the question for its heights took, in milliseconds, with this node's own part.
    pub round_trip_ms: Option<u64>,
    /// Standing: 100 for a peer without fault, 0 for the worst. Time and served ranges restore it.
    pub score: u32,
}

/// PeerHeights' state as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Connected peers.
    pub peers: Vec<PeerSnapshot>,
    /// Peers banned since start.
    pub bans: u64,
}
