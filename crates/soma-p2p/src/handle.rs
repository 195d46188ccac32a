//! What the node holds to talk to its system.

use crate::{
    peer_events::PeerEvents,
    shared::{Observers, Shared},
    status::{PeerStatus, Status},
    synced_commits::SyncedCommits,
};
use soma_actors::state_sync::messages::LocalCommit;
use soma_protocol::{discovery::BookEntry, state_sync::LocalCommitError};
use soma_replay::{FLOW_TARGET, Flow};
use soma_runtime::causality::in_flow;
use soma_types::{Address, CertifiedCommit, ChainId, CommitIndex, PeerId};
use std::{sync::Arc, time::Duration};
use tracing::debug_span;

/// How often [`Handle::wait_until`] looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The way to a running system, cheap to clone. Its futures need no particular runtime.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The identity of this node among its peers.
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
        let flow = Flow::begin(debug_span!(target: FLOW_TARGET, "send_commit", commit = commit.commit.index));
        let answer = in_flow(flow, mailbox.ask(|reply| LocalCommit { commit, reply })).await;
        answer.unwrap_or(Err(LocalCommitError::Unavailable))
    }

    /// For an executor: every commit from `from` on, with its blocks, in order, each once, without gaps, as soon as it
    /// is durable. 0 means the first commit that the node has: a node need not [begin](crate::Start) with commit 1. A
    /// reader that is slow or comes late is served from the store and misses nothing.
    ///
    /// The node waits for it: it fetches no further ahead of the slowest executor than
    /// `state_sync.max_executor_lag` commits. Drop a stream that is not read any more. A reader that the node need
    /// not wait for takes [`observe_commits`](Self::observe_commits).
    pub fn synced_commits(&self, from: CommitIndex) -> SyncedCommits {
        SyncedCommits::for_executor(&self.shared, from)
    }

    /// As [`synced_commits`](Self::synced_commits), for a reader that the node does not wait for: an indexer, a copy
    /// of the chain, a test.
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
        // The runtime is gone after shutdown, and gives no answer.
        self.shared.io.spawn(looking).await.ok().flatten().unwrap_or_default()
    }
}
