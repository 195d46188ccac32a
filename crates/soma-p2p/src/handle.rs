//! What the node holds to talk to its system.

use crate::{
    peer_events::PeerEvents,
    peer_memory::PeerMemory,
    status::{PeerStatus, Status},
    synced_commits::SyncedCommits,
};
use soma_actors::connections::messages::FollowPeers;
use soma_actors::state_sync::CommitFeed;
use soma_actors::state_sync::messages::{ExecutorProgress, LocalCommit};
use soma_network::CallersMemory;
use soma_protocol::{
    connections,
    discovery::{self, BookEntry},
    grpc_adapter, peer_heights,
    state_sync::{self, LocalCommitError},
    store_writer, verifier,
};
use soma_runtime::{Clock, Escalation, IoTasks, Offload, Tree};
use soma_runtime::{Mailbox, Observe};
use soma_store::Store;
use soma_types::{Address, CertifiedCommit, ChainId, CommitIndex, PeerId};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long an actor may take to show itself before the status goes without.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often [`Handle::wait_until`] looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The way to a running system, cheap to clone. Its futures need no particular runtime.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

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

impl Handle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Who this node is to its peers.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// The chain it is on.
    pub fn chain_id(&self) -> ChainId {
        self.shared.chain_id
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Index of the highest durable commit.
    pub fn height(&self) -> CommitIndex {
        self.shared.commit_feed.highest()
    }

    /// Hands over the next commit of the node's own consensus, with its blocks and the blocks whose votes certify it.
    ///
    /// It is checked by the same rules as a commit of a peer, signatures and transactions included. Returns when the
    /// commit is durable; it is then served to others, told to peers, and in every
    /// [`synced_commits`](Self::synced_commits) stream. A commit that this node has already is no error.
    ///
    /// # Errors
    ///
    /// The commit was not stored. [`LocalCommitError`] says why, and what to do.
    pub async fn send_commit(&self, commit: CertifiedCommit) -> Result<(), LocalCommitError> {
        let mut mailbox = self.shared.local_commit.clone();
        let answer = mailbox.ask(|reply| LocalCommit { commit, reply }).await;
        answer.unwrap_or(Err(LocalCommitError::Unavailable))
    }

    /// For an executor: every commit from `from` on (at least 1), with its blocks, in order, each once, without gaps, as
    /// soon as it is durable. A reader that is slow or comes late is served from the store and misses nothing.
    ///
    /// The node waits for it: it fetches no further ahead of the slowest executor than
    /// `state_sync.max_executor_lag` commits. Drop a stream that is not read any more. A reader that the node need not wait
    /// for takes [`observe_commits`](Self::observe_commits).
    pub fn synced_commits(&self, from: CommitIndex) -> SyncedCommits {
        SyncedCommits::for_executor(&self.shared, from)
    }

    /// As [`synced_commits`](Self::synced_commits), for a reader that the node does not wait for: an indexer, a copy of the
    /// chain, a test.
    pub fn observe_commits(&self, from: CommitIndex) -> SyncedCommits {
        SyncedCommits::for_observer(&self.shared, from)
    }

    /// Peers that this node can ask: first each one connected now, then every change.
    pub fn peer_events(&self) -> PeerEvents {
        PeerEvents::start(&self.shared)
    }

    /// How the node is doing, and if it makes no progress, why.
    pub async fn status(&self) -> Status {
        let shared = self.shared.clone();
        let looking = self.shared.io.spawn({
            let shared = shared.clone();
            async move { Status::collect(&shared).await }
        });
        // The runtime is gone after shutdown: nothing answers, and the status says so.
        looking.await.unwrap_or_else(|_| Status::without_actors(&shared))
    }

    /// The first status for which `holds`, looked at ten times a second: to wait until the node is synced, or has
    /// peers. Waits for ever if it never holds; with the last status once the system has stopped.
    pub async fn wait_until(&self, holds: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status().await;
            let stopped = self.shared.closing.is_cancelled();
            let pause = self.shared.io.spawn(async { tokio::time::sleep(LOOK_INTERVAL).await });
            if stopped || holds(&status) || pause.await.is_err() {
                return status;
            }
        }
    }

    /// Peers connected in either direction.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.status().await.peers
    }

    /// The address book: every peer that this node has been connected to or heard of, in the order of their ids. Empty
    /// while Discovery is being restarted.
    pub async fn known_peers(&self) -> Vec<BookEntry> {
        let looking = Observers::look(self.shared.observers.known_peers.clone());
        // The runtime is gone after shutdown, and nobody answers.
        self.shared.io.spawn(looking).await.ok().flatten().unwrap_or_default()
    }
}
