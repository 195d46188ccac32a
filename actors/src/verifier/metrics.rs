//! What the Verifier counts.

use metrics::{counter, histogram};
use std::time::Duration;

/// A job was refused: more wait than may.
pub(crate) fn refused() {
    counter!("soma_verifier_refused_total").increment(1);
}

/// Signatures were checked together.
pub(crate) fn batch(signatures: usize, took: Duration) {
    histogram!("soma_verifier_batch_seconds").record(took);
    counter!("soma_verifier_batches_total").increment(1);
    counter!("soma_verifier_signatures_total").increment(signatures as u64);
}

/// Blocks that passed.
pub(crate) fn blocks_verified(blocks: usize) {
    counter!("soma_verifier_blocks_total").increment(blocks as u64);
}

/// A node info was dropped.
pub(crate) fn info_dropped(reason: &'static str) {
    counter!("soma_node_infos_dropped_total", "reason" => reason).increment(1);
}

/// The node's own transaction verifier panicked.
pub(crate) fn transaction_verifier_panicked() {
    counter!("soma_transaction_verifier_panics_total").increment(1);
}

/// Something did not pass.
pub(crate) fn rejected(what: &'static str) {
    counter!("soma_verifier_rejected_total", "what" => what).increment(1);
}

/// The embedder's message validator panicked.
pub(crate) fn message_validator_panicked() {
    counter!("soma_message_validator_panics_total").increment(1);
}
