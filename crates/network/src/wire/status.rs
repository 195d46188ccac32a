//! Conversion between errors of calls and gRPC statuses.

use crate::wire::{
    CallError, Status,
    limits::{MAX_RETRY_AFTER, MAX_STATUS_MESSAGE_BYTES},
};
use std::time::Duration;

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
            Code::Unimplemented => Status::Unimplemented,
            Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Internal | Code::DataLoss => Status::Internal,
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
            Status::Unimplemented => Code::Unimplemented,
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
