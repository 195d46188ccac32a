//! A connection that this node made.

use crate::watched_io::Ends;
use crate::wire::PeerApi;
use soma_types::PeerId;
use std::{fmt, net::IpAddr, sync::Arc};

/// A live connection to a peer, over which it can be asked. Cheap to clone; ends once, for all clones.
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

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where it is: what the name that was dialled resolved to. `None` where the transport cannot tell.
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// What it can be asked.
    pub fn api(&self) -> &dyn PeerApi {
        &*self.api
    }

    /// Resolves when the connection is gone, for whatever reason.
    pub async fn closed(&self) {
        self.ends.closed.cancelled().await;
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.ends.closed.is_cancelled()
    }

    /// Whether the peer flooded the connection with frames that no honest peer has any use for, which ended it.
    pub fn is_flooded(&self) -> bool {
        self.ends.flooded.is_cancelled()
    }

    /// Ends the connection; calls under way fail.
    pub fn hang_up(&self) {
        self.ends.hang_up.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.peer.short())
    }
}
