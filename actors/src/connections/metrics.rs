//! What Connections counts.

use metrics::{counter, gauge};
use soma_protocol::connections::Snapshot;

/// A link was made or lost.
pub(crate) fn connected(snapshot: &Snapshot) {
    gauge!("soma_outbound_peers").set(snapshot.outbound.len() as f64);
    gauge!("soma_inbound_connections").set(snapshot.inbound.len() as f64);
}

/// A dial failed.
pub(crate) fn dial_failed(cause: &'static str) {
    counter!("soma_dials_failed_total", "cause" => cause).increment(1);
}

/// A peer was banned.
pub(crate) fn banned() {
    counter!("soma_bans_total").increment(1);
}

/// An inbound connection made room for another.
pub(crate) fn evicted() {
    counter!("soma_inbound_evicted_total").increment(1);
}

/// A connection was not admitted.
pub(crate) fn refused() {
    counter!("soma_inbound_refused_total").increment(1);
}
