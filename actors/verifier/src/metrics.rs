//! What the Verifier counts.

use metrics::counter;

/// A job was refused: more wait than may.
pub(crate) fn refused() {
    counter!("soma_verifier_refused_total").increment(1);
}

/// Blocks whose every signature was checked.
pub(crate) fn blocks_verified(blocks: usize) {
    counter!("soma_verifier_blocks_total").increment(blocks as u64);
}

/// Something did not pass.
pub(crate) fn rejected(what: &'static str) {
    counter!("soma_verifier_rejected_total", "what" => what).increment(1);
}
