//! What all clones of a handle share.

use crate::peer_memory::PeerMemory;
use soma_actors::connections::messages::FollowPeers;
use soma_actors::state_sync::CommitFeed;
use soma_actors::state_sync::messages::{ExecutorProgress, LocalCommit};
use soma_network::CallersMemory;
use soma_protocol::{
    connections,
    discovery::{self, BookEntry},
    grpc_adapter, peer_heights, state_sync, store_writer, verifier,
};
use soma_runtime::{Clock, Escalation, IoTasks, Mailbox, Observe, Offload, Tree};
use soma_store::Store;
use soma_types::{Address, ChainId, PeerId};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long an actor may take to show itself before the status goes without.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all clones share; read only.
pub(crate) struct Shared {
    pub(crate) peer_id: PeerId,
    pub(crate) chain_id: ChainId,
    pub(crate) address: Address,
    /// What peers may make this node hold, and how much of it they do, where the transport counts it.
    pub(crate) memory: (PeerMemory, Option<CallersMemory>),
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
    /// Nothing once the system has stopped, so that the store can be opened again.
    pub(crate) store: watch::Receiver<Option<Arc<dyn Store>>>,
    pub(crate) clock: Clock,
    pub(crate) local_commit: Mailbox<LocalCommit>,
    pub(crate) executor_at: Mailbox<ExecutorProgress>,
    pub(crate) follow_peers: Mailbox<FollowPeers>,
    /// Readers of streams so far.
    pub(crate) next_reader: AtomicU64,
    pub(crate) observers: Observers,
    pub(crate) tree: Tree,
    pub(crate) escalation: watch::Receiver<Option<Escalation>>,
    pub(crate) commit_feed: CommitFeed,
    pub(crate) channel_capacity: usize,
    pub(crate) closing: CancellationToken,
}

/// The capability to look at each actor.
#[derive(Clone)]
pub(crate) struct Observers {
    pub(crate) state_sync: Mailbox<Observe<state_sync::Snapshot>>,
    pub(crate) peer_heights: Mailbox<Observe<peer_heights::Snapshot>>,
    pub(crate) connections: Mailbox<Observe<connections::Snapshot>>,
    pub(crate) discovery: Mailbox<Observe<discovery::Snapshot>>,
    pub(crate) known_peers: Mailbox<Observe<Vec<BookEntry>>>,
    pub(crate) verifier: Mailbox<Observe<verifier::Snapshot>>,
    pub(crate) store_writer: Mailbox<Observe<store_writer::Snapshot>>,
    pub(crate) serving: Mailbox<Observe<grpc_adapter::Snapshot>>,
}

impl Observers {
    /// Asks one actor to show itself.
    pub(crate) async fn look<S: Send + 'static>(mut mailbox: Mailbox<Observe<S>>) -> Option<S> {
        timeout(OBSERVE_TIMEOUT, mailbox.ask(Observe)).await.ok()?.ok()
    }
}
