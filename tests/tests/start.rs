//! Nodes that do not begin at the genesis: over TLS and gRPC, with stores on disk.

use bytes::Bytes;
use soma_network::{TlsTransport, Transport, wire::Call};
use soma_p2p::{
    CertifiedCommit, CommitRef, FjallStore, Genesis, Handle, MemStore, Start, StartError, Status, Store, StoreError,
    make_checkpoint,
    types::{CommitDigest, SignedNodeInfo},
};
use soma_testkit::ChainBuilder;
use soma_tests::{
    PATIENCE, TestNode, chain, config, disk_store, eventually, expect_commits, faulty_store::Faulty, key, mem_store,
    node, start,
};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::time::timeout;

/// Commits of the servers. Four epochs of 20 have ended.
const COMMITS: usize = 90;

/// The first commit after the last ended epoch.
const FIRST: u32 = 81;

/// Three nodes that have the chain. The second has pruned most of the chain.
struct Network {
    builder: ChainBuilder,
    genesis: Genesis,
    commits: Vec<CertifiedCommit>,
    servers: Vec<TestNode>,
}

impl Network {
    fn start() -> Self {
        let (builder, commits) = chain(COMMITS);
        let genesis = builder.genesis().clone();
        let serve = |number: u8| {
            let store = mem_store(&genesis, &commits);
            while number == 2 && !store.prune(75).unwrap().is_complete {}
            start(node(number, &genesis, store, config(&[])))
        };
        let servers = [1, 2, 3].map(serve).into();
        Self { builder, genesis, commits, servers }
    }

    /// Starts node 9 with this store, which begins there.
    fn join(&self, store: Arc<dyn Store>, begin: Start) -> TestNode {
        let seeds: Vec<&Handle> = self.servers.iter().map(|server| &***server).collect();
        let mut config = config(&seeds);
        config.start = begin;
        start(node(9, &self.genesis, store, config))
    }

    fn last_of_epoch(&self, epoch: usize) -> CommitRef {
        self.commits[(epoch + 1) * 20 - 1].commit.reference()
    }
}

/// The index of the first commit that a fresh executor is given.
async fn first_given(node: &Handle) -> u32 {
    let mut stream = node.synced_commits(0);
    timeout(PATIENCE, stream.next()).await.expect("a commit").unwrap().unwrap().commit_ref.index
}

/// Whether the node tells its peers that it is an archive.
async fn says_archive(node: &Handle) -> bool {
    let transport = TlsTransport::new(&key(7)).unwrap();
    let link = transport.dial(node.peer_id(), node.address(), PATIENCE).await.unwrap();
    let call = Call { peer: node.peer_id(), chain: Some(node.chain_id()), remote: None, timeout: PATIENCE };
    let answer = link.api().get_known_peers(call, Bytes::new()).await.unwrap();
    SignedNodeInfo::decode_bounded(answer.own_info).unwrap().capabilities.archive
}

fn fetched(status: &Status) -> u64 {
    status.state_sync.as_ref().map_or(0, |sync| sync.commits_fetched)
}

fn shows(part: &'static str) -> impl Fn(&Status) -> bool {
    move |status| status.explanation.contains(part)
}

#[tokio::test]
async fn node_begins_after_the_last_ended_epoch_and_fetches_nothing_before() {
    let mut network = Network::start();
    let (store, _directory) = disk_store(&network.genesis, &[]);
    let fresh = network.join(store.clone(), Start::LatestEpoch);
    assert_eq!(first_given(&fresh).await, FIRST);
    expect_commits(&fresh, &network.commits[FIRST as usize - 1..]).await;
    let status = eventually(&fresh, "the fetched commits are counted", |status| fetched(status) >= 10).await;
    assert_eq!(fetched(&status), 10, "81 to 90");
    assert_eq!(status.store_writer.unwrap().lowest_available, Some(FIRST), "the status shows where history begins");
    assert_eq!(store.watermarks().unwrap().lowest_available, FIRST);
    assert!(!says_archive(&fresh).await, "it lacks the past");
    for epoch in 0..4 {
        assert!(store.epoch_proof(epoch).unwrap().is_some(), "it can prove epoch {epoch} to others");
    }

    // It follows the chain over the next end of an epoch.
    let more = network.builder.build(15);
    for commit in &more {
        network.servers[0].send_commit(commit.clone()).await.unwrap();
    }
    expect_commits(&fresh, &more).await;
    fresh.stop().await;

    // A restart goes on where the store ends.
    let again = network.join(store, Start::LatestEpoch);
    expect_commits(&again, &network.commits[FIRST as usize - 1..]).await;
    expect_commits(&again, &more).await;
    again.stop().await;
}

/// The lowest commit that the status of StateSync shows, once backfill has begun.
fn backfilled(status: &Status) -> Option<u32> {
    status.state_sync.as_ref()?.backfill.as_ref().map(|backfill| backfill.lowest)
}

