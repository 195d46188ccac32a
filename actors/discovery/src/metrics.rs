//! What Discovery counts.

use metrics::gauge;
use soma_protocol::discovery::Snapshot;

/// The address book changed.
pub(crate) fn book(snapshot: &Snapshot) {
    gauge!("soma_known_peers").set(snapshot.known as f64);
    gauge!("soma_peers_seen_live").set(snapshot.seen_live as f64);
}
