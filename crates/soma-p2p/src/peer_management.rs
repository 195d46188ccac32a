//! Peers that the operator chooses, bans or disconnects while the node runs.

use crate::{config::SeedPeer, handle::Handle, shared::Shared};
use soma_actors::{
    connections::messages::{ChosenPeersChanged, Disconnect},
    peer_heights::messages::{BanPeer, UnbanPeer},
};
use soma_protocol::ChosenPeers;
use soma_runtime::{Mailbox, Reply};
use soma_types::PeerId;
use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How long a change waits before it is sent again to an actor that is being restarted.
const SEND_AGAIN: Duration = Duration::from_millis(100);

/// Why the peers of a node were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerManagementError {
    /// The system has stopped, or stopped before every actor had the change.
    #[error("the system has stopped: start it again, with the change in its configuration")]
    Stopped,
    /// The peer is this node.
    #[error("{0} is this node itself: name another peer")]
    ThisNode(PeerId),
    /// The peer is on the denylist.
    #[error("{0} is on the denylist: take it off `connections.denylist` first, which needs a restart")]
    Denied(PeerId),
    /// The peer is on the allowlist.
    #[error("{0} is a trusted peer: remove it from the trusted peers first")]
    Trusted(PeerId),
}

/// Peers, while the node runs. A change lasts until the system stops: what shall stay belongs in the configuration.
///
/// Each method returns when the actors concerned have the change, also when one of them is restarted meanwhile. A
/// change that has begun is completed even if its future is dropped.
impl Handle {
    /// Adds an address of a seed. The node dials its seeds for as long as it has few links, and never forgets them.
    ///
    /// # Errors
    ///
    /// The seed is this node or is on the denylist, or the system has stopped.
    pub async fn add_seed(&self, seed: SeedPeer) -> Result<(), PeerManagementError> {
        self.check_other(seed.peer_id)?;
        self.choose(move |chosen| {
            let addresses = chosen.seeds.entry(seed.peer_id).or_default();
            if !addresses.contains(&seed.address) {
                addresses.push(seed.address);
            }
        })
        .await
    }

    /// Removes a seed with all its addresses. A link to it stays until one side ends it. No error if it is no seed.
    ///
    /// # Errors
    ///
    /// The system has stopped.
    pub async fn remove_seed(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        self.choose(move |chosen| {
            chosen.seeds.remove(&peer);
        })
        .await
    }

    /// Puts a peer on the allowlist: the node keeps a link to it, always has room for it, and does not ban it for
    /// faults.
    ///
    /// The node must know an address of the peer: from the peer's node info, from the committee, or because the peer is
    /// also a seed.
    ///
    /// # Errors
    ///
    /// The peer is this node or is on the denylist, or the system has stopped.
    pub async fn add_trusted_peer(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        self.check_other(peer)?;
        self.choose(move |chosen| {
            chosen.trusted.insert(peer);
        })
        .await
    }

    /// Takes a peer off the allowlist. Its connections stay, and count like those of any peer. No error if it is not on
    /// the list.
    ///
    /// # Errors
    ///
    /// The system has stopped.
    pub async fn remove_trusted_peer(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        self.choose(move |chosen| {
            chosen.trusted.remove(&peer);
        })
        .await
    }

    /// Ends every connection with a peer. Both sides may connect again at once; [`ban_peer`](Self::ban_peer) prevents
    /// that. No error if the peer is not connected.
    ///
    /// # Errors
    ///
    /// The system has stopped.
    pub async fn disconnect_peer(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        self.complete(|shared| async move {
            let mailbox = shared.peer_management.disconnect.clone();
            send(&shared, mailbox, |reply| Disconnect { peer, reply }).await
        })
        .await
    }

    /// Disconnects a peer and keeps it out for `duration`, at most ten years. The ban is stored and survives a restart.
    /// `reason` goes to the log. A further ban replaces the one before.
    ///
    /// # Errors
    ///
    /// The peer is this node or a trusted peer, or the system has stopped.
    pub async fn ban_peer(
        &self,
        peer: PeerId,
        duration: Duration,
        reason: impl Into<String>,
    ) -> Result<(), PeerManagementError> {
        if peer == self.peer_id() {
            return Err(PeerManagementError::ThisNode(peer));
        }
        let reason = reason.into();
        self.complete(|shared| async move {
            // Held until the ban is noted, so that the peer is not made a trusted one meanwhile.
            let chosen = shared.peer_management.chosen.lock().await;
            if chosen.borrow().trusted.contains(&peer) {
                return Err(PeerManagementError::Trusted(peer));
            }
            let mailbox = shared.peer_management.ban.clone();
            send(&shared, mailbox, |reply| BanPeer { peer, duration, reason: reason.clone(), reply }).await
        })
        .await
    }

    /// Ends a peer's ban, of the operator or of this node, and forgets the peer's faults. No error if it is not banned.
    ///
    /// # Errors
    ///
    /// The system has stopped.
    pub async fn unban_peer(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        self.complete(|shared| async move {
            let mailbox = shared.peer_management.unban.clone();
            send(&shared, mailbox, |reply| UnbanPeer { peer, reply }).await
        })
        .await
    }

    fn check_other(&self, peer: PeerId) -> Result<(), PeerManagementError> {
        match peer {
            peer if peer == self.peer_id() => Err(PeerManagementError::ThisNode(peer)),
            peer if self.shared.peer_management.denied.contains(&peer) => Err(PeerManagementError::Denied(peer)),
            _ => Ok(()),
        }
    }

    /// Changes the lists, and tells every actor that goes by them.
    async fn choose(&self, change: impl FnOnce(&mut ChosenPeers) + Send + 'static) -> Result<(), PeerManagementError> {
        self.complete(|shared| async move {
            let lists = shared.peer_management.chosen.lock().await;
            lists.send_modify(change);
            let chosen = lists.borrow().clone();
            for mailbox in &shared.peer_management.choosers {
                let changed = |reply| ChosenPeersChanged { chosen: chosen.clone(), reply };
                send(&shared, mailbox.clone(), changed).await?;
            }
            Ok(())
        })
        .await
    }

    /// Runs a change to its end, even if its caller's future is dropped.
    async fn complete<F>(&self, change: impl FnOnce(Arc<Shared>) -> F) -> Result<(), PeerManagementError>
    where
        F: Future<Output = Result<(), PeerManagementError>> + Send + 'static,
    {
        let changing = self.shared.io.spawn(change(self.shared.clone()));
        changing.await.unwrap_or(Err(PeerManagementError::Stopped))
    }
}

/// Sends a change to an actor until it has taken it: one that is being restarted takes it afterwards.
async fn send<M: Debug + Send + 'static>(
    shared: &Shared,
    mut mailbox: Mailbox<M>,
    message: impl Fn(Reply<()>) -> M,
) -> Result<(), PeerManagementError> {
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return Err(PeerManagementError::Stopped),
            taken = mailbox.ask(&message) => if taken.is_ok() { return Ok(()) },
        }
        sleep(SEND_AGAIN).await;
    }
}