#[tokio::test]
async fn node_that_began_late_backfills_to_commit_1_across_restarts() {
    let network = Network::start();
    let (store, directory) = disk_store(&network.genesis, &[]);
    let seeds: Vec<&Handle> = network.servers.iter().map(|server| &***server).collect();
    let mut config = config(&seeds);
    (config.start, config.backfill) = (Start::LatestEpoch, true);
    // Short ranges, so that a restart comes in between.
    config.state_sync.commits_per_fetch = 1;
    let join = |store: Arc<dyn Store>| start(node(9, &network.genesis, store, config.clone()));
    let fresh = join(store.clone());
    expect_commits(&fresh, &network.commits[FIRST as usize - 1..]).await;
    eventually(&fresh, "earlier commits are stored", |status| backfilled(status) < Some(FIRST)).await;
    fresh.stop().await;
    let lowest = store.watermarks().unwrap().lowest_available;
    assert!(lowest < FIRST, "{lowest}");
    drop(store);

    let store = Arc::new(FjallStore::open(&directory.path().join("store"), &network.genesis).unwrap());
    let fresh = join(store.clone());
    assert_eq!(first_given(&fresh).await, FIRST, "an executor begins where the node began");
    let is_complete = |status: &Status| {
        let backfill = status.state_sync.as_ref().and_then(|sync| sync.backfill.as_ref());
        backfill.is_some_and(|backfill| backfill.is_complete)
    };
    let status = eventually(&fresh, "all is fetched", is_complete).await;
    assert_eq!(backfilled(&status), Some(1));
    let begins =
        |status: &Status| status.store_writer.as_ref().is_some_and(|writer| writer.lowest_available == Some(1));
    eventually(&fresh, "the status shows where history begins", begins).await;
    assert_eq!(first_given(&fresh).await, FIRST);

    let whole = mem_store(&network.genesis, &network.commits);
    for certified in &network.commits {
        let commit = certified.commit.reference();
        assert_eq!(store.sub_dag(commit.index).unwrap(), Some(certified.sub_dag()));
        assert_eq!(store.commit(commit.index).unwrap(), whole.commit(commit.index).unwrap());
    }
    for epoch in 0..4 {
        let proof = |store: &dyn Store| store.epoch_proof(epoch).unwrap().map(|proof| proof.commit);
        assert_eq!(proof(&*store), proof(&*whole));
        assert_eq!(store.committee(epoch).unwrap(), whole.committee(epoch).unwrap());
    }
    // It serves the history to a node that begins at the genesis.
    let second = start(node(10, &network.genesis, mem_store(&network.genesis, &[]), self::config(&[&fresh])));
    expect_commits(&second, &network.commits).await;
    second.stop().await;
    fresh.stop().await;

    // From its next start on it is an archive.
    let again = join(store);
    assert!(says_archive(&again).await);
    again.stop().await;
}

#[tokio::test]
async fn backfill_ends_at_the_checkpoint_where_the_node_began() {
    let network = Network::start();
    let file = TempDir::new().unwrap();
    let path = file.path().join("checkpoint.bin");
    let source = mem_store(&network.genesis, &network.commits);
    std::fs::write(&path, make_checkpoint(&*source, 2).unwrap().unwrap().encode()).unwrap();
    let seeds: Vec<&Handle> = network.servers.iter().map(|server| &***server).collect();
    let mut config = config(&seeds);
    (config.start, config.backfill) = (Start::Checkpoint(path), true);
    let store = mem_store(&network.genesis, &[]);
    let fresh = start(node(9, &network.genesis, store.clone(), config));
    expect_commits(&fresh, &network.commits[60..]).await;
    let is_complete = |status: &Status| {
        let backfill = status.state_sync.as_ref().and_then(|sync| sync.backfill.as_ref());
        backfill.is_some_and(|backfill| backfill.is_complete && backfill.target == 61)
    };
    eventually(&fresh, "the committees before are unknown", is_complete).await;
    assert_eq!(store.watermarks().unwrap().lowest_available, 61);
    fresh.stop().await;
}

#[tokio::test]
async fn executor_that_asks_for_the_skipped_past_learns_where_the_node_begins() {
    let network = Network::start();
    let fresh = network.join(mem_store(&network.genesis, &[]), Start::LatestEpoch);
    let mut stream = fresh.observe_commits(1);
    let error = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Pruned { index: 1, .. }), "{error}");
    expect_commits(&fresh, &network.commits[FIRST as usize - 1..]).await;
    fresh.stop().await;
}

#[tokio::test]
async fn node_serves_others_from_where_it_began() {
    let network = Network::start();
    let fresh = network.join(mem_store(&network.genesis, &[]), Start::LatestEpoch);
    expect_commits(&fresh, &network.commits[FIRST as usize - 1..]).await;
    for server in network.servers {
        server.stop().await;
    }
    let mut config = config(&[&fresh]);
    config.start = Start::LatestEpoch;
    let second = start(node(10, &network.genesis, mem_store(&network.genesis, &[]), config));
    assert_eq!(first_given(&second).await, FIRST);
    expect_commits(&second, &network.commits[FIRST as usize - 1..]).await;
    second.stop().await;
    fresh.stop().await;
}

