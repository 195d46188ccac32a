//! What PeerHeights counts.

use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// The highest claim changed.
pub(crate) fn target(index: u32) {
    gauge!("soma_target_commit").set(f64::from(index));
}

/// A peer failed to serve.
pub(crate) fn fault(kind: &'static str) {
    counter!("soma_peer_faults_total", "kind" => kind).increment(1);
}

/// A commit was announced to a peer.
pub(crate) fn pushed(heard: bool) {
    counter!("soma_pushes_total", "heard" => if heard { "yes" } else { "no" }).increment(1);
}

/// A commit that a peer pushed is durable here.
pub(crate) fn durable(took: Duration) {
    histogram!("soma_push_to_durable_seconds").record(took);
}
