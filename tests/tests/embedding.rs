//! What an engineer meets who embeds a system in a node of his own: executors, verifiers, ends and errors.

use futures::executor::block_on;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use soma_p2p::{
    CertificateVerifier, ChildState, EpochContext, FjallStore, Progress, ShutdownReport, Store, TransactionError,
    TransactionSignatures, TransactionVerifier,
};
use soma_tests::{
    PATIENCE, STOP, chain, config, disk_store, eventually, expect_commits, faulty_store::Faulty, mem_store, node, start,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::time::timeout;

/// A verifier that takes its time, and counts.
struct Slow {
    takes: Duration,
    calls: AtomicU64,
}

impl TransactionVerifier for Slow {
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        thread::sleep(self.takes);
        CertificateVerifier.verify(context, transaction, signatures)
    }
}

#[tokio::test]
async fn slow_transaction_verifier_checks_each_transaction_once() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    // Many slices of what is checked at once.
    let slow = Arc::new(Slow { takes: Duration::from_millis(10), calls: AtomicU64::new(0) });
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).transaction_verifier(slow.clone());
    let client = start(client);
    expect_commits(&client, &commits).await;
    let transactions: usize =
        commits.iter().flat_map(|commit| &commit.blocks).map(|block| block.transactions.len()).sum();
    assert_eq!(slow.calls.load(Ordering::Relaxed), transactions as u64);
    let verifier = client.status().await.tree.find("verifier").cloned().unwrap();
    assert_eq!((verifier.state, verifier.restarts), (ChildState::Running, 0));
}

/// Panics whenever it is asked.
struct Panics;

impl TransactionVerifier for Panics {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        panic!("it has a bug");
    }
}

#[tokio::test]
async fn status_names_block_transaction_and_text_of_a_verifier_that_panics() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).transaction_verifier(Arc::new(Panics));
    let client = start(client);
    let block = commits[0].blocks[0].reference().to_string();
    let text = format!(
        "the certified block {block} is invalid: its transaction 0: the transaction verifier panicked: it has a bug"
    );
    let status = eventually(&client, "it says so", |status| status.explanation.contains(&text)).await;
    assert_eq!(status.cause.as_deref(), Some("retrying"));
    let verifier = status.verifier.unwrap();
    assert!(verifier.panicked > 0);
    assert_eq!(status.tree.find("verifier").unwrap().restarts, 0, "it is the embedder's bug, not the actor's");
    assert_eq!(status.peers[0].serving.as_ref().unwrap().score, 100, "nor the peer's");
}

#[tokio::test]
async fn failed_executor_stream_makes_node_unready_until_another_passes_it() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    static DAMAGED: AtomicBool = AtomicBool::new(true);
    let damaged = Faulty {
        sub_dags: |inner, range, max_bytes| match *range.start() {
            42 if DAMAGED.load(Ordering::Relaxed) => inner.sub_dags(1_000..=1_000, max_bytes),
            42 => inner.sub_dags(range, max_bytes),
            start => inner.sub_dags(start..=41, max_bytes),
        },
        ..Faulty::new(mem_store(genesis, &commits))
    };
    let node = start(node(1, genesis, Arc::new(damaged), config(&[])));
    let mut stream = node.synced_commits(40);
    for _ in 40..42 {
        timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    }
    timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    let status = eventually(&node, "it is not ready", |status| !status.is_ready()).await;
    assert!(status.is_alive(), "its parts run");
    assert_eq!(status.cause.as_deref(), Some("executor-failed"));
    assert!(status.explanation.contains("the executor's stream ended at commit 42"), "{}", status.explanation);
    DAMAGED.store(false, Ordering::Relaxed);
    let mut stream = node.synced_commits(42);
    timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    // It waits for the next one, and has done with this one.
    let waiting = async { drop(stream.next().await) };
    tokio::select! {
        () = waiting => {}
        status = eventually(&node, "it is ready again", |status| status.cause.as_deref() != Some("executor-failed")) => {
            assert!(status.state_sync.unwrap().executor_failure.is_none());
        }
    }
}

