//! A failed call keeps its meaning over the wire, and blames only the peer at fault.

#![cfg(feature = "tls")]

use soma_network::wire::{CallError, Status};
use soma_types::Fault;
use std::time::{Duration, Instant};
use tonic::Code;

#[test]
fn status_of_a_responder_round_trips() {
    for status in [
        Status::InvalidArgument,
        Status::NotFound,
        Status::OutOfRange,
        Status::ResourceExhausted,
        Status::Unavailable,
        Status::FailedPrecondition,
        Status::PermissionDenied,
        Status::Internal,
        Status::DeadlineExceeded,
        Status::Cancelled,
    ] {
        let mut said = CallError::new(status, "commit 7 is pruned");
        said.retry_after = Some(Duration::from_millis(1_500));
        assert_eq!(CallError::from(tonic::Status::from(said.clone())), said);
    }
}

#[test]
fn every_grpc_code_has_a_meaning_and_none_of_them_bans() {
    for code in 0..=17 {
        let error = CallError::from(tonic::Status::new(Code::from(code), "no"));
        assert!(!error.fault().bans(), "{code}: {error}");
    }
}

#[test]
fn response_that_cannot_be_decoded_is_the_responders_fault() {
    // The texts and codes of tonic 0.14 for a response over the limit and for one that is no protobuf.
    let large = "Error, decoded message length too large: found 99 bytes, the limit is: 9 bytes";
    assert_eq!(CallError::from(tonic::Status::out_of_range(large)).fault(), Fault::Malformed);
    let garbage = "failed to decode Protobuf message: invalid wire type value: 7";
    assert_eq!(CallError::from(tonic::Status::internal(garbage)).fault(), Fault::Malformed);
}

#[test]
fn own_request_that_is_too_large_to_send_bans_no_peer() {
    // tonic's text when this node's own encoder refuses.
    let ours = "Error, encoded message length too large: found 99 bytes, the limit is: 9 bytes";
    let error = CallError::from(tonic::Status::out_of_range(ours));
    assert!(!error.fault().bans(), "{error}");
}

#[test]
fn retry_hint_is_limited_to_what_a_clock_can_count() {
    let mut status = tonic::Status::resource_exhausted("busy");
    status.metadata_mut().insert("retry-after-ms", u64::MAX.to_string().parse().unwrap());
    let hint = CallError::from(status).retry_after.unwrap();
    assert!(hint <= soma_network::wire::limits::MAX_RETRY_AFTER);
    assert!(Instant::now().checked_add(hint).is_some());
    for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
        let mut status = tonic::Status::resource_exhausted("busy");
        status.metadata_mut().insert("retry-after-ms", nonsense.parse().unwrap());
        assert_eq!(CallError::from(status).retry_after, None, "{nonsense:?}");
    }
}

#[test]
fn responders_message_is_cut_before_it_reaches_a_log() {
    let long = "ß".repeat(10_000);
    let error = CallError::from(tonic::Status::internal(long));
    assert!(error.message.len() <= soma_network::wire::limits::MAX_STATUS_MESSAGE_BYTES);
    assert!(error.message.chars().all(|char| char == 'ß'));
}
