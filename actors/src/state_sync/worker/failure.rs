//! Which side is at fault when a request or a check failed.

use crate::verifier::messages::Rejection;
use soma_network::wire::CallError;
use soma_protocol::state_sync::StopReason;
use soma_runtime::ExitReason;
use soma_types::{Fault, PeerFailure};

pub(super) fn ours(reason: String) -> PeerFailure {
    PeerFailure::new(Fault::Ours, reason)
}

/// The result of a call that ran on the I/O runtime.
pub(in crate::state_sync) fn call_outcome<R>(
    result: Result<Result<R, CallError>, ExitReason>,
) -> Result<R, PeerFailure> {
    match result {
        Ok(answer) => answer.map_err(|error| error.failure()),
        Err(exit) => Err(ours(format!("the call {exit}"))),
    }
}

pub(super) fn shortfall(rejection: Rejection) -> StopReason {
    match rejection {
        Rejection::Failed(failure) => StopReason::Failed(failure),
        Rejection::OtherEpoch { index, found } => StopReason::OtherEpoch { index, found },
    }
}

pub(super) fn verdict(rejection: Rejection) -> PeerFailure {
    match rejection {
        Rejection::Failed(failure) => failure,
        other @ Rejection::OtherEpoch { .. } => ours(other.to_string()),
    }
}
