//! The system as a node embeds it: starting, stopping, failing, and being used from anywhere.

use futures::executor::block_on;
use soma_p2p::{
    CertificateVerifier, ChildState, EpochContext, FjallStore, LocalCommitError, StartError, Status, Store,
    TransactionError, TransactionSignatures, TransactionVerifier,
};
use soma_testkit::hostile::{Behaviour, Server};
use soma_tests::{
    PATIENCE, chain, config, disk_store, eventually, expect_commits, faulty_store::Faulty, key, mem_store, node, start,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

#[test]
fn the_handle_works_without_any_async_runtime() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let follower = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&validator])));
    let mut stream = follower.synced_commits(1);
    for commit in builder.build(10) {
        block_on(validator.send_commit(commit.clone())).unwrap();
        let synced = stream.blocking_next().unwrap().unwrap();
        assert_eq!(synced.commit_ref, commit.commit.reference());
    }
    assert_eq!(block_on(validator.status()).height, 10);
    assert_eq!(block_on(follower.peers()).len(), 1);
    block_on(follower.stop());
    assert!(stream.blocking_next().is_none());
}

#[tokio::test]
async fn what_a_slower_executor_has_not_taken_yet_stays_at_hand_for_it() {
    static READS: AtomicU32 = AtomicU32::new(0);
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let store = Faulty {
        sub_dags: |inner, range, max_bytes| {
            READS.fetch_add(1, Ordering::Relaxed);
            inner.sub_dags(range, max_bytes)
        },
        ..Faulty::new(mem_store(&genesis, &[]))
    };
    let node = start(node(1, &genesis, Arc::new(store), config(&[])));
    let (mut fast, mut slow) = (node.synced_commits(1), node.synced_commits(1));
    let commits = builder.build(200);
    for commit in &commits {
        node.send_commit(commit.clone()).await.unwrap();
        assert_eq!(fast.next().await.unwrap().unwrap().commit_ref, commit.commit.reference());
    }
    for commit in &commits {
        assert_eq!(slow.next().await.unwrap().unwrap().commit_ref, commit.commit.reference());
    }
    assert_eq!(READS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn several_systems_of_several_chains_live_in_one_process() {
    let mut systems = Vec::new();
    for seed in 0..3 {
        let spec = soma_testkit::ChainSpec { seed, ..Default::default() };
        let mut builder = soma_testkit::ChainBuilder::new(spec).unwrap();
        let commits = builder.build(12);
        let genesis = builder.genesis().clone();
        let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
        let client = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])));
        systems.push((server, client, commits));
    }
    for (_, client, commits) in &systems {
        expect_commits(client, commits).await;
    }
}

#[tokio::test]
async fn unfitting_consensus_commits_are_refused_with_the_reason() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let commits = builder.build(3);
    let gap = validator.send_commit(commits[1].clone()).await.unwrap_err();
    assert_eq!(gap, LocalCommitError::Gap { index: 2, expected: 1 });
    // Also when the node is so far behind that it does not know the commit's committee yet.
    let far_ahead = chain(25).1.pop().unwrap();
    let gap = validator.send_commit(far_ahead).await.unwrap_err();
    assert_eq!(gap, LocalCommitError::Gap { index: 25, expected: 1 });
    let mut uncertified = commits[0].clone();
    uncertified.certifiers.truncate(2);
    let error = validator.send_commit(uncertified).await.unwrap_err();
    assert!(matches!(error, LocalCommitError::NotCertified { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("a stake of 2, and a quorum is 3"), "{error}");
    // Peers would ban a node that serves such a vote.
    let mut forged = commits[0].clone();
    let vote = forged.certifiers[1].value().clone();
    let wrong = soma_p2p::SignedBlock::sign(vote, genesis.chain_id(), &key(99));
    forged.certifiers[1] = soma_p2p::VerifiedBlock::assume_verified(wrong);
    let error = validator.send_commit(forged).await.unwrap_err();
    assert!(matches!(error, LocalCommitError::NotCertified { index: 1, .. }), "{error}");
    let mut incomplete = commits[0].clone();
    incomplete.blocks.pop();
    assert!(matches!(validator.send_commit(incomplete).await, Err(LocalCommitError::Invalid { index: 1, .. })));
    validator.send_commit(commits[0].clone()).await.unwrap();
    validator.send_commit(commits[0].clone()).await.unwrap();
    assert_eq!(validator.height(), 1, "what is there already is no error and changes nothing");
    let (stopped, commit) = (validator.handle(), commits[1].clone());
    validator.stop().await;
    assert_eq!(stopped.send_commit(commit).await, Err(LocalCommitError::Unavailable));
    assert_eq!(stopped.status().await.explanation, "stopped");
}

#[test]
fn a_system_that_cannot_start_says_what_and_where() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let running = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let mut taken = config(&[]);
    taken.listen = running.address().to_string().parse().unwrap();
    let error = node(2, &genesis, mem_store(&genesis, &[]), taken).start().err().unwrap();
    assert!(matches!(error, StartError::Listen(_)));
    assert!(error.to_string().contains(running.address().as_str()), "{error}");

    let other = soma_testkit::ChainBuilder::new(soma_testkit::ChainSpec { seed: 9, ..Default::default() }).unwrap();
    let error = node(2, other.genesis(), mem_store(&genesis, &[]), config(&[])).start().err().unwrap();
    assert!(matches!(error, StartError::OtherChain { .. }), "{error}");

    let mut wrong = config(&[]);
    wrong.state_sync.max_workers = 0;
    let error = node(2, &genesis, mem_store(&genesis, &[]), wrong).start().err().unwrap();
    assert_eq!(error.to_string(), "configuration: state_sync.max_workers = 0: must be 1 to 256");
}