#[tokio::test]
async fn node_waits_for_its_slowest_executor_and_for_no_observer() {
    let (builder, commits) = chain(150);
    let genesis = builder.genesis();
    let mut settings = config(&[]);
    settings.state_sync.max_executor_lag = 64;
    let client = start(node(2, genesis, mem_store(genesis, &[]), settings));
    let mut executor = client.synced_commits(1);
    // The limit holds for ranges that the node plans from here on, so the peer comes later.
    let registered =
        |status: &soma_p2p::Status| status.state_sync.as_ref().is_some_and(|sync| sync.slowest_executor == Some(1));
    eventually(&client, "it knows its executor", registered).await;
    let _server = start(node(1, genesis, mem_store(genesis, &commits), config(&[&client])));
    // Reads as fast as it can, and has no say.
    let mut observer = client.observe_commits(1);
    let mut observed = Vec::new();
    let behind = |status: &soma_p2p::Status| matches!(status.progress, Some(Progress::ExecutorBehind { .. }));
    while observed.len() < 64 {
        observed.push(timeout(PATIENCE, observer.next()).await.unwrap().unwrap().unwrap().commit_ref.index);
    }
    let status = eventually(&client, "it waits", behind).await;
    assert_eq!(status.height, 64, "no further than the executor allows");
    for expected in &commits {
        let next = timeout(PATIENCE, executor.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.commit_ref, expected.commit.reference());
    }
}

#[tokio::test]
async fn status_has_the_exact_progress_of_an_executor_that_waits() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let mut settings = config(&[]);
    settings.state_sync.max_executor_lag = 64;
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), settings));
    let mut executor = validator.synced_commits(1);
    for commit in builder.build(54) {
        validator.send_commit(commit).await.unwrap();
    }
    for _ in 1..=54 {
        timeout(PATIENCE, executor.next()).await.unwrap().unwrap().unwrap();
    }
    let waiting = async { drop(executor.next().await) };
    let told = eventually(&validator, "it was told", |status| {
        status.state_sync.as_ref().is_some_and(|sync| sync.slowest_executor == Some(55))
    });
    tokio::select! {
        () = waiting => panic!("there is no such commit"),
        _ = told => {}
    }
}

#[tokio::test]
async fn stream_from_the_highest_index_there_can_be_waits_and_does_not_overflow() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let mut streams = [u32::MAX, u32::MAX - 1].map(|from| validator.synced_commits(from));
    for commit in builder.build(3) {
        validator.send_commit(commit).await.unwrap();
    }
    for stream in &mut streams {
        assert!(futures::poll!(Box::pin(stream.next())).is_pending());
    }
    let status = eventually(&validator, "it goes on", |status| status.height == 3).await;
    assert!(status.is_alive());
    validator.stop().await;
    for mut stream in streams {
        assert!(timeout(PATIENCE, stream.next()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn store_is_free_after_shutdown_although_handles_and_streams_are_left() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis().clone();
    let (store, directory) = disk_store(&genesis, &commits);
    let system = node(1, &genesis, store, config(&[])).start().unwrap();
    let handle = system.handle();
    let (mut read, mut unread) = (handle.synced_commits(1), handle.observe_commits(1));
    timeout(PATIENCE, read.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(system.shutdown(STOP).await, ShutdownReport::default());
    let path = directory.path().join("store");
    let store = FjallStore::open(&path, &genesis).expect("nothing locks it any more");
    assert_eq!(store.watermarks().unwrap().highest_synced.index, 30);
    // What is left says that it is over.
    while let Some(commit) = timeout(PATIENCE, read.next()).await.unwrap() {
        commit.unwrap();
    }
    assert!(timeout(PATIENCE, unread.next()).await.unwrap().is_none());
    assert_eq!(handle.status().await.explanation, "stopped");
}

/// Waits at its first transaction until it is let go, and counts.
struct Gate {
    opened: Mutex<mpsc::Receiver<()>>,
    calls: AtomicU64,
}

impl TransactionVerifier for Gate {
    fn verify(&self, _: &EpochContext, _: &[u8], _: &mut TransactionSignatures<'_>) -> Result<(), TransactionError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // The error is that the gate is open.
        let _ = self.opened.lock().unwrap().recv();
        Ok(())
    }
}

#[tokio::test]
async fn shutdown_names_threads_that_still_check_and_gives_them_no_more_work() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let (open, opened) = mpsc::channel();
    let gate = Arc::new(Gate { opened: Mutex::new(opened), calls: AtomicU64::new(0) });
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).transaction_verifier(gate.clone());
    let client = client.start().unwrap();
    eventually(&client, "it checks", |_| gate.calls.load(Ordering::Relaxed) > 0).await;
    let report = timeout(PATIENCE, client.shutdown(Duration::from_secs(2))).await.unwrap();
    let block = commits[0].blocks[0].reference();
    assert_eq!(report.leaked, [format!("thread soma-verify-0, which is at transaction 0 of block {block}")]);
    drop(open);
    // The thread ends after the transaction that it was at: it lets go of the verifier.
    let released = async {
        while Arc::strong_count(&gate) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, released).await.unwrap();
    assert_eq!(gate.calls.load(Ordering::Relaxed), 1);
}

#[test]
fn two_systems_in_one_process_have_metrics_of_their_own() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis();
    let recorders = [(); 2].map(|()| &*Box::leak(Box::new(DebuggingRecorder::new())));
    let verified = |recorder: &'static DebuggingRecorder| -> u64 {
        let metrics = recorder.snapshotter().snapshot().into_vec();
        let found = metrics.into_iter().filter(|(key, ..)| key.key().name() == "soma_verifier_blocks_total");
        found.map(|(_, _, _, value)| if let DebugValue::Counter(count) = value { count } else { 0 }).sum()
    };
    let server = node(1, genesis, mem_store(genesis, &commits), config(&[])).metrics_recorder(recorders[0]);
    let server = start(server);
    let client = node(2, genesis, mem_store(genesis, &[]), config(&[&server])).metrics_recorder(recorders[1]);
    let client = start(client);
    block_on(client.wait_until(|status| status.height == 30));
    let blocks: usize = commits.iter().map(|commit| commit.blocks.len()).sum();
    assert_eq!(recorders.map(verified), [0, blocks as u64]);
}

