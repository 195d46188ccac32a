//! Checks on threads of their own, in virtual time: what takes long is named, and the Verifier may fail at any input.

use soma_network::wire::PeerApi;
use soma_network::{ConnectionId, Inbound, InboundHandler, Listener, MemoryNetwork, Transport};
use soma_p2p::{
    CertificateVerifier, CertifiedCommit, ChildState, EpochContext, Genesis, Handle, PeerId, STUCK_AFTER, SeedPeer,
    Status, TransactionError, TransactionSignatures, TransactionVerifier,
    testing::{Clock, Fault, LocalResources, LocalSystem, PlannedFaults, RuntimeContext},
};
use soma_testkit::{ChainBuilder, ChainSpec, hostile::StorePeer};
use soma_tests::{chain, config, key, mem_store, node};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::{sync::watch, task::LocalSet, time::sleep};

/// Longer in virtual time than anything takes here.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

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

struct Running {
    system: LocalSystem,
    _disk: watch::Sender<Duration>,
    _listener: Listener,
}

/// Starts a node in virtual time beside a peer that has these commits.
async fn start(
    genesis: &Genesis,
    commits: &[CertifiedCommit],
    verifier: Arc<dyn TransactionVerifier>,
    faults: Option<PlannedFaults>,
) -> Running {
    let network = MemoryNetwork::new();
    let peer_id = PeerId::from(&key(1));
    let peer = Open(Arc::new(StorePeer::new(genesis, commits, key(1))));
    let any_port = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let listener = network.transport(peer_id).listen(&any_port, Arc::new(peer)).await.unwrap();
    let mut settings = config(&[]);
    settings.seed_peers = vec![SeedPeer { peer_id, address: listener.address().clone() }];
    let (disk, disk_time) = watch::channel(Duration::ZERO);
    let mut runtime_context = RuntimeContext::new(Clock::simulated(1_700_000_100_000));
    if let Some(faults) = faults {
        runtime_context = runtime_context.with_faults(faults);
    }
    let builder = node(2, genesis, mem_store(genesis, &[]), settings)
        .transport(Arc::new(network.transport(PeerId::from(&key(2)))))
        .transaction_verifier(verifier);
    let local_resources = LocalResources { runtime_context, disk_time, check_threads: Some(2) };
    let system = builder.start_local(local_resources).await.unwrap();
    Running { system, _disk: disk, _listener: listener }
}

fn in_virtual_time<R>(work: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// Waits until `holds` for the status. Virtual time passes as soon as nothing else is left to do.
async fn eventually(node: &Handle, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    let step = Duration::from_millis(500);
    let mut waited = Duration::ZERO;
    loop {
        let status = node.status().await;
        if holds(&status) {
            return status;
        }
        assert!(waited < LONG, "{what} did not come true: {status:#?}");
        sleep(step).await;
        waited += step;
    }
}

/// Waits at one transaction of the chain until it is let go: the first that it is given, if none is named.
struct Hangs {
    at: OnceLock<Vec<u8>>,
    let_go: Mutex<mpsc::Receiver<()>>,
}

impl TransactionVerifier for Hangs {
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError> {
        if transaction == self.at.get_or_init(|| transaction.to_vec()) {
            // The error is that it was let go.
            let _ = self.let_go.lock().unwrap().recv();
        }
        CertificateVerifier.verify(context, transaction, signatures)
    }
}

#[test]
fn hanging_verifier_is_named_with_its_transaction_and_waited_for() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis();
    let block = &commits[4].blocks[1];
    let (let_go, waits) = mpsc::channel();
    let verifier = Hangs { at: block.transactions[0].0.to_vec().into(), let_go: Mutex::new(waits) };
    in_virtual_time(async {
        let running = start(genesis, &commits, Arc::new(verifier), None).await;
        let node = running.system.handle();
        let named = format!("transaction 0 of block {}", block.reference());
        let stuck = |status: &Status| status.stuck.is_some() && status.explanation.contains(&named);
        let status = eventually(&node, "it is named", stuck).await;
        assert!(status.is_alive() && !status.is_ready());
        let said = status.stuck.unwrap();
        assert_eq!(said.cause, "slow-check");
        assert!(said.explanation.contains(&named), "{}", said.explanation);
        let verifier = status.tree.find("verifier").unwrap();
        assert_eq!((verifier.state, verifier.restarts), (ChildState::Running, 0));
        assert!(status.peers.iter().all(|peer| peer.serving.as_ref().is_none_or(|serving| serving.score == 100)));
        drop(let_go);
        let status = eventually(&node, "it goes on", |status| status.height == 30).await;
        assert_eq!(status.tree.find("verifier").unwrap().restarts, 0);
        eventually(&node, "it is ready", Status::is_ready).await;
    });
}

