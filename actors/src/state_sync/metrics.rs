//! What StateSync counts.

use metrics::{counter, gauge, histogram};
use soma_protocol::state_sync::{RangeSummary, StopReason};
use soma_types::PeerFailure;
use std::time::Duration;

/// A worker delivered.
pub(crate) fn verified(range: &RangeSummary) {
    counter!("soma_sync_commits_total").increment(u64::from(range.last.index - range.first) + 1);
    counter!("soma_sync_blocks_total").increment(range.blocks);
    counter!("soma_sync_bytes_total").increment(range.bytes);
}

/// A worker's download has ended.
pub(crate) fn fetched(source: &'static str, took: Duration) {
    histogram!("soma_sync_fetch_seconds", "source" => source).record(took);
}

/// A worker delivered less than its range.
pub(crate) fn shortfall(shortfall: &StopReason) {
    let kind = match shortfall {
        StopReason::Cut => "cut",
        StopReason::OtherEpoch { .. } => "other-epoch",
        StopReason::Failed(PeerFailure { fault, .. }) => fault.name(),
    };
    counter!("soma_sync_shortfalls_total", "kind" => kind).increment(1);
}

/// A worker ended without a result.
pub(crate) fn worker_failed() {
    counter!("soma_sync_worker_failures_total").increment(1);
}

/// The state of the sync, or why it makes no progress: 1 for the present one.
pub(crate) fn cause(before: Option<&'static str>, now: &'static str) {
    if let Some(before) = before {
        gauge!("soma_sync_cause", "cause" => before).set(0.0);
    }
    gauge!("soma_sync_cause", "cause" => now).set(1.0);
}

/// Whether no commit has become durable for long although there is something to do.
pub(crate) fn stuck(stuck: bool) {
    gauge!("soma_sync_stuck").set(f64::from(u8::from(stuck)));
}

/// Bytes held.
pub(crate) fn in_flight(bytes: u64) {
    gauge!("soma_sync_bytes_in_flight").set(bytes as f64);
}

/// A segment of the archive is damaged or breaks a rule.
pub(crate) fn segment_fault() {
    counter!("soma_archive_faults_total").increment(1);
}
