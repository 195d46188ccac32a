//! What the Archiver counts.

use metrics::{Counter, counter, gauge};

/// A segment is written.
pub(crate) fn written(bytes: u64) {
    counter!("soma_archive_segments_written_total").increment(1);
    counter!("soma_archive_written_bytes_total").increment(bytes);
}

/// A segment is read.
pub(crate) fn read(bytes: u64) {
    counter!("soma_archive_segments_read_total").increment(1);
    counter!("soma_archive_read_bytes_total").increment(bytes);
}

/// No operation has failed yet. So a first failure shows as an increase.
pub(crate) fn begin() {
    for operation in ["list", "read", "write"] {
        errors(operation).increment(0);
    }
}

/// An operation of the archive failed.
pub(crate) fn failed(operation: &'static str) {
    errors(operation).increment(1);
}

fn errors(operation: &'static str) -> Counter {
    counter!("soma_archive_errors_total", "operation" => operation)
}

/// The archive has all commits before `next`.
pub(crate) fn archived(next: u32) {
    gauge!("soma_archived_commit").set(f64::from(next.saturating_sub(1)));
}
