//! How a node is doing, in one answer.

use crate::{
    peer_memory::PeerMemoryStatus,
    shared::{Observers, Shared},
};
use serde::{Deserialize, Serialize};
use soma_protocol::{
    archiver, broadcast,
    connections::{self, BannedPeer},
    discovery::{self, Trouble},
    grpc_adapter,
    objects::{self, OldestWanted},
    peer_heights::{self, NoPeer, PeerSnapshot},
    state_sync,
    state_sync::{ExecutorFailure, Late, Progress},
    store_writer,
    verifier::{self, SlowCheck},
};
use soma_runtime::{ChildStatus, Mailbox, Observe};
use soma_types::{Address, AuthorityIndex, ChainId, CommitIndex, Epoch, PeerId, TimestampMs};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Silent validators that the explanation names one by one.
const MAX_SILENT_TOLD: usize = 5;

/// An object that has been wanted for this long is a cause. Chunks of snapshots take this long on slow links only.
const OBJECT_IS_LATE: Duration = Duration::from_secs(5);

/// A node at one moment. Parts are missing while the actor that knows them is being restarted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The peer's id.
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
    /// Since when the node has been stuck, and on what.
    pub stuck: Option<Stuck>,
    /// What state sync is doing.
    pub progress: Option<Progress>,
    /// The cause in one word, as the metric `soma_sync_cause` has it; without a connected peer, the issue of
    /// that.
    pub cause: Option<String>,
    /// The same in words.
    pub explanation: String,
    /// The network issue of this node in one word, as the metric `soma_network_trouble` has it.
    pub network_trouble: Option<String>,
    /// The same in words.
    pub network_explanation: Option<String>,
    /// Peers connected in either direction.
    pub peers: Vec<PeerStatus>,
    /// Banned peers.
    pub banned: Vec<BannedPeer>,
    /// State sync in figures.
    pub state_sync: Option<state_sync::Snapshot>,
    /// Discovery in figures.
    pub discovery: Option<discovery::Snapshot>,
    /// The CPU pool in figures.
    pub verifier: Option<verifier::Snapshot>,
    /// The store's writer in figures.
    pub store_writer: Option<store_writer::Snapshot>,
    /// The archive in figures; none in a node without one.
    pub archiver: Option<archiver::Snapshot>,
    /// Messages in figures; none in a node that does not spread any.
    pub broadcast: Option<broadcast::Snapshot>,
    /// Objects of other nodes in figures.
    pub objects: Option<objects::Snapshot>,
    /// Calls of peers in figures.
    pub serving: Option<grpc_adapter::Snapshot>,
    /// Memory that peers make this node hold.
    pub peer_memory: Option<PeerMemoryStatus>,
    /// The supervisors and their actors, in the order in which they are started.
    pub tree: ChildStatus,
    /// Why the system gave up, if it did.
    pub fatal: Option<String>,
}

/// A node that makes no progress although there is something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stuck {
    /// When a commit last became durable, or there was last nothing to do, in milliseconds since 1970.
    pub since_ms: TimestampMs,
    /// The cause in one word.
    pub cause: String,
    /// The same in words.
    pub explanation: String,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer's id.
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
        let (archiver, broadcast) = (look_if(observers.archiver), look_if(observers.broadcast));
        let (objects, serving) = (Observers::look(observers.objects), Observers::look(observers.serving));
        let (sync, heights, connections, discovery, verifier, store_writer, objects, serving, archiver, broadcast) = tokio::join!(
            Observers::look(observers.state_sync),
            Observers::look(observers.peer_heights),
            Observers::look(observers.connections),
            Observers::look(observers.discovery),
            Observers::look(observers.verifier),
            Observers::look(observers.store_writer),
            objects,
            serving,
            archiver,
            broadcast,
        );
        let (memory, callers) = &shared.memory;
        let peer_memory =
            callers.as_ref().map(|callers| memory.status(callers, connections.as_ref(), discovery.as_ref()));
        let (peers, banned) = connected_peers(connections, heights);
        let mut status = Self::without_actors(shared);
        status.peers = peers;
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
            let silent = broadcast.as_ref().map_or(&[][..], |broadcast| &broadcast.silent_validators);
            let slow = verifier.as_ref().and_then(|verifier| verifier.slow.first());
            let missing = objects.as_ref().and_then(|objects| Missing::of(objects, shared.clock.now().unix_ms));
            let cause = match (trouble, slow) {
                _ if sync.executor_failure.is_some() => "executor-failed",
                (Some(trouble), _) if alone => trouble.cause(),
                (_, Some(_)) if sync.progress == Progress::Syncing => "slow-check",
                _ if sync.progress == Progress::Synced && !silent.is_empty() => "validators-silent",
                _ if sync.progress == Progress::Synced && missing.is_some() => "objects-missing",
                _ => sync.progress.cause(),
            };
            status.cause = Some(cause.into());
            if status.fatal.is_none() {
                status.explanation = explain(sync, trouble, slow, silent, missing);
            }
            status.stuck = sync.stuck_since_ms.map(|since_ms| Stuck {
                since_ms,
                cause: cause.into(),
                explanation: status.explanation.clone(),
            });
        }
        Self {
            state_sync: sync,
            discovery,
            verifier,
            store_writer,
            archiver,
            broadcast,
            objects,
            serving,
            peer_memory,
            ..status
        }
    }

    /// The part of the status that needs no actor.
    pub(crate) fn without_actors(shared: &Shared) -> Self {
        let fatal = shared.escalation.borrow().as_ref().map(ToString::to_string);
        let height = shared.commit_feed.highest();
        Self {
            peer_id: shared.peer_id,
            chain_id: shared.chain_id,
            address: shared.address.clone(),
            height,
            target: height,
            percent: 0,
            epoch: None,
            stuck: None,
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
            archiver: None,
            broadcast: None,
            objects: None,
            serving: None,
            peer_memory: None,
            tree: shared.tree.status(),
            fatal,
        }
    }

    /// Whether the peer is banned.
    pub fn is_banned(&self, peer: PeerId) -> bool {
        self.banned.iter().any(|ban| ban.peer == peer)
    }

    /// Liveness: whether every actor runs. Says nothing of whether the node gets on; restarting it helps only if this
    /// is false for longer than a moment.
    pub fn is_alive(&self) -> bool {
        use soma_runtime::ChildState;
        let up = self.tree.actors().iter().all(|actor| actor.state == ChildState::Running);
        self.fatal.is_none() && up
    }

    /// Readiness: whether the node is alive and gets on, or has nothing to do. It is not ready while it is
    /// [stuck](Self::stuck), commits cannot be stored, or its executor's stream has ended with an error.
    pub fn is_ready(&self) -> bool {
        let Some(sync) = &self.state_sync else { return false };
        let can_store = !matches!(sync.progress, Progress::Disk { .. });
        self.is_alive() && can_store && self.stuck.is_none() && sync.executor_failure.is_none()
    }
}

