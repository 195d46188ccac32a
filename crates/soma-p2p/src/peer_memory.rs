//! How the memory is divided that peers can make a node hold.

use crate::Config;
use serde::{Deserialize, Serialize};
use soma_actors::grpc_adapter::READ_BYTES;
use soma_network::CallersMemory;
use soma_network::wire::limits::MAX_RESPONSE_BYTES;
#[cfg(feature = "tls")]
use soma_network::{CONNECTION_BYTES, HANDSHAKES_BYTES, MADE_BYTES};
use soma_protocol::{connections, discovery};

/// Memory of callers without this project's TLS transport: another one bounds its own.
#[cfg(not(feature = "tls"))]
const CONNECTION_BYTES: usize = 0;
#[cfg(not(feature = "tls"))]
const HANDSHAKES_BYTES: usize = 0;
#[cfg(not(feature = "tls"))]
const MADE_BYTES: usize = 0;

/// The parts of the budget, in bytes. All but the last are what their own limits allow; the last is what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerMemory {
    budget: u64,
    fixed: u64,
}

impl PeerMemory {
    pub(crate) fn new(config: &Config) -> Self {
        let connections = config.connections.max_inbound as u64 * CONNECTION_BYTES as u64;
        let fixed = connections + discovery::MAX_BOOK_BYTES + (HANDSHAKES_BYTES + MADE_BYTES + READ_BYTES) as u64;
        Self { budget: config.peer_memory_bytes, fixed }
    }

    /// The least that a budget can be: strangers may use three quarters of the room for answers, which holds the
    /// largest one three times.
    pub(crate) fn least(&self) -> u64 {
        self.fixed + 4 * MAX_RESPONSE_BYTES as u64
    }

    /// What all peers together may leave unread.
    #[cfg(feature = "tls")]
    pub(crate) fn unread(&self) -> usize {
        usize::try_from(self.budget.saturating_sub(self.fixed)).unwrap_or(usize::MAX)
    }

    /// The present use of each part.
    pub(crate) fn status(
        &self,
        callers: &CallersMemory,
        connections: Option<&connections::Snapshot>,
        discovery: Option<&discovery::Snapshot>,
    ) -> PeerMemoryStatus {
        PeerMemoryStatus {
            budget: self.budget,
            connections: connections.map_or(0, |connections| connections.inbound.len() * CONNECTION_BYTES) as u64,
            handshakes: callers.handshake_bytes() as u64,
            known_peers: discovery.map_or(0, |discovery| discovery.known_bytes),
            unread_answers: callers.unread_bytes() as u64,
        }
    }
}

/// Bytes that peers make a node hold, by part. Answers in preparation are not counted, but bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerMemoryStatus {
    /// What all parts may be together.
    pub budget: u64,
    /// Connections that peers have made, each at the most that it may hold of requests.
    pub connections: u64,
    /// Handshakes under way, each at the most that it may hold.
    pub handshakes: u64,
    /// Knowledge of other peers.
    pub known_peers: u64,
    /// Answers and frames of `Broadcast` that peers have not read yet, and large frames on their way.
    pub unread_answers: u64,
}
