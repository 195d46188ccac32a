//! How a node is doing, in one answer.

use crate::handle::{Observers, Shared};
use serde::{Deserialize, Serialize};
use soma_protocol::{
    discovery::{self, Trouble},
    peer_heights::{NoPeer, PeerSnapshot},
    serving, state_sync,
    state_sync::Progress,
    store_writer, verifier,
};
use soma_supervision::ChildStatus;
use soma_types::{Address, ChainId, CommitIndex, Epoch, PeerId};
use std::collections::BTreeMap;

/// A node at one moment. Parts are missing while the actor that knows them is being restarted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Who it is.
    pub peer_id: PeerId,
    /// Its chain.
    pub chain_id: ChainId,
    /// Where it listens.
    pub address: Address,
    /// Highest durable commit.
    pub height: CommitIndex,
    /// Highest commit that a peer claims; a hint.
    pub target: CommitIndex,
    /// Height as percent of the target, rounded down; 100 when synced, 0 while no target is known.
    pub percent: u8,
    /// Epoch of the next commit.
    pub epoch: Option<Epoch>,
    /// What state sync is doing.
    pub progress: Option<Progress>,
    /// The cause in one word, as the metric `soma_sync_cause` has it; where nobody is connected, what is wrong with that.
    pub cause: Option<String>,
    /// The same in words.
    pub explanation: String,
    /// What is wrong with this node's place in the network in one word, as the metric `soma_network_trouble` has it.
    pub network_trouble: Option<String>,
    /// The same in words.
    pub network_explanation: Option<String>,
    /// Peers connected in either direction.
    pub peers: Vec<PeerStatus>,
    /// Peers that are kept out for what they did.
    pub banned: Vec<PeerId>,
    /// State sync in figures.
    pub state_sync: Option<state_sync::Snapshot>,
    /// Discovery in figures.
    pub discovery: Option<discovery::Snapshot>,
    /// The CPU pool in figures.
    pub verifier: Option<verifier::Snapshot>,
    /// The store's writer in figures.
    pub store_writer: Option<store_writer::Snapshot>,
    /// Calls of peers in figures.
    pub serving: Option<serving::Snapshot>,
    /// The supervisors and their actors, in the order in which they are started.
    pub tree: ChildStatus,
    /// Why the system gave up, if it did.
    pub fatal: Option<String>,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who.
    pub peer_id: PeerId,
    /// Whether this node can ask it.
    pub outbound: bool,
    /// Whether it can ask this node.
    pub inbound: bool,
    /// Whether it is always welcome: on the allowlist, or a validator of the current committee.
    #[serde(default)]
    pub trusted: bool,
    /// How far it has got and how it serves, for a peer that this node can ask.
    pub serving: Option<PeerSnapshot>,
}

impl PeerStatus {
    fn new(peer_id: PeerId) -> Self {
        Self { peer_id, outbound: false, inbound: false, trusted: false, serving: None }
    }
}

