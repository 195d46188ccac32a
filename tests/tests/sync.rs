//! Nodes that sync from one another: real TLS, gRPC and, where it matters, the disk.

use soma_p2p::{CorruptReason, Place, Progress, Record, Store, StoreError};
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{
    PATIENCE, chain, config, disk_store, eventually, expect_commits, faulty_store::Faulty, mem_store, node, start,
};
use std::sync::Arc;
use tokio::time::timeout;

#[tokio::test]
async fn a_fresh_node_fetches_every_commit_across_epochs_from_its_one_seed() {
    let (builder, commits) = chain(130);
    let genesis = builder.genesis().clone();
    let (server_store, _server_dir) = disk_store(&genesis, &commits);
    let (client_store, _client_dir) = disk_store(&genesis, &[]);
    let server = start(node(1, &genesis, server_store, config(&[])));
    let client = start(node(2, &genesis, client_store.clone(), config(&[&server])));
    expect_commits(&client, &commits).await;
    let status = eventually(&client, "synced", |status| status.progress == Some(Progress::Synced)).await;
    assert_eq!((status.height, status.percent, status.epoch), (130, 100, Some(6)));
    assert_eq!(client_store.last_commit_of_epoch(5).unwrap(), Some(120));
    client.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_node_that_knows_one_seed_finds_the_others_and_fetches_from_them_too() {
    let (builder, commits) = chain(200);
    let genesis = builder.genesis().clone();
    let seed = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let others: Vec<_> =
        (2..=4).map(|number| start(node(number, &genesis, mem_store(&genesis, &commits), config(&[&seed])))).collect();
    for other in &others {
        eventually(other, "connected to the seed", |status| !status.peers.is_empty()).await;
    }
    let mut settings = config(&[&seed]);
    settings.state_sync.commits_per_fetch = 5;
    let fresh = start(node(9, &genesis, mem_store(&genesis, &[]), settings));
    expect_commits(&fresh, &commits).await;
    let served_by = |status: &soma_p2p::Status| {
        status.peers.iter().filter(|peer| peer.outbound).filter_map(|peer| peer.serving.clone()).collect::<Vec<_>>()
    };
    let status = eventually(&fresh, "connected to all", |status| served_by(status).len() == 4).await;
    for peer in served_by(&status) {
        assert_eq!(peer.score, 100, "{peer:?}");
    }
}

#[tokio::test]
async fn commit_at_the_head_is_pushed_to_the_executors_of_all_nodes() {
    let (mut builder, commits) = chain(5);
    let genesis = builder.genesis().clone();
    let validator = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let follower = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&validator])));
    let last = start(node(3, &genesis, mem_store(&genesis, &[]), config(&[&follower])));
    expect_commits(&last, &commits).await;
    for _ in 0..30 {
        let commit = builder.next_commit();
        validator.send_commit(commit.clone()).await.unwrap();
        expect_commits(&follower, std::slice::from_ref(&commit)).await;
        expect_commits(&last, &[commit]).await;
    }
}

#[tokio::test]
async fn a_restarted_node_goes_on_where_its_disk_ends_and_fetches_nothing_twice() {
    let (builder, commits) = chain(150);
    let genesis = builder.genesis().clone();
    let first_part = start(node(1, &genesis, mem_store(&genesis, &commits[..90]), config(&[])));
    let (store, _dir) = disk_store(&genesis, &[]);
    let client = start(node(2, &genesis, store.clone(), config(&[&first_part])));
    expect_commits(&client, &commits[..90]).await;
    client.stop().await;
    first_part.stop().await;

    let all = start(node(3, &genesis, mem_store(&genesis, &commits), config(&[])));
    let client = start(node(2, &genesis, store, config(&[&all])));
    assert_eq!(client.height(), 90);
    expect_commits(&client, &commits).await;
    let status = eventually(&client, "synced", |status| status.progress == Some(Progress::Synced)).await;
    assert_eq!(status.state_sync.unwrap().commits_fetched, 60);
}

#[tokio::test]
async fn executor_gets_every_commit_before_a_damaged_one_then_the_error() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let damaged = Faulty {
        sub_dags: |inner, range, max_bytes| match *range.start() {
            42 => {
                let (place, record) = (Place::Memory, Record::Commit(42));
                Err(StoreError::Corrupt { place, record, reason: CorruptReason::Missing })
            }
            start => inner.sub_dags(start..=41, max_bytes),
        },
        ..Faulty::new(mem_store(genesis, &commits))
    };
    let node = start(node(1, genesis, Arc::new(damaged), config(&[])));
    let mut stream = node.synced_commits(1);
    for expected in &commits[..41] {
        let next = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(*next, expected.sub_dag());
    }
    let error = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("commit 42"), "{error}");
    assert!(timeout(PATIENCE, stream.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_that_is_slow_or_late_misses_nothing() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let mut settings = config(&[]);
    settings.state_sync.synced_commit_channel_capacity = 2;
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), settings));
    // Opened before the first commit, read after the last: far more than its channel holds.
    let mut slow = validator.synced_commits(1);
    let commits = builder.build(60);
    for commit in &commits {
        validator.send_commit(commit.clone()).await.unwrap();
    }
    for expected in &commits {
        let next = timeout(PATIENCE, slow.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.commit_ref, expected.commit.reference());
    }
    expect_commits(&validator, &commits).await;
    expect_commits(&validator, &commits[40..]).await;
    validator.stop().await;
    assert!(timeout(PATIENCE, slow.next()).await.unwrap().is_none(), "the stream ends with the system");
}

#[tokio::test]
async fn late_reader_is_served_from_the_store_then_from_memory() {
    let mut builder = ChainBuilder::new(ChainSpec { payload_bytes: 25_000, ..ChainSpec::default() }).unwrap();
    let genesis = builder.genesis().clone();
    let store = Faulty {
        sub_dags: |inner, range, max_bytes| {
            // Of 20 MB at least the last 4 are at hand.
            assert!(*range.start() <= 160, "commit {} is read from the store", range.start());
            inner.sub_dags(range, max_bytes)
        },
        ..Faulty::new(mem_store(&genesis, &[]))
    };
    let validator = start(node(1, &genesis, Arc::new(store), config(&[])));
    let commits = builder.build(200);
    for commit in &commits {
        validator.send_commit(commit.clone()).await.unwrap();
    }
    expect_commits(&validator, &commits).await;
}

#[tokio::test]
async fn executor_with_commits_always_ready_yields_to_other_tasks() {
    let (mut builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let mut settings = config(&[]);
    settings.state_sync.synced_commit_channel_capacity = 1;
    let validator = start(node(1, &genesis, mem_store(&genesis, &[]), settings));
    // More than tokio lets a task do at once, which are 128 steps.
    let commits = builder.build(200);
    for commit in &commits {
        validator.send_commit(commit.clone()).await.unwrap();
    }
    expect_commits(&validator, &commits).await;
    let mut stream = validator.synced_commits(1);
    let other = tokio::spawn(async {});
    for expected in &commits {
        assert_eq!(stream.next().await.unwrap().unwrap().commit_ref, expected.commit.reference());
    }
    assert!(other.is_finished());
}
