//! The wiring: which actor is given the capability to write to which, and who supervises them.
//!
//! ```text
//!   root            one for one
//!   |- verifier         keeps nothing
//!   |- store-writer     keeps nothing
//!   |- network          rest for one
//!   |   |- connections
//!   |   `- discovery        what it dials and who is connected is as the Connections of its time had it
//!   |- sync             rest for one
//!   |   |- state-sync       `- sync workers
//!   |   `- peer-heights     counts what StateSync has in flight at each peer
//!   `- grpc-adapter     keeps the number of calls
//! ```
//!
//! Started in this order, stopped in the reverse one. References are made before any actor lives, so that actors which
//! write to each other need no later introduction; they follow restarts. The listener belongs to the node, not to an
//! actor: its port survives every restart.

use crate::{
    builder::StartError,
    config::Config,
    handle::{Handle, Observers, Shared},
    peer_memory::PeerMemory,
};
use soma_actors::connections::Connections;
use soma_actors::connections::LinkRegistry;
use soma_actors::discovery::Discovery;
use soma_actors::grpc_adapter::{GrpcAdapter, InboundGate, Service, ServiceWiring};
use soma_actors::peer_heights::{PeerHeights, Stored};
use soma_actors::state_sync::{Published, StartState, StateSync, WorkerMailboxes};
use soma_actors::store_writer::StoreWriter;
use soma_actors::verifier::{PoolSize, Verifier};
use soma_network::{Listener, Transport};
use soma_protocol::{
    connections as connections_core, discovery as discovery_core, peer_heights as heights_core, state_sync as sync_core,
};
use soma_runtime::Slot;
use soma_runtime::{
    ChildSpec, Environment, Escalation, ExitReason, Intensity, IoTasks, MetricsRecorder, Offload, PlannedFaults, Rules,
    Strategy, Supervision, Supervisor,
};
use soma_store::{CorruptReason, PeerList, Record, Store, StoreError};
use soma_types::{Address, Capabilities, CommitIndex, Epoch, Genesis, NodeInfo, PeerId, ProtocolVersions, SigningKey};
use soma_verify::{EpochContext, TransactionVerifier};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) config: Config,
    pub(crate) genesis: Genesis,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transactions: Arc<dyn TransactionVerifier>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) seed: u64,
    pub(crate) faults: Option<PlannedFaults>,
    pub(crate) metrics: Option<MetricsRecorder>,
}

/// What a node runs on.
pub(crate) struct Machinery {
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
    pub(crate) pool: PoolSize,
    pub(crate) environment: Environment,
}

/// A running node; its supervisors run on the current thread.
pub(crate) struct Node {
    supervision: Supervision,
    listener: Listener,
    /// What handles and streams read. They hold nothing of it once it is gone from here.
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

/// What actors have to stop when one of them did not come up.
const START_FAILED_DEADLINE: Duration = Duration::from_secs(5);

/// What the flush of the store has at shutdown even when nothing is left of the deadline.
const MIN_FLUSH_TIME: Duration = Duration::from_millis(500);

/// Names of the actors, as messages and status have them.
mod name {
    use soma_protocol::{Core, connections, discovery, peer_heights, serving, state_sync, store_writer, verifier};

    pub(super) const VERIFIER: &str = verifier::Verifier::NAME;
    pub(super) const STORE_WRITER: &str = store_writer::StoreWriter::NAME;
    pub(super) const PEER_HEIGHTS: &str = peer_heights::PeerHeights::NAME;
    pub(super) const CONNECTIONS: &str = connections::Connections::NAME;
    pub(super) const DISCOVERY: &str = discovery::Discovery::NAME;
    pub(super) const STATE_SYNC: &str = state_sync::StateSync::NAME;
    pub(super) const GRPC_ADAPTER: &str = serving::Serving::NAME;
    pub(super) const HANDLE: &str = "handle";

