//! What all clones of a handle share.

use crate::{peer_memory::PeerMemory, publishing::Publishing};
use soma_actors::connections::messages::{ChosenPeersChanged, Disconnect, FollowPeers};
use soma_actors::objects::messages::{FetchObjects, ListSnapshots};
use soma_actors::peer_heights::messages::{BanPeer, UnbanPeer};
use soma_actors::state_sync::CommitFeed;
use soma_actors::state_sync::messages::{ExecutorProgress, LocalCommit};
use soma_actors::wiring::Actors;
use soma_archive::SegmentStorage;
use soma_network::CallersMemory;
use soma_protocol::{
    ChosenPeers, archiver, broadcast, connections,
    discovery::{self, BookEntry},
    grpc_adapter, objects, peer_heights, state_sync, store_writer, verifier,
};
use soma_replay::Recorder;
use soma_runtime::{Clock, Escalation, IoTasks, Mailbox, Observe, Offload, Tree};
use soma_store::{ObjectSource, Store};
use soma_types::{Address, ChainId, PeerId};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long an actor may take to show itself before the status goes without.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all clones share; read only.
pub(crate) struct Shared {
    pub(crate) peer_id: PeerId,
    pub(crate) chain_id: ChainId,
    pub(crate) address: Address,
    /// The memory budget of peers, and its present use if the transport counts it.
    pub(crate) memory: (PeerMemory, Option<CallersMemory>),
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
    /// Nothing once the system has stopped, so that the store can be opened again.
    pub(crate) store: watch::Receiver<Option<Arc<dyn Store>>>,
    pub(crate) clock: Clock,
    pub(crate) local_commit: Mailbox<LocalCommit>,
    pub(crate) executor_at: Mailbox<ExecutorProgress>,
    pub(crate) follow_peers: Mailbox<FollowPeers>,
    pub(crate) peer_management: PeerManagement,
    pub(crate) fetch_objects: Mailbox<FetchObjects>,
    pub(crate) list_snapshots: Mailbox<ListSnapshots>,
    pub(crate) archive: Option<Arc<dyn SegmentStorage>>,
    pub(crate) objects: Option<Arc<dyn ObjectSource>>,
    /// None if the node does not spread messages.
    pub(crate) publishing: Option<Publishing>,
    /// Sets what the actors are recorded with.
    pub(crate) record: watch::Sender<Option<Recorder>>,
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
    /// None in a node without an archive.
    pub(crate) archiver: Option<Mailbox<Observe<archiver::Snapshot>>>,
    /// None in a node that does not spread messages.
    pub(crate) broadcast: Option<Mailbox<Observe<broadcast::Snapshot>>>,
    pub(crate) objects: Mailbox<Observe<objects::Snapshot>>,
    pub(crate) serving: Mailbox<Observe<grpc_adapter::Snapshot>>,
}

impl Observers {
    /// Asks one actor to show itself.
    pub(crate) async fn look<S: Send + 'static>(mut mailbox: Mailbox<Observe<S>>) -> Option<S> {
        timeout(OBSERVE_TIMEOUT, mailbox.ask(Observe)).await.ok()?.ok()
    }
}

/// The name under which actors know the sender.
const HANDLE: &str = "handle";

/// How the handle reaches the actors that know peers.
pub(crate) struct PeerManagement {
    /// Locked for as long as a change is under way, so that all actors see changes in one order.
    pub(crate) chosen: Mutex<watch::Sender<ChosenPeers>>,
    pub(crate) denied: BTreeSet<PeerId>,
    pub(crate) choosers: [Mailbox<ChosenPeersChanged>; 4],
    pub(crate) disconnect: Mailbox<Disconnect>,
    pub(crate) ban: Mailbox<BanPeer>,
    pub(crate) unban: Mailbox<UnbanPeer>,
}

impl PeerManagement {
    pub(crate) fn new(chosen: watch::Sender<ChosenPeers>, denied: &[PeerId], actors: &Actors) -> Self {
        Self {
            chosen: Mutex::new(chosen),
            denied: denied.iter().copied().collect(),
            choosers: [
                actors.connections.mailbox(HANDLE),
                actors.discovery.mailbox(HANDLE),
                actors.peer_heights.mailbox(HANDLE),
                actors.grpc_adapter.mailbox(HANDLE),
            ],
            disconnect: actors.connections.mailbox(HANDLE),
            ban: actors.peer_heights.mailbox(HANDLE),
            unban: actors.peer_heights.mailbox(HANDLE),
        }
    }
}
