//! Polls every node for its height, and for the announcements that it has heard.

use soma_p2p::{CommitIndex, PeerId};
use soma_p2p_cli::{fetch_status, node_status::NodeStatus};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// The source, when a height comes from the node's own status.
pub(super) const STATUS: &str = "status";

/// One node, as it was last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// Its own latest answer.
    pub(super) height: CommitIndex,
    pub(super) executed: CommitIndex,
    pub(super) explanation: String,
    /// The highest commit that each has heard it to have, in any of its lives.
    pub(super) announced: BTreeMap<String, CommitIndex>,
}

impl Look {
    /// The highest commit that any node has heard of from it.
    pub(super) fn highest_announced(&self) -> CommitIndex {
        self.announced.values().copied().max().unwrap_or(0)
    }

    fn heard(&mut self, to: &str, index: CommitIndex) {
        let known = self.announced.entry(to.to_owned()).or_default();
        *known = index.max(*known);
    }
}

#[derive(Default)]
struct Seen {
    admins: BTreeMap<PeerId, SocketAddr>,
    looks: BTreeMap<PeerId, Look>,
}

struct Shared {
    names: BTreeMap<PeerId, String>,
    seen: Mutex<Seen>,
    over: AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change is a whole one.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an answer. Nodes choose ports anew, so the answer names its node.
    fn take(&self, status: &NodeStatus) {
        let Some(name) = self.names.get(&status.p2p.peer_id) else { return };
        let mut seen = self.seen();
        let own = seen.looks.entry(status.p2p.peer_id).or_default();
        own.height = status.p2p.height;
        own.executed = status.executor.index;
        own.explanation.clone_from(&status.p2p.explanation);
        own.heard(STATUS, status.p2p.height);
        for peer in &status.p2p.peers {
            let claim = peer.serving.as_ref().and_then(|serving| serving.highest);
            if let Some(claim) = claim.filter(|_| self.names.contains_key(&peer.peer_id)) {
                seen.looks.entry(peer.peer_id).or_default().heard(name, claim);
            }
        }
    }
}

/// The thread that asks.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins. The names cover all future nodes.
    pub(super) fn start(names: BTreeMap<PeerId, String>) -> Self {
        let shared = Arc::new(Shared { names, seen: Mutex::default(), over: AtomicBool::new(false) });
        let asking = shared.clone();
        let thread = thread::spawn(move || {
            while !asking.over.load(Ordering::Relaxed) {
                let admins: Vec<_> = asking.seen().admins.values().copied().collect();
                for admin in admins {
                    // One that has just been killed or is busy tells nothing this time.
                    if let Ok(status) = fetch_status(admin) {
                        asking.take(&status);
                    }
                }
                thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Asks this node from now on.
    pub(super) fn ask(&self, peer: PeerId, admin: SocketAddr) {
        self.shared.seen().admins.insert(peer, admin);
    }

    /// Does not ask this node any more.
    pub(super) fn leave(&self, peer: PeerId) {
        self.shared.seen().admins.remove(&peer);
    }

    /// The node as it was last seen.
    pub(super) fn look(&self, peer: PeerId) -> Look {
        self.shared.seen().looks.get(&peer).cloned().unwrap_or_default()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}
