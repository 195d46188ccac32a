//! An outbound connection.

use crate::ends::Ends;
use crate::wire::PeerApi;
use soma_types::PeerId;
use std::{fmt, net::IpAddr, sync::Arc};

/// A live connection to a peer, for calls. Cheap to clone; it ends once, for all clones.
#[derive(Clone)]
pub struct Link {
    peer: PeerId,
    remote: Option<IpAddr>,
    api: Arc<dyn PeerApi>,
    ends: Ends,
}

impl Link {
    /// A link to `peer` at `remote`.
    pub(crate) fn new(peer: PeerId, remote: Option<IpAddr>, api: Arc<dyn PeerApi>, ends: Ends) -> Self {
        Self { peer, remote, api, ends }
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's IP address, resolved if a name was dialled. `None` if the transport does not know it.
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// The API to call the peer.
    pub fn api(&self) -> &dyn PeerApi {
        &*self.api
    }

    /// Resolves when the connection has ended, for any reason.
    pub async fn closed(&self) {
        self.ends.closed.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.ends.closed.is_cancelled()
    }

    /// Whether the connection ended because the peer flooded it with frames that no honest peer sends.
    pub fn is_flooded(&self) -> bool {
        self.ends.flooded.is_cancelled()
    }

    /// Ends the connection; calls in flight fail.
    pub fn hang_up(&self) {
        self.ends.hang_up.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.peer.short())
    }
}