#[tokio::test]
async fn node_begins_after_a_trusted_commit_and_only_with_its_digest() {
    let network = Network::start();
    let trusted = network.last_of_epoch(1);
    let fresh = network.join(mem_store(&network.genesis, &[]), Start::Commit(trusted));
    assert_eq!(first_given(&fresh).await, 41);
    expect_commits(&fresh, &network.commits[40..]).await;
    fresh.stop().await;

    let other = CommitRef { digest: CommitDigest([7; 32]), ..trusted };
    let between = CommitRef { index: 41, ..trusted };
    let beyond = CommitRef { index: 1_000, ..trusted };
    let wrong: [(CommitRef, &str); 3] =
        [(other, "the digest is wrong"), (between, "ends no epoch"), (beyond, "is not reached")];
    for (commit, part) in wrong {
        let store = mem_store(&network.genesis, &[]);
        let fresh = network.join(store.clone(), Start::Commit(commit));
        eventually(&fresh, part, shows(part)).await;
        let highest = store.watermarks().unwrap().highest_synced.index;
        assert!(highest == 0 || commit == beyond, "nothing is written of a chain that is not the trusted one");
        fresh.stop().await;
    }
}

#[tokio::test]
async fn node_begins_at_a_checkpoint_of_its_chain_and_of_no_other() {
    let network = Network::start();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("checkpoint.bin");
    let source = mem_store(&network.genesis, &network.commits);
    std::fs::write(&file, make_checkpoint(&*source, 2).unwrap().unwrap().encode()).unwrap();
    let begin = Start::Checkpoint(file.clone());
    let store = mem_store(&network.genesis, &[]);
    let fresh = network.join(store.clone(), begin.clone());
    assert_eq!(first_given(&fresh).await, 61);
    expect_commits(&fresh, &network.commits[60..]).await;
    fresh.stop().await;
    std::fs::remove_file(&file).unwrap();
    network.join(store, begin.clone()).stop().await;

    let refused = |contents: Option<Vec<u8>>, part: &str| {
        let _ = std::fs::remove_file(&file);
        contents.into_iter().for_each(|contents| std::fs::write(&file, contents).unwrap());
        let store = Arc::new(MemStore::new(&network.genesis));
        let mut config = config(&[]);
        config.start = begin.clone();
        let error = node(9, &network.genesis, store.clone(), config).start().err().expect("no start");
        assert!(matches!(error, StartError::Checkpoint { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("checkpoint.bin") && message.contains(part), "{message}");
        assert_eq!(store.watermarks().unwrap().highest_synced.index, 0, "nothing was written");
    };
    let good = make_checkpoint(&*source, 2).unwrap().unwrap();
    refused(None, "No such file");
    refused(Some(b"not a checkpoint".to_vec()), "checkpoint");
    let mut other_committee = good.clone();
    other_committee.committee.authorities.truncate(3);
    refused(Some(other_committee.encode()), "epoch 2");
    let mut other_chain = good.clone();
    other_chain.chain_id.0[0] ^= 1;
    refused(Some(other_chain.encode()), "is of chain");
    let mut no_votes = good;
    no_votes.proof.certifiers.clear();
    refused(Some(no_votes.encode()), "epoch 2");
}

#[tokio::test]
async fn peer_with_false_epoch_proofs_is_banned_and_another_one_asked() {
    let (builder, commits) = chain(COMMITS);
    let genesis = builder.genesis().clone();
    let forged = Faulty {
        epoch_proof: |inner, epoch| {
            let mut proof = inner.epoch_proof(epoch)?;
            if let Some(proof) = &mut proof {
                let mut block = proof.certifiers[0].to_vec();
                *block.last_mut().expect("a block has a signature") ^= 1;
                proof.certifiers[0] = Bytes::from(block);
            }
            Ok(proof)
        },
        ..Faulty::new(mem_store(&genesis, &commits))
    };
    let liar = start(node(1, &genesis, Arc::new(forged), config(&[])));
    let mut only_liar = config(&[&liar]);
    only_liar.start = Start::LatestEpoch;
    let store = mem_store(&genesis, &[]);
    let fresh = start(node(9, &genesis, store.clone(), only_liar));
    let liars_id = liar.peer_id();
    let is_banned = |status: &Status| status.is_banned(liars_id);
    eventually(&fresh, "the liar is banned", is_banned).await;
    assert_eq!(store.watermarks().unwrap().highest_synced.index, 0);

    let honest = start(node(2, &genesis, mem_store(&genesis, &commits), config(&[])));
    fresh.add_seed(soma_tests::seed_peer(&honest)).await.unwrap();
    expect_commits(&fresh, &commits[FIRST as usize - 1..]).await;
    fresh.stop().await;
    honest.stop().await;
    liar.stop().await;
}