impl Status {
    pub(crate) async fn collect(shared: &Shared) -> Self {
        let observers = shared.observers.clone();
        let (sync, heights, connections, discovery, verifier, store_writer, serving) = tokio::join!(
            Observers::look(observers.state_sync),
            Observers::look(observers.peer_heights),
            Observers::look(observers.connections),
            Observers::look(observers.discovery),
            Observers::look(observers.verifier),
            Observers::look(observers.store_writer),
            Observers::look(observers.serving),
        );
        let mut peers: BTreeMap<PeerId, PeerStatus> = BTreeMap::new();
        let mut banned = Vec::new();
        if let Some(connections) = connections {
            banned = connections.banned;
            for peer in connections.outbound {
                peers.entry(peer).or_insert_with(|| PeerStatus::new(peer)).outbound = true;
            }
            for peer in connections.inbound {
                peers.entry(peer).or_insert_with(|| PeerStatus::new(peer)).inbound = true;
            }
            for peer in connections.trusted {
                if let Some(status) = peers.get_mut(&peer) {
                    status.trusted = true;
                }
            }
        }
        for snapshot in heights.into_iter().flat_map(|heights| heights.peers) {
            let peer = snapshot.peer;
            peers.entry(peer).or_insert_with(|| PeerStatus::new(peer)).serving = Some(snapshot);
        }
        let mut status = Self::without_actors(shared);
        status.peers = peers.into_values().collect();
        status.banned = banned;
        let trouble = discovery.as_ref().and_then(|discovery| discovery.trouble.as_ref());
        status.network_trouble = trouble.map(|trouble| trouble.cause().into());
        status.network_explanation = trouble.map(ToString::to_string);
        if let Some(sync) = &sync {
            status.target = sync.target.max(status.height);
            status.percent = percent(status.height, status.target);
            status.epoch = Some(sync.epoch);
            status.progress = Some(sync.progress.clone());
            let alone = matches!(sync.progress, Progress::NoPeer { reason: NoPeer::NotConnected, .. });
            status.cause = Some(match trouble {
                Some(trouble) if alone => trouble.cause().into(),
                _ => sync.progress.cause().into(),
            });
            if status.fatal.is_none() {
                status.explanation = explain(sync, trouble);
            }
        }
        Self { state_sync: sync, discovery, verifier, store_writer, serving, ..status }
    }

    /// What is known without asking any actor.
    pub(crate) fn without_actors(shared: &Shared) -> Self {
        let fatal = shared.escalation.borrow().as_ref().map(ToString::to_string);
        let height = shared.published.highest();
        Self {
            peer_id: shared.peer_id,
            chain_id: shared.chain_id,
            address: shared.address.clone(),
            height,
            target: height,
            percent: 0,
            epoch: None,
            progress: None,
            cause: None,
            explanation: match &fatal {
                Some(reason) => format!("the system gave up: {reason}"),
                None if shared.closing.is_cancelled() => "stopped".into(),
                None => "state sync is being restarted".into(),
            },
            network_trouble: None,
            network_explanation: None,
            peers: Vec::new(),
            banned: Vec::new(),
            state_sync: None,
            discovery: None,
            verifier: None,
            store_writer: None,
            serving: None,
            tree: shared.tree.status(),
            fatal,
        }
    }

    /// Whether the node is up and does what it should: no actor down, no error that keeps it from going on.
    pub fn is_healthy(&self) -> bool {
        use soma_supervision::ChildState;
        let up = self.tree.actors().iter().all(|actor| actor.state == ChildState::Running);
        self.fatal.is_none() && up && !matches!(self.progress, None | Some(Progress::Disk { .. }))
    }
}

fn percent(height: CommitIndex, target: CommitIndex) -> u8 {
    let percent = u64::from(height) * 100 / u64::from(target.max(1));
    if target == 0 {
        return 0;
    }
    if height >= target { 100 } else { u8::try_from(percent).unwrap_or(99).min(99) }
}

/// Progress in words, with what an operator needs to act.
fn explain(sync: &state_sync::Snapshot, trouble: Option<&Trouble>) -> String {
    let state_sync::Snapshot { applied, target, .. } = sync;
    match &sync.progress {
        Progress::Synced => format!("synced at commit {applied}"),
        Progress::Syncing => format!("fetching commits {} to {target}", applied + 1),
        Progress::NoPeer { needed, reason: reason @ NoPeer::NotConnected } => {
            let why = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            format!("commit {needed} is next, but {reason}{why}")
        }
        Progress::NoPeer { needed, reason } => format!("commit {needed} is next, but {reason}"),
        Progress::NoCommittee { epoch } => {
            format!("the next commit is of epoch {epoch}, whose committee is not known")
        }
        Progress::ExecutorBehind { next } => {
            format!("commits up to {applied} are stored, and the executor is at {next}: fetching waits for it")
        }
        Progress::Disk { reason } => format!("commits cannot be stored: {reason}"),
        Progress::Retrying { needed, attempts, reason } => {
            format!("commit {needed} is tried again after {attempts} failed attempts; the last one: {reason}")
        }
    }
}
