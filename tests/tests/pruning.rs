//! Nodes that prune: over TLS and gRPC, with stores on disk.

use soma_p2p::{Handle, Pruned, SeedPeer, Status, Store, StoreError};
use soma_tests::{
    PATIENCE, chain, config, disk_store, eventually, expect_commits, faulty_store::Faulty, mem_store, node, seed_peer,
    start,
};
use std::sync::Arc;
use tokio::time::timeout;

/// Commits that the nodes keep.
const WINDOW: u32 = 100;

fn pruning(seeds: &[&Handle]) -> soma_p2p::Config {
    let mut config = config(seeds);
    config.pruning.commits = Some(WINDOW);
    config
}

fn lowest(status: &Status) -> Option<u32> {
    status.store_writer.as_ref().and_then(|writer| writer.lowest_available)
}

#[tokio::test]
async fn node_keeps_its_window_and_its_executor_gets_every_commit() {
    let (builder, commits) = chain(500);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let (store, _directory) = disk_store(&genesis, &[]);
    let pruner = start(node(2, &genesis, store.clone(), pruning(&[&server])));
    expect_commits(&pruner, &commits).await;
    let highest = commits.len() as u32;
    let first_kept = highest - WINDOW + 1;
    // The executor's last word may come with a later write, so one batch may stay.
    assert!(store.watermarks().unwrap().lowest_available <= first_kept);
    assert!(store.sub_dag(highest).unwrap().is_some());
    pruner.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn node_stops_in_order_although_pruning_has_no_end() {
    let (mut builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let store = Faulty {
        prune: |inner, lowest| Ok(Pruned { is_complete: false, ..inner.prune(lowest)? }),
        ..Faulty::new(mem_store(&genesis, &commits))
    };
    let pruner = start(node(1, &genesis, Arc::new(store), pruning(&[])));
    expect_commits(&pruner, &commits).await;
    let mut executor = pruner.synced_commits(301);
    pruner.send_commit(builder.build(1).remove(0)).await.unwrap();
    timeout(PATIENCE, executor.next()).await.unwrap().unwrap().unwrap();
    eventually(&pruner, "a step of pruning was taken", |status| lowest(status).is_some()).await;
    pruner.stop().await;
}

#[tokio::test]
async fn executor_that_asks_for_a_pruned_commit_learns_the_lowest_one() {
    let (builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let (store, _directory) = disk_store(&genesis, &commits);
    while !store.prune(201).unwrap().is_complete {}
    let pruned = start(node(1, &genesis, store, config(&[])));
    let mut stream = pruned.synced_commits(1);
    let error = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Pruned { index: 1, lowest: 201, .. }), "{error}");
    drop(stream);
    expect_commits(&pruned, &commits[200..]).await;
    pruned.stop().await;
}

#[tokio::test]
async fn nothing_is_pruned_that_a_slow_executor_has_not_taken() {
    let (mut builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let (store, _directory) = disk_store(&genesis, &commits);
    let pruner = start(node(1, &genesis, store.clone(), pruning(&[])));
    let mut executor = pruner.synced_commits(250);
    let is_known = |status: &Status| status.state_sync.as_ref().is_some_and(|sync| sync.slowest_executor == Some(250));
    eventually(&pruner, "the executor is known", is_known).await;
    let own = builder.build(40);
    for commit in &own {
        pruner.send_commit(commit.clone()).await.unwrap();
    }
    // The window is behind the executor, so that it can go back.
    let is_pruned = |status: &Status| lowest(status) == Some(250 - WINDOW);
    eventually(&pruner, "all is pruned that is outside the window", is_pruned).await;
    assert_eq!(timeout(PATIENCE, executor.next()).await.unwrap().unwrap().unwrap().commit_ref.index, 250);
    expect_commits(&pruner, &commits[249..]).await;
    pruner.stop().await;
}

#[tokio::test]
async fn fresh_node_syncs_when_all_peers_but_one_have_pruned() {
    let (builder, commits) = chain(400);
    let genesis = builder.genesis().clone();
    let archive = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let pruned: Vec<_> = (2..5)
        .map(|number| {
            let store = mem_store(&genesis, &commits);
            while !store.prune(301).unwrap().is_complete {}
            start(node(number, &genesis, store, pruning(&[&archive])))
        })
        .collect();
    let mut settings = config(&[&archive]);
    settings.seed_peers.extend(pruned.iter().map(|node| -> SeedPeer { seed_peer(node) }));
    let fresh = start(node(9, &genesis, mem_store(&genesis, &[]), settings));
    expect_commits(&fresh, &commits).await;
    assert!(fresh.status().await.banned.is_empty(), "a peer that has pruned is no liar");
    fresh.stop().await;
    for node in pruned {
        node.stop().await;
    }
    archive.stop().await;
}

#[tokio::test]
async fn fresh_node_says_that_all_peers_have_pruned() {
    let (builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let store = mem_store(&genesis, &commits);
    while !store.prune(201).unwrap().is_complete {}
    let pruned = start(node(1, &genesis, store, config(&[])));
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&pruned])));
    let told = |status: &Status| status.cause.as_deref() == Some("all-pruned");
    let status = eventually(&fresh, "the cause is told", told).await;
    assert!(status.explanation.contains("201"), "{}", status.explanation);
    fresh.stop().await;
    pruned.stop().await;
}
