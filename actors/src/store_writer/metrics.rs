//! What the StoreWriter counts.

use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// What the store holds when the actor starts.
pub(crate) fn found(highest: u32) {
    gauge!("soma_highest_synced_commit").set(f64::from(highest));
}

/// A batch is durable.
pub(crate) fn applied(commits: usize, highest: u32, took: Duration) {
    histogram!("soma_store_write_seconds").record(took);
    counter!("soma_store_batches_total").increment(1);
    counter!("soma_store_commits_total").increment(commits as u64);
    gauge!("soma_highest_synced_commit").set(f64::from(highest));
}

/// A batch of earlier commits is durable.
pub(crate) fn prepended(commits: usize, lowest: u32, took: Duration) {
    histogram!("soma_store_write_seconds").record(took);
    counter!("soma_store_backfilled_commits_total").increment(commits as u64);
    gauge!("soma_lowest_available_commit").set(f64::from(lowest));
}

/// A step of pruning is durable.
pub(crate) fn pruned(lowest: u32) {
    counter!("soma_store_prune_steps_total").increment(1);
    gauge!("soma_lowest_available_commit").set(f64::from(lowest));
}

/// A write failed.
pub(crate) fn failed() {
    counter!("soma_store_write_errors_total").increment(1);
}

/// A write takes long.
pub(crate) fn slow() {
    counter!("soma_store_slow_writes_total").increment(1);
}
