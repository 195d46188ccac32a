//! What Discovery counts.

use metrics::gauge;
use soma_protocol::discovery::Snapshot;

/// The network issue of this node: 1 for the present one.
pub(crate) fn trouble(before: Option<&'static str>, now: Option<&'static str>) {
    if let Some(before) = before {
        gauge!("soma_network_trouble", "trouble" => before).set(0.0);
    }
    if let Some(now) = now {
        gauge!("soma_network_trouble", "trouble" => now).set(1.0);
    }
}

/// The address book changed.
pub(crate) fn book(snapshot: &Snapshot) {
    gauge!("soma_known_peers").set(snapshot.known as f64);
    gauge!("soma_peers_seen_live").set(snapshot.seen_live as f64);
}
