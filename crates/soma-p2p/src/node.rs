//! The list of actors, their resources, and their supervisors.
//!
//! ```text
//!   root            one for one
//!   |- verifier         keeps nothing
//!   |- store-writer     keeps nothing
//!   |- archiver         keeps nothing; only in a node with an archive
//!   |- network          rest for one
//!   |   |- connections
//!   |   `- discovery        what it dials and who is connected is as the Connections of its time had it
//!   |- sync             rest for one
//!   |   |- state-sync       `- sync workers
//!   |   `- peer-heights     counts what StateSync has in flight at each peer
//!   |- broadcast        its streams end with it; peers exchange the ids of the last seconds on new ones
//!   |- objects          its calls end with it; whoever waits for objects asks again
//!   `- grpc-adapter     keeps the number of calls
//! ```
//!
//! Started in this order, stopped in the reverse one. References are made before any actor lives, so that actors which
//! write to each other need no later introduction; they follow restarts. The listener belongs to the node, not to an
//! actor: its port survives every restart.

use crate::{
    actor_settings,
    config::Start,
    handle::Handle,
    node_parts::{NodeParts, NodeResources},
    peer_memory::PeerMemory,
    publishing::Publishing,
    shared::{Observers, PeerManagement, Shared},
    start_error::StartError,
};
use soma_actors::{
    archiver,
    broadcast::{self, Publisher},
    connections::{self, LinkRegistry},
    discovery, grpc_adapter, objects, peer_heights,
    state_sync::{self, CommitFeed},
    store_writer,
    verifier::{self, PoolSize},
    wiring::{Actors, Resources, Slots},
};
use soma_network::Listener;
use soma_runtime::{Escalation, ExitReason, Intensity, IoTasks, Offload, Rules, Strategy, Supervision, Supervisor};
use soma_store::{Store, Watermarks};
use soma_types::{
    Address, Capabilities, Checkpoint, NodeInfo, PeerId, ProtocolVersions, PublicKey, limits::MAX_CHECKPOINT_BYTES,
};
use soma_verify::verify_checkpoint;
use std::{
    fs,
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// A running node; its supervisors run on the current thread.
pub(crate) struct Node {
    supervision: Supervision,
    listener: Listener,
    /// The read end for handles and streams. They hold nothing of the store once it is gone from here.
    store: watch::Sender<Option<Arc<dyn Store>>>,
    io: IoTasks,
    offload: Offload,
    closing: CancellationToken,
    handle: Handle,
}

/// Restarts of an actor before those that belong together with it are all made anew.
const GROUP_MEMBER: Intensity = Intensity { max_restarts: 5, within: Duration::from_secs(60) };

/// Restarts of actors that belong together before the system gives up: with the default backoff, after about ten
/// seconds of an actor that always fails.
const GROUP: Intensity = Intensity { max_restarts: 3, within: Duration::from_secs(60) };

/// Time for actors to stop after one of them did not come up.
const START_FAILED_DEADLINE: Duration = Duration::from_secs(5);

/// How long one call for objects may take. It may bring many; a peer that brings nothing is late much sooner.
const OBJECTS_TIMEOUT: Duration = Duration::from_secs(20);

/// What the flush of the store has at shutdown even when nothing is left of the deadline.
const MIN_FLUSH_TIME: Duration = Duration::from_millis(500);

/// The embedder's name as a sender.
const HANDLE: &str = "handle";

/// Names of supervisors, as the status has them.
mod name {
    pub(super) const ROOT: &str = "root";
    pub(super) const NETWORK: &str = "network";
    pub(super) const SYNC: &str = "sync";
}

impl Node {
    /// Listens, then starts the actors.
    pub(crate) async fn start(parts: NodeParts, node_resources: NodeResources) -> Result<Self, StartError> {
        let NodeResources { io, offload, pool, runtime_context, record } = node_resources;
        let slots = Slots::default();
        let (choose_peers, chosen_peers) = watch::channel(actor_settings::chosen_peers(&parts.config));
        let resources = Resources {
            actors: slots.actors(),
            mailbox_capacity: parts.config.mailbox_capacity,
            chain: parts.genesis.chain_id(),
            store: parts.store.clone(),
            archive: parts.archive.clone(),
            objects: parts.objects.clone(),
            links: LinkRegistry::default(),
            io,
            offload,
            runtime_context,
            chosen_peers,
        };
        begin_at_checkpoint(&parts)?;
        let listener = listen(&parts, &resources).await?;
        let watermarks = parts.store.watermarks()?;
        let own_info = own_info(&parts, listener.address(), watermarks);
        let commit_feed = CommitFeed::new(watermarks.highest_synced.index);
        let (publish_as, publisher) = watch::channel(None);
        let begin = Begin { pool, listener: &listener, own_info, commit_feed: &commit_feed, publish_as };
        let supervision = supervise(slots, &resources, &parts, begin).start();
        if let Err(escalation) = all_up(&supervision).await {
            listener.shutdown(Duration::ZERO).await;
            supervision.shutdown(START_FAILED_DEADLINE).await;
            resources.io.end();
            return Err(StartError::GaveUp(escalation));
        }
        let closing = CancellationToken::new();
        let (store, store_access) = watch::channel(Some(parts.store.clone()));
        let handle = Handle::new(Shared {
            peer_id: PeerId::from(&*parts.key),
            chain_id: resources.chain,
            address: listener.address().clone(),
            memory: (PeerMemory::new(&parts.config), listener.memory()),
            io: resources.io.clone(),
            offload: resources.offload.clone(),
            store: store_access,
            clock: resources.runtime_context.clock(),
            local_commit: resources.actors.state_sync.mailbox(HANDLE),
            executor_at: resources.actors.state_sync.mailbox(HANDLE),
            follow_peers: resources.actors.connections.mailbox(HANDLE),
            fetch_objects: resources.actors.objects.mailbox(HANDLE),
            list_snapshots: resources.actors.objects.mailbox(HANDLE),
            archive: parts.archive.clone(),
            objects: parts.objects.clone(),
            publishing: parts.config.broadcast.enabled.then(|| publishing(&parts, &resources.actors, publisher)),
            peer_management: PeerManagement::new(choose_peers, &parts.config.connections.denylist, &resources.actors),
            record,
            next_reader: AtomicU64::new(0),
            observers: observers(&resources.actors, &parts),
            tree: supervision.tree().clone(),
            escalation: supervision.escalation(),
            commit_feed,
            channel_capacity: parts.config.state_sync.synced_commit_channel_capacity,
            closing: closing.clone(),
        });
        let Resources { io, offload, .. } = resources;
        Ok(Self { supervision, listener, store, io, offload, closing, handle })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends all I/O at once, as the end of the process would.
    #[cfg(feature = "testing")]
    pub(crate) fn cut_off(&self) {
        self.io.end();
    }

    /// Resolves when a child does not stay up, or the supervisor itself has ended.
    pub(crate) fn escalated(&self) -> impl Future<Output = Escalation> + use<> {
        escalated(&self.supervision)
    }

    /// Stops accepting, drains, stops the actors in order, flushes the store. Names what did not stop in time.
    pub(crate) async fn shutdown(self, deadline: Duration) -> Vec<String> {
        let started = tokio::time::Instant::now();
        // Calls under way may end; what drags on has half of the time.
        self.listener.shutdown(deadline / 2).await;
        let overdue = self.supervision.shutdown(deadline.saturating_sub(started.elapsed())).await;
        let mut overdue: Vec<String> = overdue.into_iter().map(Into::into).collect();
        self.closing.cancel();
        let store = self.store.send_replace(None);
        let left = deadline.saturating_sub(started.elapsed()).max(MIN_FLUSH_TIME);
        match timeout(left, self.offload.run(move || store.map_or(Ok(()), |store| store.flush()))).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => overdue.push(format!("store: {error}")),
            Ok(Err(exit)) => overdue.push(format!("store: flush {exit}")),
            Err(_) => overdue.push("store: the disk does not answer; what was announced is on it".into()),
        }
        self.io.end();
        overdue
    }
}

/// Resolves when a child does not stay up, or the supervisor itself has ended.
fn escalated(supervision: &Supervision) -> impl Future<Output = Escalation> + use<> {
    let mut escalation = supervision.escalation();
    async move {
        let first = escalation.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
        let died = || ExitReason::Panicked("it ended without a report".into());
        first.unwrap_or_else(|| Escalation { child: name::ROOT, exit: died() })
    }
}

/// Takes the checkpoint of the settings into an empty store.
fn begin_at_checkpoint(parts: &NodeParts) -> Result<(), StartError> {
    let Start::Checkpoint(path) = &parts.config.start else { return Ok(()) };
    if parts.store.watermarks()?.highest_synced.index > 0 {
        return Ok(());
    }
    let wrong = |reason: String| StartError::Checkpoint { path: path.clone(), reason };
    let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > MAX_CHECKPOINT_BYTES as u64 {
        return Err(wrong(format!("has {length} bytes, and a checkpoint at most {MAX_CHECKPOINT_BYTES}")));
    }
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
    let ended = verify_checkpoint(&parts.genesis, &checkpoint).map_err(|error| wrong(error.to_string()))?;
    let (epoch, commit) = (ended.last_commit.epoch, ended.last_commit.index);
    parts.store.skip_epochs(&[ended])?;
    tracing::info!(epoch, commit, path = %path.display(), "begins after the epoch of the checkpoint");
    Ok(())
}

/// Listens. Calls of peers wait until the actors are up.
async fn listen(parts: &NodeParts, resources: &Resources) -> Result<Listener, StartError> {
    let (address, transport) = (parts.config.listen, parts.transport.clone());
    let gate = grpc_adapter::wiring::gate(resources, parts.config.broadcast.enabled);
    let listener = resources.io.spawn(async move { transport.listen(&address, gate).await }).await;
    let listener = listener.map_err(|exit| StartError::Runtime { what: "listener", reason: exit.to_string() })?;
    Ok(listener?)
}

/// How a handle publishes messages.
fn publishing(parts: &NodeParts, actors: &Actors, publisher: watch::Receiver<Option<Publisher>>) -> Publishing {
    Publishing {
        publish: actors.broadcast.mailbox(HANDLE),
        follow: actors.broadcast.mailbox(HANDLE),
        publisher,
        network_key: parts.key.clone(),
        protocol_keys: parts.protocol_keys.clone(),
        max_message_bytes: parts.config.broadcast.max_message_bytes as usize,
    }
}

/// What actors begin with, besides settings.
struct Begin<'a> {
    pool: PoolSize,
    listener: &'a Listener,
    own_info: NodeInfo,
    commit_feed: &'a CommitFeed,
    /// Tells the handle who this node is as an author.
    publish_as: watch::Sender<Option<Publisher>>,
}

