//! What kind of fault a failed exchange with a peer is. The kind decides what follows: only [`Fault::ProvableLie`]
//! and [`Fault::Malformed`] are the peer's beyond doubt and ban it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The kind of a fault, from the peer's gravest to our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The peer sent what its own word or a pinned digest proves false: bad signature, broken chain, other bytes
    /// than the digest names, commits without their votes.
    ProvableLie,
    /// The peer sent what no correct implementation sends: undecodable, over a limit, out of form.
    Malformed,
    /// The peer claimed what it then could not show, or what we cannot check yet.
    Unproven,
    /// The peer does not have it: pruned, or not there yet.
    DoesNotHave,
    /// The peer did not answer in time, or the connection was lost.
    Slow,
    /// The peer said that it has too much to do.
    Overloaded,
    /// Our own: store, CPU pool, cancellation, shutdown; or the chain itself broke a rule that a quorum certified.
    Ours,
}

impl Fault {
    /// The name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProvableLie => "provable-lie",
            Self::Malformed => "malformed",
            Self::Unproven => "unproven",
            Self::DoesNotHave => "does-not-have",
            Self::Slow => "slow",
            Self::Overloaded => "overloaded",
            Self::Ours => "ours",
        }
    }

    /// Whether the peer alone is to blame, beyond doubt.
    pub fn bans(self) -> bool {
        matches!(self, Self::ProvableLie | Self::Malformed)
    }
}

/// What went wrong in an exchange with a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFailure {
    /// Whose fault, of which kind.
    pub fault: Fault,
    /// For logs and the status.
    pub reason: String,
    /// When the peer wants to be asked again, if it said so.
    pub retry_after: Option<Duration>,
}

impl PeerFailure {
    /// A failure after which the peer did not say when to ask again.
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), retry_after: None }
    }
}
