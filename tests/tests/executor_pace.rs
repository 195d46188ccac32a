//! Executors that are slower than the sync, in virtual time: a quick one takes everything from memory, and a slow one
//! does not hold up the history.

use soma_network::wire::PeerApi;
use soma_network::{ConnectionId, Inbound, InboundHandler, MemoryNetwork, Transport};
use soma_p2p::{
    CertifiedCommit, PeerId, SeedPeer,
    testing::{Clock, LocalResources, RuntimeContext},
};
use soma_testkit::{ChainBuilder, ChainSpec, hostile::StorePeer};
use soma_tests::{config, faulty_store::Faulty, key, mem_store, node};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::watch, task::LocalSet, time::sleep};

/// How long each read or write of the store takes.
const DISK_TIME: Duration = Duration::from_millis(5);

/// Commits of the chain, of a MiB each.
const COMMITS: usize = 80;

/// Bytes of a transaction's payload. A commit has four.
const PAYLOAD: usize = 256 << 10;

/// Lets everybody in.
struct Open(Arc<dyn PeerApi>);

#[async_trait::async_trait]
impl InboundHandler for Open {
    async fn connected(&self, _: Inbound) -> bool {
        true
    }

    fn closed(&self, _: ConnectionId, _: PeerId) {}

    fn api(&self) -> Arc<dyn PeerApi> {
        self.0.clone()
    }
}

fn large_commits() -> (ChainBuilder, Vec<CertifiedCommit>) {
    let mut builder = ChainBuilder::new(ChainSpec { payload_bytes: PAYLOAD, ..ChainSpec::default() }).unwrap();
    let commits = builder.build(COMMITS);
    (builder, commits)
}

/// What came of a sync.
struct Outcome {
    /// Reads of the store for the executor.
    reads: u32,
    /// Greatest number of durable commits that the executor had not taken.
    lag: u32,
}

/// Syncs the chain, with an executor that takes so long for each commit.
fn sync(execution_time: Duration) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (builder, commits) = large_commits();
        let genesis = builder.genesis();
        let network = MemoryNetwork::new();
        let peer_id = PeerId::from(&key(1));
        let peer = Open(Arc::new(StorePeer::new(genesis, &commits, key(1))));
        let any_port = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let listener = network.transport(peer_id).listen(&any_port, Arc::new(peer)).await.unwrap();
        let mut settings = config(&[]);
        settings.seed_peers = vec![SeedPeer { peer_id, address: listener.address().clone() }];
        let (_disk, disk_time) = watch::channel(DISK_TIME);
        let runtime_context = RuntimeContext::new(Clock::simulated(1_700_000_100_000));
        let store = Arc::new(Faulty::new(mem_store(genesis, &[])));
        let builder =
            node(2, genesis, store.clone(), settings).transport(Arc::new(network.transport(PeerId::from(&key(2)))));
        let local_resources = LocalResources { runtime_context, disk_time, check_threads: None };
        let system = builder.start_local(local_resources).await.unwrap();
        let handle = system.handle();
        let mut executor = handle.synced_commits(1);
        let mut lag = 0;
        for expected in &commits {
            let commit = executor.next().await.unwrap().unwrap();
            assert_eq!(commit.commit_ref, expected.commit.reference());
            sleep(execution_time).await;
            lag = lag.max(handle.height() - expected.commit.index);
        }
        Outcome { reads: store.sub_dag_reads.load(Ordering::Relaxed), lag }
    })
}

#[test]
fn quick_executor_takes_every_commit_from_memory() {
    let Outcome { reads, lag } = sync(Duration::from_millis(40));
    assert_eq!(reads, 0, "{lag} commits behind");
    assert!(lag > 10, "it was the slower one: {lag}");
}

#[test]
fn slow_executor_reads_the_store_and_does_not_hold_up_the_history() {
    let Outcome { reads, lag } = sync(Duration::from_millis(400));
    assert!(reads > 0 && lag > 60, "{reads} reads, {lag} commits behind");
}