#[tokio::test]
async fn commits_that_are_pushed_at_the_head_are_timed_until_they_are_durable() {
    let (mut builder, commits) = chain(30);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let recorder = &*Box::leak(Box::new(DebuggingRecorder::new()));
    let client = node(2, &genesis, mem_store(&genesis, &commits), config(&[&server])).metrics_recorder(recorder);
    let client = start(client);
    eventually(&client, "the server knows it", |status| status.peers.iter().any(|peer| peer.outbound)).await;
    for (commit, height) in builder.build(5).into_iter().zip(31..) {
        server.send_commit(commit).await.unwrap();
        eventually(&client, "it follows", |status| status.height == height).await;
    }
    let timed = || {
        // A snapshot takes the samples out.
        let metrics = recorder.snapshotter().snapshot().into_vec();
        let pushed = metrics.into_iter().find(|(key, ..)| key.key().name() == "soma_push_to_durable_seconds");
        pushed.is_some_and(|(_, _, _, value)| {
            matches!(value, DebugValue::Histogram(samples) if !samples.is_empty()
                && samples.iter().all(|sample| (0.0..PATIENCE.as_secs_f64()).contains(&sample.into_inner())))
        })
    };
    eventually(&client, "a commit is timed", |_| timed()).await;
}

/// Writes log lines to a buffer.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn log_lines_of_a_system_bear_the_short_id_of_its_node() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis();
    let lines = Lines::default();
    let writer = lines.clone();
    // The only test here that looks at the process' log.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let server = start(node(11, genesis, mem_store(genesis, &commits), config(&[])));
    let client = start(node(12, genesis, mem_store(genesis, &[]), config(&[&server])));
    block_on(client.wait_until(|status| status.height == 30));
    let ids = [server.peer_id().short().to_string(), client.peer_id().short().to_string()];
    drop((client, server));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for id in ids {
        let of_node = text.lines().filter(|line| line.contains(&format!("node{{id=\"{id}\"}}"))).count();
        assert!(of_node > 0, "{id} in\n{text}");
    }
}

#[test]
fn genesis_that_breaks_a_rule_does_not_get_as_far_as_a_store() {
    let (builder, _) = chain(0);
    let mut committee = builder.genesis().committee().clone();
    committee.authorities[1].stake = 0;
    let error = soma_p2p::Genesis::new("broken", 1, committee).unwrap_err();
    assert_eq!(error.to_string(), "the genesis' committee: authority 1 has no stake");
}