/// Refuses every transaction.
struct Refuses;

impl TransactionVerifier for Refuses {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        Err(TransactionError::Refused { reason: "not today".into() })
    }
}

#[test]
fn node_whose_verifier_refuses_is_alive_not_ready_and_stuck_since_a_time() {
    let (builder, commits) = chain(30);
    in_virtual_time(async {
        let running = start(builder.genesis(), &commits, Arc::new(Refuses), None).await;
        let node = running.system.handle();
        let status = eventually(&node, "it is stuck", |status| status.stuck.is_some()).await;
        assert!(status.is_alive() && !status.is_ready());
        let stuck = status.stuck.unwrap();
        assert!(stuck.explanation.contains("not today"), "{}", stuck.explanation);
        let now_ms = 1_700_000_100_000 + 24 * 60 * 60 * 1_000;
        assert!((1_700_000_100_000..now_ms).contains(&stuck.since_ms));
        let again = node.status().await.stuck.unwrap();
        assert_eq!(again.since_ms, stuck.since_ms, "since the same time");
        assert!(STUCK_AFTER < Duration::from_secs(60));
    });
}

/// A chain that is fetched in two ranges at once.
fn one_epoch() -> (ChainBuilder, Vec<CertifiedCommit>) {
    let mut builder = ChainBuilder::new(ChainSpec::default()).unwrap();
    let commits = builder.build(30);
    (builder, commits)
}

/// Fails once, when the Verifier takes an input of this kind.
fn once_at(kind: &'static str, fault: Fault) -> PlannedFaults {
    let failed = AtomicBool::new(false);
    Arc::new(move |actor, input| {
        let is_meant = actor == "verifier" && format!("{input:?}").starts_with(kind);
        (is_meant && !failed.swap(true, Ordering::Relaxed)).then(|| fault.clone())
    })
}

/// A verifier that waits at the first transaction that it is given, and what lets it go: whichever range comes first,
/// the check of the other finds that one at work.
fn hangs_at_first() -> (Arc<Hangs>, mpsc::Sender<()>) {
    let (let_go, waits) = mpsc::channel();
    (Arc::new(Hangs { at: OnceLock::new(), let_go: Mutex::new(waits) }), let_go)
}

fn has_restarted(status: &Status) -> bool {
    status.tree.find("verifier").is_some_and(|verifier| verifier.restarts == 1)
}

fn nobody_is_blamed(status: &Status) -> bool {
    status.peers.iter().all(|peer| peer.serving.as_ref().is_none_or(|serving| serving.score == 100))
}

/// In virtual time the waiting check is slow at once.
fn fails_at_slow(fault: Fault) {
    let (builder, commits) = one_epoch();
    let (verifier, let_go) = hangs_at_first();
    in_virtual_time(async {
        let running = start(builder.genesis(), &commits, verifier, Some(once_at("Slow", fault))).await;
        let node = running.system.handle();
        eventually(&node, "it has failed", has_restarted).await;
        drop(let_go);
        let status = eventually(&node, "the sync has ended", |status| status.height == 30).await;
        assert!(has_restarted(&status) && nobody_is_blamed(&status));
    });
}

/// While one check waits, the signatures of the other wait for a moment for its own.
async fn fails_at_wake(fault: Fault) {
    let (builder, commits) = one_epoch();
    let genesis = builder.genesis();
    let (verifier, let_go) = hangs_at_first();
    let server = soma_tests::start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let mut settings = config(&[&server]);
    settings.verifier.threads = 2;
    let client = node(2, genesis, mem_store(genesis, &[]), settings)
        .transaction_verifier(verifier)
        .faults(once_at("Wake", fault));
    let client = soma_tests::start(client);
    soma_tests::eventually(&client, "it has failed", has_restarted).await;
    drop(let_go);
    let status = soma_tests::eventually(&client, "the sync has ended", |status| status.height == 30).await;
    assert!(has_restarted(&status) && nobody_is_blamed(&status));
}

#[test]
fn the_verifier_panics_at_a_slow_check() {
    fails_at_slow(Fault::Panic("planned".into()));
}

#[test]
fn the_verifier_hangs_at_a_slow_check() {
    fails_at_slow(Fault::Hang);
}

#[tokio::test]
async fn the_verifier_panics_when_signatures_have_waited_for_others() {
    fails_at_wake(Fault::Panic("planned".into())).await;
}

#[tokio::test]
async fn the_verifier_hangs_when_signatures_have_waited_for_others() {
    fails_at_wake(Fault::Hang).await;
}
