//! Authenticated connections between peers: gRPC over mutual TLS 1.3 (feature `tls`), and the same interface in memory.
//!
//! ```text
//!   dial(peer, address) --> TCP --> TLS 1.3 (key pinned) --> HTTP/2 --> Link: PeerApi, calls
//!   listen(address)     --> TCP --> TLS 1.3 (key read)   --> InboundHandler::connected? --> HTTP/2 --> PeerApi
//! ```
//!
//! Invariants:
//! - Both ends of a connection have proven their keys before a byte of HTTP/2 is read.
//! - A link is one connection. It never reconnects, and [`Link::closed`] reports its end once.
//! - An unauthenticated caller takes one of a bounded number of handshakes, for a bounded time.

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

mod admission;
mod ends;
mod link;
mod memory;
mod standing;
#[cfg(feature = "tls")]
mod tls;
pub mod wire;

pub use link::Link;
pub use memory::{MemoryNetwork, MemoryTransport};
#[cfg(feature = "decoders")]
pub use tls::decoders;
#[cfg(feature = "tls")]
pub use tls::{CONNECTION_BYTES, HANDSHAKES_BYTES, MADE_BYTES, TlsTransport, TransportError};

use crate::wire::PeerApi;
use async_trait::async_trait;
use ends::Ends;
use soma_types::{Address, ListenAddress, PeerId};
use standing::Standing;
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Makes outbound connections and accepts inbound ones.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects to `peer` at `address` within `timeout`, all handshakes included. The peer's key is pinned.
    ///
    /// # Errors
    /// Fails if the address cannot be reached in time, another key answers, or the handshake fails.
    async fn dial(&self, peer: PeerId, address: &Address, timeout: Duration) -> Result<Link, DialError>;

    /// Accepts connections at `address` until the listener is shut down.
    ///
    /// # Errors
    /// Fails if the address is in use or cannot be listened on.
    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError>;
}

/// Decides about inbound connections and answers their calls.
#[async_trait]
pub trait InboundHandler: Send + Sync + 'static {
    /// Whether an authenticated peer may stay. Until the decision, no byte of the peer is read.
    async fn connected(&self, inbound: Inbound) -> bool;

    /// Called when an admitted connection has ended.
    fn closed(&self, connection: ConnectionId, peer: PeerId);

    /// The API that answers calls. [`Call::peer`](crate::wire::Call::peer) is the authenticated caller.
    fn api(&self) -> Arc<dyn PeerApi>;
}

/// Identifies one connection of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A connection that a peer made to this node.
#[derive(Clone, Debug)]
pub struct Inbound {
    id: ConnectionId,
    peer: PeerId,
    remote: IpAddr,
    ends: Ends,
    standing: Standing,
}

impl Inbound {
    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The peer that made the connection.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The IP address of the peer.
    pub fn remote(&self) -> IpAddr {
        self.remote
    }

    /// Whether the connection ended because the peer flooded it with frames that no honest peer sends.
    pub fn is_flooded(&self) -> bool {
        self.ends.flooded.is_cancelled()
    }

    /// Whether the connection ended because the peer did not read the responses that it requested.
    pub fn is_stalled(&self) -> bool {
        self.ends.stalled.is_cancelled()
    }

    /// Marks the peer as known for this time: it is trusted, or was useful. Limits for strangers then do not apply.
    pub fn favour(&self, time: Duration) {
        self.standing.favour(time);
    }

    /// Ends the connection; calls in flight fail.
    pub fn hang_up(&self) {
        self.ends.hang_up.cancel();
    }
}

/// A listening socket, or its counterpart in memory.
pub struct Listener {
    address: Address,
    accepting: CancellationToken,
    connections: CancellationToken,
    /// Resolves when the last connection has been drained.
    drained: Option<tokio::sync::oneshot::Receiver<()>>,
    memory: Option<CallersMemory>,
}

/// Reports the memory that the callers of a listener take, in addition to their connections.
#[derive(Clone)]
pub struct CallersMemory {
    unread: Count,
    handshakes: Count,
}

/// Counts the bytes of one part at present.
type Count = Arc<dyn Fn() -> usize + Send + Sync>;

impl CallersMemory {
    /// Bytes of unread responses and frames, and of large frames on their way.
    pub fn unread_bytes(&self) -> usize {
        (self.unread)()
    }

    /// Bytes of handshakes, each counted at its maximum.
    pub fn handshake_bytes(&self) -> usize {
        (self.handshakes)()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

impl Listener {
    /// The listen address, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Reports the callers' memory; `None` if the transport does not count it.
    pub fn memory(&self) -> Option<CallersMemory> {
        self.memory.clone()
    }

    /// Accepts no more connections. Open connections may finish their calls.
    pub fn stop_accepting(&self) {
        self.accepting.cancel();
    }

    /// Accepts no more connections, lets calls in flight finish until `deadline`, and ends the remaining connections.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.accepting.cancel();
        if let Some(drained) = self.drained.take()
            && tokio::time::timeout(deadline, drained).await.is_err()
        {
            tracing::debug!(address = %self.address, "ended connections that were not drained in time");
        }
        self.connections.cancel();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.connections.cancel();
    }
}

/// The reason why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The address cannot be reached.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// The dialled address.
        address: Address,
        /// The system's reason.
        reason: String,
    },
    /// The connection was not made in time.
    #[error("{address} did not answer within {timeout:?}")]
    Timeout {
        /// The dialled address.
        address: Address,
        /// The timeout.
        timeout: Duration,
    },
    /// Another peer answered.
    #[error("{address} answered as {found}, not as {expected}: check the peer id, or which node has the address now")]
    WrongKey {
        /// The dialled address.
        address: Address,
        /// The dialled peer.
        expected: PeerId,
        /// The peer that answered.
        found: PeerId,
    },
    /// The handshake failed: the other end is no node, or an incompatible one.
    #[error("the handshake with {address} failed: {reason}")]
    Handshake {
        /// The dialled address.
        address: Address,
        /// The reason.
        reason: String,
    },
    /// The right peer answered and then ended the connection. A peer that does not admit this node may also end it
    /// after the dial, at the first call.
    #[error("{address} ended the connection after the handshake: {reason}")]
    Refused {
        /// The dialled address.
        address: Address,
        /// The reason as far as this side knows it.
        reason: String,
    },
}

/// The reason why a node cannot listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process, or another system in this process, listens there.
    #[error("cannot listen on {address}: the address is in use; stop the process that uses it, or choose another port")]
    AddressInUse {
        /// The listen address.
        address: ListenAddress,
    },
    /// The address cannot be listened on, or only with other permissions.
    #[error("cannot listen on {address}: {reason}")]
    Unusable {
        /// The listen address.
        address: ListenAddress,
        /// The system's reason.
        reason: String,
    },
}