/// Panics at its first few transactions.
struct Fragile(AtomicU32);

impl TransactionVerifier for Fragile {
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError> {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) >= 3, "on purpose");
        CertificateVerifier.verify(context, transaction, signatures)
    }
}

#[tokio::test]
async fn a_verifier_that_panics_costs_a_batch_not_the_sync_and_nobody_is_blamed() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server]))
        .transaction_verifier(Arc::new(Fragile(AtomicU32::new(0))));
    let client = start(client);
    expect_commits(&client, &commits).await;
    let status = client.status().await;
    assert!(status.verifier.unwrap().panicked > 0);
    assert_eq!(status.peers[0].serving.as_ref().unwrap().score, 100);
    assert_eq!(status.banned, []);
}

#[tokio::test]
async fn failed_or_unanswered_write_is_retried_and_applied_once() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let disk = Faulty {
        before_apply: |inner, number, batch| match number {
            0 => panic!("on purpose"),
            // Written, but the answer is lost.
            1 => {
                inner.apply_refs(batch).unwrap();
                panic!("on purpose")
            }
            // An error: an empty batch is refused.
            2 => Some(inner.apply(&[])),
            _ => None,
        },
        ..Faulty::new(mem_store(&genesis, &[]))
    };
    let client = start(node(2, &genesis, Arc::new(disk), config(&[&server])));
    expect_commits(&client, &commits).await;
    let status = eventually(&client, "well again", |status| status.is_ready()).await;
    assert!(status.store_writer.unwrap().failed >= 2);
    assert_eq!(status.peers[0].serving.as_ref().unwrap().score, 100, "our disk is not the peer's fault");
}

#[tokio::test]
async fn actor_that_cannot_start_is_retried_with_backoff_shown_in_status() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    // State sync asks for it when it starts, and nobody else.
    let late = Faulty {
        before_last_commit_of_epoch: |number| assert!(number >= 2, "on purpose"),
        ..Faulty::new(mem_store(&genesis, &[]))
    };
    let client = start(node(2, &genesis, Arc::new(late), config(&[&server])));
    expect_commits(&client, &commits).await;
    let status = client.status().await;
    let sync = status.tree.find("state-sync").unwrap();
    assert_eq!((sync.state, sync.restarts), (ChildState::Running, 2));
    assert!(sync.last_exit.as_ref().unwrap().to_string().contains("on purpose"));
}

#[tokio::test]
async fn node_starts_in_the_epoch_of_its_last_commit_despite_partial_batch() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    // In the middle of an epoch, and at an end.
    for stored in [30, 40] {
        let early = Faulty { latest_epoch: |_| Ok(2), ..Faulty::new(mem_store(&genesis, &commits[..stored])) };
        let client = start(node(2, &genesis, Arc::new(early), config(&[&server])));
        expect_commits(&client, &commits).await;
    }
}

#[tokio::test]
async fn system_whose_actor_does_not_come_up_does_not_start_and_says_why() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let broken =
        Faulty { before_last_commit_of_epoch: |_| panic!("on purpose"), ..Faulty::new(mem_store(&genesis, &[])) };
    let store: Arc<dyn Store> = Arc::new(broken);
    let error = node(2, &genesis, store.clone(), config(&[])).start().err().expect("it cannot start");
    let StartError::GaveUp(why) = &error else { panic!("{error}") };
    let why = why.to_string();
    assert!(why.contains("state-sync does not stay up") && why.contains("on purpose"), "{why}");
    assert_eq!(Arc::strong_count(&store), 1, "nothing of it is left that holds the store");
}

#[tokio::test]
async fn unresponsive_disk_is_named_and_delays_shutdown_only_to_the_deadline() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let never = || loop {
        std::thread::park();
    };
    let hanging = Faulty { before_flush: never, ..Faulty::new(mem_store(&genesis, &[])) };
    let system = node(2, &genesis, Arc::new(hanging), config(&[])).start().unwrap();
    let report = timeout(PATIENCE, system.shutdown(Duration::from_secs(1))).await.unwrap();
    assert_eq!(report.overdue, ["store: the disk does not answer; what was announced is on it"]);
}

#[tokio::test]
async fn a_ban_outlives_a_restart_of_the_node() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let liar = Server::start(Behaviour::FlipsBlocks, &key(100), genesis, &commits, 1).await;
    let liar_id = liar.seed_peer().peer_id;
    let (store, directory) = disk_store(genesis, &[]);
    let mut settings = config(&[]);
    settings.seed_peers = vec![liar.seed_peer()];
    let banned = |status: &Status| status.banned.len() == 1 && status.is_banned(liar_id);
    let first = start(node(2, genesis, store, settings.clone()));
    eventually(&first, "the liar is banned", banned).await;
    first.stop().await;
    // What it sends is not looked at this time: it is cut off as soon as it is connected.
    let store = FjallStore::open(&directory.path().join("store"), genesis).unwrap();
    let again = start(node(2, genesis, Arc::new(store), settings));
    let alone = |status: &Status| banned(status) && status.cause.as_deref() == Some("seeds-unreachable");
    let status = eventually(&again, "the liar is still banned, and there is nobody else", alone).await;
    assert!(status.explanation.contains("it is banned"), "{}", status.explanation);
    assert_eq!(status.state_sync.unwrap().workers, 0);
}
