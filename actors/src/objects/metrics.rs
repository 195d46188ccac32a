//! What Objects counts.

use metrics::counter;
use soma_types::ObjectKind;

/// Objects have arrived, and their digests are right.
pub(crate) fn fetched(kind: ObjectKind, objects: usize, bytes: u64) {
    counter!("soma_objects_fetched_total", "kind" => kind.to_string()).increment(objects as u64);
    counter!("soma_object_bytes_fetched_total", "kind" => kind.to_string()).increment(bytes);
}

/// Objects that a peer was asked for and lacks.
pub(crate) fn lacked(kind: ObjectKind, objects: usize) {
    counter!("soma_objects_lacked_total", "kind" => kind.to_string()).increment(objects as u64);
}

/// A call has failed.
pub(crate) fn failed(fault: &'static str) {
    counter!("soma_object_calls_failed_total", "fault" => fault).increment(1);
}