/// Connected peers, and banned ones.
fn connected_peers(
    connections: Option<connections::Snapshot>,
    heights: Option<peer_heights::Snapshot>,
) -> (Vec<PeerStatus>, Vec<BannedPeer>) {
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
    (peers.into_values().collect(), banned)
}

/// Looks at an actor that not every node has.
async fn look_if<S: Send + 'static>(mailbox: Option<Mailbox<Observe<S>>>) -> Option<S> {
    match mailbox {
        Some(mailbox) => Observers::look(mailbox).await,
        None => None,
    }
}

/// Objects that have been wanted for long.
struct Missing<'a> {
    objects: &'a objects::Snapshot,
    oldest: &'a OldestWanted,
    waited: Duration,
}

impl<'a> Missing<'a> {
    fn of(objects: &'a objects::Snapshot, now_ms: TimestampMs) -> Option<Self> {
        let oldest = objects.oldest.as_ref()?;
        let waited = Duration::from_millis(now_ms.saturating_sub(oldest.since_ms));
        (waited >= OBJECT_IS_LATE).then_some(Self { objects, oldest, waited })
    }
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objects: objects::Snapshot { wanted, peers, calls, .. }, oldest, waited } = self;
        let OldestWanted { kind, id, lacking, .. } = oldest;
        write!(f, "{wanted} objects are wanted, {kind} {id} for {} s: ", waited.as_secs())?;
        match peers {
            0 => f.write_str("no connected peer has objects"),
            _ => write!(f, "{lacking} of {peers} peers lack it, and {calls} calls are under way"),
        }
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
fn explain(
    sync: &state_sync::Snapshot,
    trouble: Option<&Trouble>,
    slow: Option<&SlowCheck>,
    silent: &[(AuthorityIndex, Duration)],
    missing: Option<Missing<'_>>,
) -> String {
    let mut text = explain_progress(sync, trouble);
    if let Some(missing) = missing {
        text.push_str(&format!("; {missing}"));
    }
    for (validator, time) in silent.iter().take(MAX_SILENT_TOLD) {
        text.push_str(&format!("; validator {validator} has been silent for {} s", time.as_secs()));
    }
    if silent.len() > MAX_SILENT_TOLD {
        text.push_str(&format!("; {} further validators are silent", silent.len() - MAX_SILENT_TOLD));
    }
    if let Some(SlowCheck { at, .. }) = slow {
        let at = at.map_or_else(|| "a check".into(), |at| at.to_string());
        text.push_str(&format!("; {at} has been at work for long in the transaction verifier"));
    }
    if let Some(ExecutorFailure { next, reason }) = &sync.executor_failure {
        text.push_str(&format!("; the executor's stream ended at commit {next}: {reason}"));
    }
    text
}

/// What state sync is doing, in words.
fn explain_progress(sync: &state_sync::Snapshot, trouble: Option<&Trouble>) -> String {
    let state_sync::Snapshot { applied, target, .. } = sync;
    match &sync.progress {
        Progress::Synced => format!("synced at commit {applied}"),
        Progress::Syncing => match sync.late {
            Some(Late { commit, silent, waited }) => {
                let seconds = waited.as_secs_f64();
                format!(
                    "peers that announced commit {commit} have not answered for {seconds:.1} s ({silent} so far); asking others"
                )
            }
            None => format!("fetching commits {} to {target}", applied + 1),
        },
        Progress::FetchingArchive { needed } => {
            format!("fetching commit {needed} and later ones from the archive; the target is {target}")
        }
        Progress::ArchiveUnreachable { needed, reason } => {
            format!("commit {needed} is next, no peer can serve it, and the archive cannot be used: {reason}")
        }
        Progress::NoPeer { needed, reason: reason @ NoPeer::NotConnected } => {
            let why = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            format!("commit {needed} is next, but {reason}{why}")
        }
        Progress::NoPeer { needed, reason } => format!("commit {needed} is next, but {reason}"),
        Progress::SkippingEpochs { epoch } => {
            format!("learning from epoch proofs how epoch {epoch} and later ones ended")
        }
        Progress::NoCommittee { epoch } => {
            format!("the next commit is of epoch {epoch}, whose committee is not known")
        }
        Progress::ExecutorBehind { next } => {
            format!("commits up to {applied} are stored, and the executor is at commit {next}: fetching waits for it")
        }
        Progress::Disk { reason } => format!("commits cannot be stored: {reason}"),
        Progress::Retrying { needed, attempts, reason } => {
            format!("commit {needed} is tried again after {attempts} failed attempts; the last one: {reason}")
        }
    }
}