/// The list of actors in the order of their start, and their supervisors.
fn supervise(slots: Slots, resources: &Resources, parts: &NodeParts, begin: Begin<'_>) -> Supervisor {
    let NodeParts { config, key, transactions, validator, transport, seed, .. } = parts;
    let Begin { pool, listener, own_info, commit_feed, publish_as } = begin;
    let own = own_info.peer_id;
    let new = |name, strategy| Supervisor::new(name, strategy, resources.runtime_context.clone(), *seed);
    let member = Rules { intensity: GROUP_MEMBER, ..Rules::default() };
    let group = Rules { intensity: GROUP, ..Rules::default() };
    let mut root = new(name::ROOT, Strategy::OneForOne);
    let mut network = new(name::NETWORK, Strategy::RestForOne).with_rules(group);
    let mut sync = new(name::SYNC, Strategy::RestForOne).with_rules(group);

    let verification = config.verifier.verification;
    let (transactions, validator) = (transactions.clone(), validator.clone());
    root.actor(verifier::wiring::spec(slots.verifier, resources, verification, transactions, validator, pool));
    let archives = parts.archive.is_some() && config.archive.write;
    root.actor(store_writer::wiring::spec(slots.store_writer, resources, config.pruning.retention(), archives));
    if let Some(storage) = &parts.archive {
        let core = config.archive.archiver(storage.place());
        root.actor(archiver::wiring::spec(slots.archiver, resources, core, storage.clone()));
    }

    let (core, settings) = (actor_settings::connections_core(config, *seed), actor_settings::connections(parts));
    let spec = connections::wiring::spec(slots.connections, resources, core, settings, transport.clone());
    network.actor(spec.with_rules(member));
    let (core, timeout) =
        (actor_settings::discovery_core(parts, &own_info, listener.address()), config.discovery.query_timeout);
    let spec = discovery::wiring::spec(slots.discovery, resources, core, key.clone(), own_info, timeout);
    network.actor(spec.with_rules(member));
    root.supervisor(network);

    let (core, settings) = (
        actor_settings::state_sync_core(config, parts.archive.is_some()),
        actor_settings::state_sync(config, resources.chain),
    );
    let spec = state_sync::wiring::spec(slots.state_sync, resources, core, settings, commit_feed.clone());
    sync.actor(spec.with_rules(member));
    let core = actor_settings::peer_heights_core(config, *seed);
    let settings = peer_heights::Settings { chain: resources.chain, timeout: config.discovery.query_timeout };
    let spec = peer_heights::wiring::spec(slots.peer_heights, resources, core, settings);
    sync.actor(spec.with_rules(member));
    root.supervisor(sync);

    if config.broadcast.enabled {
        let core = config.broadcast.core(own, *seed);
        let protocol_keys = parts.protocol_keys.iter().map(PublicKey::from).collect();
        let timeout = config.discovery.query_timeout;
        root.actor(broadcast::wiring::spec(slots.broadcast, resources, core, protocol_keys, timeout, publish_as));
    }

    root.actor(objects::wiring::spec(slots.objects, resources, objects::Config::default(), OBJECTS_TIMEOUT));

    let core = config.serving.core(resources.chain);
    root.actor(grpc_adapter::wiring::spec(slots.grpc_adapter, resources, core));
    root
}

