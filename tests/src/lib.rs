//! What scenarios share: nodes on loopback with real TLS, and a chain to sync.

pub mod faulty_store;
mod modules;
pub mod public_api;
pub mod reference;
pub mod structure;

use futures::executor::block_on;
use soma_p2p::{
    ActorSystem, Builder, CertifiedCommit, Config, FjallStore, Genesis, Handle, MemStore, SeedPeer, ShutdownReport,
    SigningKey, Store,
};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{net::SocketAddr, ops::Deref, sync::Arc, thread, time::Duration};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longest time that a scenario waits for anything: far beyond what it takes, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a node may take to stop.
pub const STOP: Duration = Duration::from_secs(10);

/// A chain of `commits`, in epochs of 20, and the builder that goes on from there.
pub fn chain(commits: usize) -> (ChainBuilder, Vec<CertifiedCommit>) {
    let spec = ChainSpec { commits_per_epoch: 20, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).expect("a valid spec");
    let commits = builder.build(commits);
    (builder, commits)
}

/// A key of its own for each number.
pub fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// Settings for tests on loopback: a port of the system's choice, and short intervals.
pub fn config(seeds: &[&Handle]) -> Config {
    let mut config = Config::listening_on(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    config.seed_peers = seeds.iter().map(|seed| seed_peer(seed)).collect();
    config.discovery.interval = Duration::from_millis(200);
    config.state_sync.height_query_interval = Duration::from_millis(500);
    config.state_sync.wait_when_no_peer = Duration::from_millis(100);
    config.verifier.threads = 1;
    config
}

/// How to name a running node as a seed.
pub fn seed_peer(node: &Handle) -> SeedPeer {
    SeedPeer { peer_id: node.peer_id(), address: node.address().clone() }
}

/// A store in memory that holds `commits`.
pub fn mem_store(genesis: &Genesis, commits: &[CertifiedCommit]) -> Arc<MemStore> {
    let store = MemStore::new(genesis);
    if !commits.is_empty() {
        store.apply(commits).expect("the builder's commits fit");
    }
    Arc::new(store)
}

/// A store on disk that holds `commits`, and the directory that goes with it.
pub fn disk_store(genesis: &Genesis, commits: &[CertifiedCommit]) -> (Arc<FjallStore>, TempDir) {
    let dir = TempDir::new().expect("a temporary directory");
    let store = FjallStore::open(&dir.path().join("store"), genesis).expect("a new store");
    if !commits.is_empty() {
        store.apply(commits).expect("the builder's commits fit");
    }
    (Arc::new(store), dir)
}

/// A running node that must leave nothing behind: no actor, thread or task. Dropping it stops it and looks.
pub struct TestNode(Option<ActorSystem>);

impl TestNode {
    /// Stops it in order.
    pub async fn stop(mut self) {
        if let Some(system) = self.0.take() {
            assert_eq!(system.shutdown(STOP).await, ShutdownReport::default());
        }
    }

    /// The system itself: for a scenario that ends it in its own way.
    pub fn into_system(mut self) -> ActorSystem {
        self.0.take().expect("a system until it is stopped")
    }
}

impl Deref for TestNode {
    type Target = ActorSystem;

    fn deref(&self) -> &ActorSystem {
        self.0.as_ref().expect("a system until it is stopped")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        // A scenario that has failed already says so, and nothing else. The system runs on threads of its own, so
        // waiting for it holds up nobody but this scenario.
        if let Some(system) = self.0.take().filter(|_| !thread::panicking()) {
            assert_eq!(block_on(system.shutdown(STOP)), ShutdownReport::default());
        }
    }
}

/// Starts a node whose end is looked at.
pub fn start(builder: Builder) -> TestNode {
    TestNode(Some(builder.start().expect("a node that starts")))
}

/// A builder for a node with everything but what the scenario is about.
pub fn node(number: u8, genesis: &Genesis, store: Arc<dyn Store>, config: Config) -> Builder {
    node_with_key(key(number), genesis, store, config).seed(u64::from(number))
}

/// A builder for a node with this network key.
pub fn node_with_key(key: SigningKey, genesis: &Genesis, store: Arc<dyn Store>, config: Config) -> Builder {
    ActorSystem::builder(genesis.clone(), key, store).config(config)
}

/// Waits until the node has executed (been given, in order) all of `commits`, and checks each byte.
pub async fn expect_commits(node: &Handle, commits: &[CertifiedCommit]) {
    let first = commits.first().expect("something to expect").commit.index;
    let mut stream = node.synced_commits(first);
    for expected in commits {
        let next = timeout(PATIENCE, stream.next()).await;
        let Ok(next) = next else {
            let status = node.status().await;
            panic!("commit {} did not come: {}\n{status:#?}", expected.commit.index, status.explanation);
        };
        let sub_dag = next.expect("the stream goes on").expect("the store can be read");
        assert_eq!(sub_dag.commit_ref, expected.commit.reference());
        assert_eq!(*sub_dag, expected.sub_dag());
    }
}

/// Waits until `holds` for the node's status.
pub async fn eventually(node: &Handle, what: &str, holds: impl Fn(&soma_p2p::Status) -> bool) -> soma_p2p::Status {
    match timeout(PATIENCE, node.wait_until(holds)).await {
        Ok(status) => status,
        Err(_) => panic!("{what} did not come true: {:#?}", node.status().await),
    }
}
