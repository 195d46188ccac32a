//! Errors of calls: the responder's status, or the caller's own finding.

use soma_types::{Fault, PeerFailure};
use std::time::Duration;

/// Status of a failed call. Responders send the first group; the second arises on the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The request breaks the protocol.
    InvalidArgument,
    /// The responder does not have this commit or block.
    NotFound,
    /// The request is beyond the responder's commits.
    OutOfRange,
    /// Too many calls; the caller should retry later.
    ResourceExhausted,
    /// The responder cannot serve at the moment.
    Unavailable,
    /// The caller is on another chain.
    FailedPrecondition,
    /// The caller is not admitted.
    PermissionDenied,
    /// The responder does not know this call: it runs an older version.
    Unimplemented,
    /// The responder failed.
    Internal,
    /// No response within the deadline.
    DeadlineExceeded,
    /// The connection ended, or this side cancelled the call.
    Cancelled,
    /// The response, or a frame of `Broadcast` of either side, breaks the protocol.
    MalformedAnswer,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status:?}: {message}")]
pub struct CallError {
    /// The kind of failure.
    pub status: Status,
    /// The reason for people; the responder's own text if it responded.
    pub message: String,
    /// The responder's delay until the next call, after [`Status::ResourceExhausted`].
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// A failure without a retry hint.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The connection ended before the call.
    pub fn connection_gone() -> Self {
        Self::new(Status::Cancelled, "the connection is gone")
    }

    /// The failed call, as the actors judge it.
    pub fn failure(&self) -> PeerFailure {
        PeerFailure { fault: self.fault(), reason: self.to_string(), retry_after: self.retry_after }
    }

    /// The fault of the called peer.
    pub fn fault(&self) -> Fault {
        match self.status {
            Status::MalformedAnswer => Fault::Malformed,
            Status::NotFound | Status::OutOfRange => Fault::DoesNotHave,
            Status::ResourceExhausted => Fault::Overloaded,
            // The responder disagrees with this node about the protocol or the chain. One side cannot prove whose fault
            // that is.
            Status::InvalidArgument | Status::FailedPrecondition | Status::PermissionDenied | Status::Unimplemented => {
                Fault::Unproven
            }
            Status::Unavailable | Status::Internal | Status::DeadlineExceeded | Status::Cancelled => Fault::Slow,
        }
    }
}

/// A message that breaks the protocol.
pub(crate) fn malformed(message: String) -> CallError {
    CallError::new(Status::MalformedAnswer, message)
}
