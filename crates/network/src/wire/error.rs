//! Errors of calls: the responder's status, or the caller's own finding.

use crate::wire::limits::{MAX_RETRY_AFTER, MAX_STATUS_MESSAGE_BYTES};
use soma_types::Fault;
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
    /// The responder failed.
    Internal,
    /// No response within the deadline.
    DeadlineExceeded,
    /// The connection ended, or this side cancelled the call.
    Cancelled,
    /// The response breaks the protocol.
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

    /// The fault of the called peer.
    pub fn fault(&self) -> Fault {
        match self.status {
            Status::MalformedAnswer => Fault::Malformed,
            Status::NotFound | Status::OutOfRange => Fault::DoesNotHave,
            Status::ResourceExhausted => Fault::Overloaded,
            // The responder disagrees with this node about the protocol or the chain. One side cannot prove whose fault
            // that is.
            Status::InvalidArgument | Status::FailedPrecondition | Status::PermissionDenied => Fault::Unproven,
            Status::Unavailable | Status::Internal | Status::DeadlineExceeded | Status::Cancelled => Fault::Slow,
        }
    }
}

impl From<tonic::Status> for CallError {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        // tonic reports a response that it cannot decode with codes that a responder may also send. A responder that
        // sends these texts only incriminates itself. For a request too large to send, the text is "encoded ...".
        let undecodable = ["decoded message length too large", "failed to decode Protobuf message"];
        let kind = match status.code() {
            _ if undecodable.iter().any(|text| status.message().contains(text)) => Status::MalformedAnswer,
            Code::InvalidArgument => Status::InvalidArgument,
            Code::NotFound => Status::NotFound,
            Code::OutOfRange => Status::OutOfRange,
            Code::ResourceExhausted => Status::ResourceExhausted,
            Code::Unavailable => Status::Unavailable,
            Code::FailedPrecondition => Status::FailedPrecondition,
            Code::PermissionDenied | Code::Unauthenticated => Status::PermissionDenied,
            Code::DeadlineExceeded => Status::DeadlineExceeded,
            Code::Cancelled | Code::Aborted => Status::Cancelled,
            Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Status::Internal
            }
        };
        let retry_after = status
            .metadata()
            .get(RETRY_AFTER_METADATA)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|millis| Duration::from_millis(millis).min(MAX_RETRY_AFTER));
        let kept = |(at, char): &(usize, char)| at + char.len_utf8() <= MAX_STATUS_MESSAGE_BYTES;
        let message = status.message().char_indices().take_while(kept).map(|(_, char)| char).collect();
        Self { status: kind, message, retry_after }
    }
}

/// Trailing metadata of RESOURCE_EXHAUSTED: the delay until the next call in milliseconds.
const RETRY_AFTER_METADATA: &str = "retry-after-ms";

impl From<CallError> for tonic::Status {
    fn from(error: CallError) -> Self {
        use tonic::Code;
        let code = match error.status {
            Status::InvalidArgument => Code::InvalidArgument,
            Status::NotFound => Code::NotFound,
            Status::OutOfRange => Code::OutOfRange,
            Status::ResourceExhausted => Code::ResourceExhausted,
            Status::Unavailable => Code::Unavailable,
            Status::FailedPrecondition => Code::FailedPrecondition,
            Status::PermissionDenied => Code::PermissionDenied,
            Status::DeadlineExceeded => Code::DeadlineExceeded,
            Status::Cancelled => Code::Cancelled,
            Status::Internal | Status::MalformedAnswer => Code::Internal,
        };
        let mut status = tonic::Status::new(code, error.message);
        if let Some(after) = error.retry_after
            && let Ok(value) = after.as_millis().to_string().parse()
        {
            status.metadata_mut().insert(RETRY_AFTER_METADATA, value);
        }
        status
    }
}