/// Waits until all actors are up: a handle may be used at once, and a system whose actors do not come up does not
/// start.
async fn all_up(supervision: &Supervision) -> Result<(), Escalation> {
    tokio::select! {
        biased;
        () = supervision.tree().up() => Ok(()),
        gave_up = escalated(supervision) => Err(gave_up),
    }
}

/// The actors that a handle asks for the status.
fn observers(actors: &Actors, parts: &NodeParts) -> Observers {
    Observers {
        state_sync: actors.state_sync.mailbox(HANDLE),
        peer_heights: actors.peer_heights.mailbox(HANDLE),
        connections: actors.connections.mailbox(HANDLE),
        discovery: actors.discovery.mailbox(HANDLE),
        known_peers: actors.discovery.mailbox(HANDLE),
        verifier: actors.verifier.mailbox(HANDLE),
        store_writer: actors.store_writer.mailbox(HANDLE),
        archiver: parts.archive.is_some().then(|| actors.archiver.mailbox(HANDLE)),
        broadcast: parts.config.broadcast.enabled.then(|| actors.broadcast.mailbox(HANDLE)),
        objects: actors.objects.mailbox(HANDLE),
        serving: actors.grpc_adapter.mailbox(HANDLE),
    }
}

fn own_info(parts: &NodeParts, listening: &Address, watermarks: Watermarks) -> NodeInfo {
    let config = &parts.config;
    let (host, _) = listening.host_and_port();
    let unspecified = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let addresses = match &config.external_addresses {
        external if !external.is_empty() => external.clone(),
        _ if unspecified => {
            tracing::info!(%listening, "no external address is set: it is learned from what peers see");
            Vec::new()
        }
        _ => vec![listening.clone()],
    };
    // Commit 0 is the genesis. No node fetches it.
    let lowest_commit = watermarks.lowest_available.max(1);
    // A node that begins late has no commit yet, or has fetched all earlier ones.
    let has_begun = config.start == Start::Genesis || watermarks.highest_synced.index > 0;
    NodeInfo {
        peer_id: PeerId::from(&*parts.key),
        addresses,
        chain_id: parts.genesis.chain_id(),
        timestamp_ms: 0,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities {
            role: config.role,
            archive: lowest_commit <= 1 && config.pruning.keeps_all() && has_begun,
            lowest_commit,
        },
        access: config.access,
    }
}
