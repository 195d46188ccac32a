//! A failed call keeps its meaning over the wire, and blames only whom it must.

use soma_network::wire::{CallError, Status};
use soma_types::Fault;
use std::time::{Duration, Instant};
use tonic::Code;

#[test]
fn what_a_responder_answers_arrives_as_it_was_said() {
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
fn every_code_of_grpc_has_a_meaning_and_none_of_them_bans() {
    for code in 0..=17 {
        let error = CallError::from(tonic::Status::new(Code::from(code), "no"));
        assert!(!error.fault().bans(), "{code}: {error}");
    }
}

#[test]
fn what_cannot_be_decoded_here_is_the_responders_fault() {
    // The texts and codes of tonic 0.14 for an answer over the limit and for one that is no protobuf.
    let large = "Error, decoded message length too large: found 99 bytes, the limit is: 9 bytes";
    assert_eq!(CallError::from(tonic::Status::out_of_range(large)).fault(), Fault::Malformed);
    let garbage = "failed to decode Protobuf message: invalid wire type value: 7";
    assert_eq!(CallError::from(tonic::Status::internal(garbage)).fault(), Fault::Malformed);
}

#[test]
fn a_request_of_ours_that_is_too_large_to_send_bans_nobody() {
    // What tonic says when our own encoder refuses.
    let ours = "Error, encoded message length too large: found 99 bytes, the limit is: 9 bytes";
    let error = CallError::from(tonic::Status::out_of_range(ours));
    assert!(!error.fault().bans(), "{error}");
}

#[test]
fn a_retry_hint_of_a_million_years_is_cut_to_what_a_clock_can_count() {
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
fn a_responders_message_is_cut_before_it_reaches_a_log() {
    let long = "ß".repeat(10_000);
    let error = CallError::from(tonic::Status::internal(long));
    assert!(error.message.len() <= soma_network::wire::limits::MAX_STATUS_MESSAGE_BYTES);
    assert!(error.message.chars().all(|char| char == 'ß'));
}