    pub(super) const ROOT: &str = "root";
    pub(super) const NETWORK: &str = "network";
    pub(super) const SYNC: &str = "sync";
}

impl Node {
    /// Listens, then starts the actors.
    pub(crate) async fn start(parts: NodeParts, machinery: Machinery) -> Result<Self, StartError> {
        // Faults and metrics are the environment's.
        let NodeParts { config, genesis, key, store, transactions, transport, seed, faults: _, metrics: _ } = parts;
        let Machinery { io, offload, pool, environment } = machinery;
        let environment_clock = environment.clock();
        let chain = genesis.chain_id();
        let capacity = config.state_sync.mailbox_capacity;

        let verifier_slot = Slot::<Verifier>::new(name::VERIFIER);
        let verifier = verifier_slot.reference();
        let store_writer_slot = Slot::<StoreWriter>::new(name::STORE_WRITER);
        let store_writer = store_writer_slot.reference();
        let peer_heights_slot = Slot::<PeerHeights>::new(name::PEER_HEIGHTS);
        let peer_heights = peer_heights_slot.reference();
        let connections_slot = Slot::<Connections>::new(name::CONNECTIONS);
        let connections = connections_slot.reference();
        let discovery_slot = Slot::<Discovery>::new(name::DISCOVERY);
        let discovery = discovery_slot.reference();
        let state_sync_slot = Slot::<StateSync>::new(name::STATE_SYNC);
        let state_sync = state_sync_slot.reference();
        let grpc_adapter_slot = Slot::<GrpcAdapter>::new(name::GRPC_ADAPTER);
        let grpc_adapter = grpc_adapter_slot.reference();
        let registry = LinkRegistry::default();

        let service = Arc::new(Service::new(ServiceWiring {
            store: store.clone(),
            offload: offload.clone(),
            calls: grpc_adapter.mailbox("service"),
            known_peers: discovery.mailbox("service"),
            pushed: peer_heights.mailbox("service"),
        }));
        let gate = Arc::new(InboundGate::new(
            connections.mailbox("transport"),
            connections.mailbox("transport"),
            service,
            &io,
        ));
        let (listen_on, listening) = (config.listen, transport.clone());
        let listener = io.spawn(async move { listening.listen(&listen_on, gate).await }).await;
        let listener =
            listener.map_err(|exit| StartError::Runtime { what: "listener", reason: exit.to_string() })??;
        let watermarks = store.watermarks()?;
        let own_info = own_info(&config, &key, chain, listener.address(), watermarks.lowest_available);

        let published = Published::new(watermarks.highest_synced.index);

        let new = |name, strategy| Supervisor::new(name, strategy, environment.clone(), seed);
        let member = Rules { intensity: GROUP_MEMBER, ..Rules::default() };
        let group = Rules { intensity: GROUP, ..Rules::default() };
        let mut root = new(name::ROOT, Strategy::OneForOne);
        let mut network = new(name::NETWORK, Strategy::RestForOne).with_rules(group);
        let mut sync = new(name::SYNC, Strategy::RestForOne).with_rules(group);

        let spec = {
            let (transactions, environment) = (transactions.clone(), environment.clone());
            let verification = config.verifier.verification;
            ChildSpec::new(verifier_slot, capacity, move || {
                // A pool of its own for each incarnation: the last one's may have blocked threads.
                let verifier = Verifier::new(chain, verification, transactions.clone(), pool, environment.clone());
                async move { verifier.map_err(|error| error.to_string()) }
            })
        };
        root.actor(spec);

        let spec = {
            let (store, offload, environment) = (store.clone(), offload.clone(), environment.clone());
            ChildSpec::new(store_writer_slot, capacity, move || {
                let writer = StoreWriter::new(store.clone(), offload.clone(), environment.clone());
                async move { Ok(writer) }
            })
        };
        root.actor(spec);

        let spec = {
            let core = heights_core::Config {
                query_interval: config.state_sync.height_query_interval,
                seed,
                ban_min: config.connections.ban_min,
                ban_max: config.connections.ban_max,
                allowlist: config.connections.allowlist.iter().copied().collect(),
            };
            let settings = soma_actors::peer_heights::Settings { chain, timeout: config.discovery.query_timeout };
            let (store, offload, links, io) = (store.clone(), offload.clone(), registry.links(), io.clone());
            let (state_sync, connections, writer) = (state_sync.clone(), connections.clone(), store_writer.clone());
            let environment = environment.clone();
            let adapter = grpc_adapter.clone();
            ChildSpec::new(peer_heights_slot, capacity, move || {
                let (core, settings, environment) = (core.clone(), settings.clone(), environment.clone());
                let wiring = soma_actors::peer_heights::Wiring {
                    links: links.clone(),
                    io: io.clone(),
                    target: state_sync.mailbox(name::PEER_HEIGHTS),
                    ban: connections.mailbox(name::PEER_HEIGHTS),
                    useful: vec![connections.mailbox(name::PEER_HEIGHTS), adapter.mailbox(name::PEER_HEIGHTS)],
                    tell_connected: connections.mailbox(name::PEER_HEIGHTS),
                    update_peers: writer.mailbox(name::PEER_HEIGHTS),
                };
                let stored = read(&offload, &store, |store| {
                    let own_height = store.watermarks()?.highest_synced.index;
                    Ok(Stored { own_height, standings: store.peers(PeerList::Standings)? })
                });
                async move { Ok(PeerHeights::new(core, stored.await?, settings, wiring, environment)) }
            })
        };
        let peer_heights_spec = spec.with_rules(member);

        let spec = {
            let core = connections_core::Config {
                max_outbound: config.connections.max_outbound,
                max_outbound_per_group: config.connections.max_outbound_per_group,
                max_inbound: config.connections.max_inbound,
                max_inbound_per_source: config.connections.max_inbound_per_source,
                max_dials: config.connections.max_dials,
                allowlist: config.connections.allowlist.iter().copied().collect(),
                denylist: config.connections.denylist.iter().copied().collect(),
                seeds: config.seed_peers.iter().map(|seed| seed.peer_id).collect(),
                seed,
                ..Default::default()
            };
            let settings = soma_actors::connections::Settings {
                chain,
                genesis_commit: genesis.commit().reference(),
                connect_timeout: config.connections.connect_timeout,
            };
            let (transport, registry, io) = (transport.clone(), registry.clone(), io.clone());
            let (heights, discovery, sync) = (peer_heights.clone(), discovery.clone(), state_sync.clone());
            let environment = environment.clone();
            ChildSpec::new(connections_slot, capacity, move || {
                let wiring = soma_actors::connections::Wiring {
                    transport: transport.clone(),
                    registry: registry.clone(),
                    io: io.clone(),
                    subscribers: vec![heights.mailbox(name::CONNECTIONS), discovery.mailbox(name::CONNECTIONS)],
                    dial_failed: discovery.mailbox(name::CONNECTIONS),
                    probed: discovery.mailbox(name::CONNECTIONS),
                    tell_committee: sync.mailbox(name::CONNECTIONS),
                    report: heights.mailbox(name::CONNECTIONS),
                };
                let connections = Connections::new(core.clone(), settings.clone(), wiring, environment.clone());
                async move { Ok(connections) }
            })
        };
        network.actor(spec.with_rules(member));

        let spec = {
            let core = discovery_config(&config, PeerId::from(&*key), &own_info.addresses, listener.address(), seed);
            let (key, query_timeout) = (key.clone(), config.discovery.query_timeout);
            let (store, offload, links, io) = (store.clone(), offload.clone(), registry.links(), io.clone());
            let (connections, verifier, writer) = (connections.clone(), verifier.clone(), store_writer.clone());
            let (sync, environment) = (state_sync.clone(), environment.clone());
            ChildSpec::new(discovery_slot, capacity, move || {
                let (core, environment) = (core.clone(), environment.clone());
                let wiring = soma_actors::discovery::Wiring {
                    links: links.clone(),
                    io: io.clone(),
                    dial: connections.mailbox(name::DISCOVERY),
                    tell_connected: connections.mailbox(name::DISCOVERY),
                    tell_committee: sync.mailbox(name::DISCOVERY),
                    verify: verifier.mailbox(name::DISCOVERY),
                    update_peers: writer.mailbox(name::DISCOVERY),
                };
                let (key, own_info) = (key.clone(), own_info.clone());
                let book = read(&offload, &store, |store| store.peers(PeerList::Infos));
                async move {
                    let book = book.await?;
                    let settings = soma_actors::discovery::Settings { key, own_info, timeout: query_timeout, book };
                    Ok(Discovery::new(core, settings, wiring, environment))
                }
            })
        };
        network.actor(spec.with_rules(member));
        root.supervisor(network);

        let spec = {
            let core = state_sync_config(&config);
            let settings = soma_actors::state_sync::Settings {
                chain,
                request_timeout: config.state_sync.request_timeout,
                commits_per_fetch: config.state_sync.commits_per_fetch,
                blocks_per_request: config.state_sync.blocks_per_fetch,
            };
            let (store, offload, published) = (store.clone(), offload.clone(), published.clone());
            let (links, io, verifier) = (registry.links(), io.clone(), verifier.clone());
            let (own, heights, writer) = (state_sync.clone(), peer_heights.clone(), store_writer.clone());
            let (connections, discovery) = (connections.clone(), discovery.clone());
            let environment = environment.clone();
            let adapter = grpc_adapter.clone();
            ChildSpec::new(state_sync_slot, capacity, move || {
                let (core, settings, environment) = (core.clone(), settings.clone(), environment.clone());
                let wiring = soma_actors::state_sync::Wiring {
                    workers: WorkerMailboxes {
                        links: links.clone(),
                        io: io.clone(),
                        verify_commits: verifier.mailbox("sync-worker"),
                        verify_blocks: verifier.mailbox("sync-worker"),
                        verify_sub_dags: verifier.mailbox("sync-worker"),
                        keep: own.mailbox("sync-worker"),
                        progress: own.mailbox("sync-worker"),
                    },
                    pick: heights.mailbox(name::STATE_SYNC),
                    report: heights.mailbox(name::STATE_SYNC),
                    own_height: heights.mailbox(name::STATE_SYNC),
                    apply: writer.mailbox(name::STATE_SYNC),
                    verify_local: verifier.mailbox(name::STATE_SYNC),
                    published: published.clone(),
                    committee: vec![
                        connections.mailbox(name::STATE_SYNC),
                        discovery.mailbox(name::STATE_SYNC),
                        adapter.mailbox(name::STATE_SYNC),
                    ],
                };
                let start = read(&offload, &store, start_state);
                async move { Ok(StateSync::new(core, settings, start.await?, wiring, environment)) }
            })
        };
        sync.actor(spec.with_rules(member));
        sync.actor(peer_heights_spec);
        root.supervisor(sync);

        let spec = {
            let core = config.serving.core(chain, config.connections.allowlist.iter().copied().collect());
            let sync = state_sync.clone();
            ChildSpec::new(grpc_adapter_slot, capacity, move || {
                let tell_committee = sync.mailbox(name::GRPC_ADAPTER);
                let adapter = GrpcAdapter::new(core.clone(), tell_committee, environment.clone());
                async move { Ok(adapter) }
            })
        };
        root.actor(spec);
        let supervision = root.start();

        // Whoever has the handle may use it at once. A system whose actors do not come up does not start.
        let gave_up = tokio::select! {
            biased;
            () = supervision.tree().up() => None,
            gave_up = escalated(&supervision) => Some(gave_up),
        };
        if let Some(escalation) = gave_up {
            listener.shutdown(Duration::ZERO).await;
            supervision.shutdown(START_FAILED_DEADLINE).await;
            io.end();
            return Err(StartError::GaveUp(escalation));
        }

        let closing = CancellationToken::new();
        let (store_sender, store_access) = watch::channel(Some(store.clone()));
        let handle = Handle::new(Shared {
            peer_id: PeerId::from(&*key),
            chain_id: chain,
            address: listener.address().clone(),
            memory: (PeerMemory::new(&config), listener.memory()),
            io: io.clone(),
            offload: offload.clone(),
            store: store_access,
            clock: environment_clock,
            local_commit: state_sync.mailbox(name::HANDLE),
            executor_at: state_sync.mailbox(name::HANDLE),
            follow_peers: connections.mailbox(name::HANDLE),
            next_reader: AtomicU64::new(0),
            observers: Observers {
                state_sync: state_sync.mailbox(name::HANDLE),
                peer_heights: peer_heights.mailbox(name::HANDLE),
                connections: connections.mailbox(name::HANDLE),
                discovery: discovery.mailbox(name::HANDLE),
                known_peers: discovery.mailbox(name::HANDLE),
                verifier: verifier.mailbox(name::HANDLE),
                store_writer: store_writer.mailbox(name::HANDLE),
                serving: grpc_adapter.mailbox(name::HANDLE),
            },
            tree: supervision.tree().clone(),
            escalation: supervision.escalation(),
            published,
            channel_capacity: config.state_sync.synced_commit_channel_capacity,
            closing: closing.clone(),
        });
        Ok(Self { supervision, listener, store: store_sender, io, offload, closing, handle })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends all I/O at once, as the end of the process would.
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

/// Reads the store off the actor's thread, for an actor that is being started.
fn read<R, F>(offload: &Offload, store: &Arc<dyn Store>, read: F) -> impl Future<Output = Result<R, String>> + use<R, F>
where
    R: Send + 'static,
    F: FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
{
    let (offload, store) = (offload.clone(), store.clone());
    async move {
        match offload.run(move || read(&*store)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(exit) => Err(exit.to_string()),
        }
    }
}

/// Where the chain stands in the store.
fn start_state(store: &dyn Store) -> Result<StartState, StoreError> {
    let missing = |record| move || StoreError::Corrupt { place: store.place(), record, reason: CorruptReason::Missing };
    let commit = store.watermarks()?.highest_synced;
    let stored = store.commit(commit.index)?.ok_or_else(missing(Record::Commit(commit.index)))?;
    // Not the latest one that the store knows: a batch that is being written shows that before its commits.
    let epoch = stored.epoch;
    let next_epoch = epoch + Epoch::from(store.last_commit_of_epoch(epoch)? == Some(commit.index));
    let committee = store.committee(next_epoch)?.ok_or_else(missing(Record::Committee(next_epoch)))?;
    // Checked before it was stored: what fails now was changed on disk.
    let committee =
        EpochContext::new(store.chain_id(), committee).map_err(|_| missing(Record::Committee(next_epoch))())?;
    let tip = sync_core::Tip { commit, timestamp_ms: stored.timestamp_ms, next_epoch };
    Ok(StartState { tip, committee: Arc::new(committee) })
}

fn own_info(
    config: &Config,
    key: &SigningKey,
    chain_id: soma_types::ChainId,
    listening: &Address,
    lowest_available: CommitIndex,
) -> NodeInfo {
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
    // Commit 0 is the genesis, which nobody fetches.
    let lowest_commit = lowest_available.max(1);
    NodeInfo {
        peer_id: PeerId::from(key),
        addresses,
        chain_id,
        timestamp_ms: 0,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: config.role, archive: lowest_commit <= 1, lowest_commit },
        access: config.access,
    }
}

fn discovery_config(
    config: &Config,
    own_id: PeerId,
    addresses: &[Address],
    listening: &Address,
    seed: u64,
) -> discovery_core::Config {
    let mut seeds: BTreeMap<PeerId, Vec<Address>> = BTreeMap::new();
    for seed in config.seed_peers.iter().filter(|seed| seed.peer_id != own_id) {
        seeds.entry(seed.peer_id).or_default().push(seed.address.clone());
    }
    discovery_core::Config {
        own_id,
        seeds: seeds.into_iter().collect(),
        allowlist: config.connections.allowlist.iter().copied().collect(),
        denylist: config.connections.denylist.iter().copied().collect(),
        addresses: addresses.to_vec(),
        listen_port: Some(listening.host_and_port().1),
        interval: config.discovery.interval,
        peers_to_query: config.discovery.peers_to_query,
        target_connections: config.discovery.target_connections,
        max_per_group: config.connections.max_outbound_per_group,
        max_answer: config.discovery.max_peers_in_answer,
        seed,
    }
}

fn state_sync_config(config: &Config) -> sync_core::Config {
    let sync = &config.state_sync;
    sync_core::Config {
        commits_per_fetch: sync.commits_per_fetch,
        max_workers: sync.max_workers,
        bytes_in_flight: sync.bytes_in_flight,
        bytes_per_range: sync.bytes_per_range,
        no_peer_wait: sync.wait_when_no_peer,
        max_executor_lag: sync.max_executor_lag,
        ..Default::default()
    }
}
