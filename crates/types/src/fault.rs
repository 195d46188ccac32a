//! Kinds of faults in an exchange with a peer. The kind decides the consequence: only [`Fault::ProvableLie`] and
//! [`Fault::Malformed`] are certainly the peer's fault, and ban it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The kind of a fault, ordered from the peer's gravest to this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The peer sent something that its own signed statement or a pinned digest proves false: a bad signature, a broken
    /// chain, bytes with another digest, or commits without their votes.
    ProvableLie,
    /// The peer sent something that no correct implementation sends: undecodable, over a limit, or in the wrong form.
    Malformed,
    /// The peer claimed something that it could not prove, or that this node cannot check yet.
    Unproven,
    /// The peer does not have the data: pruned, or not yet available.
    DoesNotHave,
    /// The peer did not respond in time, or the connection was lost.
    Slow,
    /// The peer reported that it is overloaded.
    Overloaded,
    /// A fault of this node (store, CPU pool, cancellation, shutdown), or a certified commit breaks a rule of the
    /// chain.
    Ours,
}

impl Fault {
    /// The fault's name in metrics.
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

    /// Whether the fault is certainly the peer's, and bans it.
    pub fn bans(self) -> bool {
        matches!(self, Self::ProvableLie | Self::Malformed)
    }
}

/// A failed exchange with a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFailure {
    /// The kind of fault.
    pub fault: Fault,
    /// The reason, for logs and the status.
    pub reason: String,
    /// The delay before the next request, if the peer named one.
    pub retry_after: Option<Duration>,
}

impl PeerFailure {
    /// A failure without a `retry_after`.
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), retry_after: None }
    }
}
