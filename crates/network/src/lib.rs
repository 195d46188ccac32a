//! Authenticated connections between peers: gRPC over mutual TLS 1.3, and the same interface in memory.
//!
//! ```text
//!   dial(peer, address) --> TCP --> TLS 1.3 (key pinned) --> HTTP/2 --> Link: PeerApi, calls
//!   listen(address)     --> TCP --> TLS 1.3 (key read)   --> InboundHandler::connected? --> HTTP/2 --> PeerApi, answers
//! ```
//!
//! What always holds:
//! - Both ends of a connection have proved that they hold the key of their peer id before a byte of HTTP/2 is read.
//! - A link is one connection. It never reconnects by itself; its end is noticed once, by [`Link::closed`].
//! - An unauthenticated caller costs one of a bounded number of handshakes, for a bounded time.

#![deny(missing_docs)]

mod admission;
mod answers;
mod certificate;
mod frames;
mod grpc_client;
mod grpc_server;
mod handshakes;
mod link;
mod memory;
mod standing;
mod tls;
mod watched_io;
pub mod wire;

pub use certificate::TransportError;
#[cfg(feature = "decoders")]
pub use certificate::decoders;
pub use link::Link;
pub use memory::{MemoryNetwork, MemoryTransport};
pub use tls::{CONNECTION_BYTES, HANDSHAKES_BYTES, MADE_BYTES, TlsTransport};

use crate::wire::PeerApi;
use answers::Answers;
use async_trait::async_trait;
use handshakes::Handshakes;
use soma_types::{Address, ListenAddress, PeerId};
use standing::Standing;
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use watched_io::Ends;

/// Makes and takes connections.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects to `peer` at `address`, all handshakes included, within `timeout`. The key that answers is pinned.
    async fn dial(&self, peer: PeerId, address: &Address, timeout: Duration) -> Result<Link, DialError>;

    /// Takes connections at `address` until the listener is shut down.
    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError>;
}

/// Decides about connections of others and answers their calls.
#[async_trait]
pub trait InboundHandler: Send + Sync + 'static {
    /// Whether an authenticated peer may stay. Until this answers, nothing that it sends is read.
    async fn connected(&self, inbound: Inbound) -> bool;

    /// An admitted connection has ended.
    fn closed(&self, connection: ConnectionId, peer: PeerId);

    /// Answers calls; [`Call::peer`](crate::wire::Call::peer) is the authenticated caller.
    fn api(&self) -> Arc<dyn PeerApi>;
}

/// Names one connection of a listener.
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
    /// Its name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who made it.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// From where.
    pub fn remote(&self) -> IpAddr {
        self.remote
    }

    /// Whether the peer flooded it with frames that no honest peer has any use for, which ended it.
    pub fn is_flooded(&self) -> bool {
        self.ends.flooded.is_cancelled()
    }

    /// Whether it was ended because the peer did not read what it had asked for.
    pub fn is_stalled(&self) -> bool {
        self.ends.stalled.is_cancelled()
    }

    /// The peer is known for so long: it is trusted, or was of use. What strangers share does not limit it.
    pub fn favour(&self, time: Duration) {
        self.standing.favour(time);
    }

    /// Ends it; calls under way fail.
    pub fn hang_up(&self) {
        self.ends.hang_up.cancel();
    }
}

/// A listening node.
pub struct Listener {
    address: Address,
    accepting: CancellationToken,
    connections: CancellationToken,
    /// Resolves when the last connection has been drained.
    drained: Option<tokio::sync::oneshot::Receiver<()>>,
    memory: Option<CallersMemory>,
}

/// Tells how much the callers of a listener make this node hold, beside connections.
#[derive(Clone)]
pub struct CallersMemory {
    answers: Arc<Answers>,
    handshakes: Arc<Handshakes>,
}

impl CallersMemory {
    /// Bytes of answers that are not read yet.
    pub fn unread_bytes(&self) -> usize {
        self.answers.bytes()
    }

    /// Bytes of handshakes, each at the most that it may take.
    pub fn handshake_bytes(&self) -> usize {
        self.handshakes.bytes()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

impl Listener {
    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Tells what callers make this node hold; `None` where the transport does not count it.
    pub fn memory(&self) -> Option<CallersMemory> {
        self.memory.clone()
    }

    /// Takes no more connections; those there are may finish what they have begun.
    pub fn stop_accepting(&self) {
        self.accepting.cancel();
    }

    /// Takes no more connections, lets calls under way finish until `deadline`, and ends what is left.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.accepting.cancel();
        if let Some(drained) = self.drained.take()
            && tokio::time::timeout(deadline, drained).await.is_err()
        {
            tracing::debug!(address = %self.address, "connections that were not drained in time are ended");
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

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection to the address.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        address: Address,
        /// The system's reason.
        reason: String,
    },
    /// Not connected in time.
    #[error("{address} did not answer within {timeout:?}")]
    Timeout {
        /// Where.
        address: Address,
        /// How long it had.
        timeout: Duration,
    },
    /// Somebody else answered.
    #[error("{address} answered as {found}, not as {expected}: check the peer id, or who has the address now")]
    WrongKey {
        /// Where.
        address: Address,
        /// Who was dialled.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The handshake failed: whoever answered is no node, or one that cannot be talked to.
    #[error("the handshake with {address} failed: {reason}")]
    Handshake {
        /// Where.
        address: Address,
        /// What went wrong.
        reason: String,
    },
    /// The right key answered, and ended the connection. A peer that does not admit this node may also end it only after
    /// the dial, with the first call.
    #[error("{address} ended the connection after the handshake: {reason}")]
    Refused {
        /// Where.
        address: Address,
        /// What this side knows of it.
        reason: String,
    },
}

/// Why a node cannot listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Another process, or another system in this one, listens there.
    #[error("cannot listen on {address}: the address is in use; stop whoever uses it, or choose another port")]
    AddressInUse {
        /// Where.
        address: ListenAddress,
    },
    /// Not an address to listen on, or not allowed.
    #[error("cannot listen on {address}: {reason}")]
    Unusable {
        /// Where.
        address: ListenAddress,
        /// The system's reason.
        reason: String,
    },
}
