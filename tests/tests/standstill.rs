//! A node that makes no progress says why: the exact cause, with the peers and numbers, for each that peers, the disk
//! or the executor can bring about. Those that only a broken handover or a race makes are shown at the core
//! (`crates/protocol/src/state_sync/tests.rs`, `peer_heights/tests.rs`).

use soma_p2p::{CertifiedCommit, Genesis, PeerId, SeedPeer, Status, Store, Watermarks};
use soma_testkit::hostile::{Behaviour, Server};
use soma_tests::{TestNode, chain, config, eventually, faulty_store::Faulty, key, mem_store, node, start};
use std::{sync::Arc, time::Duration};

const COMMITS: usize = 60;

/// A node with nothing that knows this peer.
fn fresh(genesis: &Genesis, seed: SeedPeer) -> TestNode {
    let mut settings = config(&[]);
    settings.seed_peers = vec![seed];
    start(node(2, genesis, mem_store(genesis, &[]), settings))
}

/// Waits for the cause; what the status says then.
async fn stands_still(node: &TestNode, cause: &str) -> Status {
    eventually(node, cause, |status| status.cause.as_deref() == Some(cause)).await
}

fn expect_text(status: &Status, parts: &[&str]) {
    for part in parts {
        assert!(status.explanation.contains(part), "{:?} does not say {part:?}", status.explanation);
    }
}

/// What a node says whose only peer behaves so.
async fn beside(behaviour: Behaviour, genesis: &Genesis, commits: &[CertifiedCommit], cause: &str) -> Status {
    let server = Server::start(behaviour, &key(100), genesis, commits, 1).await;
    stands_still(&fresh(genesis, server.seed_peer()), cause).await
}

#[tokio::test]
async fn a_node_without_peers_says_so_and_which_seeds_cannot_be_used() {
    let (builder, _) = chain(0);
    let seed = SeedPeer { peer_id: PeerId::from(&key(9)), address: "/ip4/127.0.0.1/tcp/9".parse().unwrap() };
    let alone = fresh(builder.genesis(), seed.clone());
    let names_seed = |status: &Status| status.explanation.contains(&seed.peer_id.short().to_string());
    let status = eventually(&alone, "the dial has failed", names_seed).await;
    assert_eq!(status.cause.as_deref(), Some("seeds-unreachable"));
    expect_text(&status, &["commit 1 is next, but not connected to any peer", "no seed peer can be reached"]);
}

#[tokio::test]
async fn a_node_whose_peers_leave_does_not_say_that_it_is_synced() {
    let (builder, commits) = chain(COMMITS);
    let genesis = builder.genesis();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let client = start(node(2, genesis, mem_store(genesis, &[]), config(&[&server])));
    expect_text(&stands_still(&client, "synced").await, &["synced at commit 60"]);
    server.stop().await;
    expect_text(
        &stands_still(&client, "seeds-unreachable").await,
        &["commit 61 is next, but not connected to any peer"],
    );
}

#[tokio::test]
async fn a_node_whose_peers_have_not_what_they_claim_says_who_claims_what() {
    let (builder, commits) = chain(COMMITS);
    let status = beside(Behaviour::ServesNothing, builder.genesis(), &commits, "claims-unproven").await;
    expect_text(&status, &["commit 1 is next", "1 peers claim up to commit 60", "none could serve it"]);
}

#[tokio::test]
async fn node_with_failing_or_busy_peers_reports_their_backoff() {
    let (builder, commits) = chain(COMMITS);
    for behaviour in [Behaviour::SaysBusy, Behaviour::FailsInside] {
        let status = beside(behaviour, builder.genesis(), &commits, "all-paused").await;
        expect_text(&status, &["commit 1 is next", "all 1 peers that have it failed lately"]);
    }
}

#[tokio::test]
async fn node_reports_lowest_commit_of_peers_that_pruned_its_range() {
    let (builder, commits) = chain(COMMITS);
    let genesis = builder.genesis();
    let pruned = Faulty {
        watermarks: |watermarks| Watermarks { lowest_available: 50, ..watermarks },
        ..Faulty::new(mem_store(genesis, &commits))
    };
    let server = start(node(1, genesis, Arc::new(pruned), config(&[])));
    let client = start(node(2, genesis, mem_store(genesis, &[]), config(&[&server])));
    let status = stands_still(&client, "all-pruned").await;
    let parts = ["commit 1 is next", "all 1 peers", "have pruned it", "the lowest commit that any still has is 50"];
    expect_text(&status, &parts);
}

#[tokio::test]
async fn a_node_that_waits_for_its_executor_says_where_that_is() {
    let (builder, commits) = chain(150);
    let genesis = builder.genesis();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let mut settings = config(&[&server]);
    settings.state_sync.max_executor_lag = 64;
    settings.state_sync.synced_commit_channel_capacity = 1;
    let client = node(2, genesis, mem_store(genesis, &[]), settings);
    let client = start(client);
    // Taken, and not read.
    let stream = client.synced_commits(1);
    let status = stands_still(&client, "executor-behind").await;
    expect_text(&status, &["commits up to 64 are stored", "the executor is at commit 1: fetching waits for it"]);
    drop(stream);
    stands_still(&client, "synced").await;
}

#[tokio::test]
async fn a_node_that_cannot_store_says_what_the_disk_says() {
    let (builder, commits) = chain(COMMITS);
    let genesis = builder.genesis();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    // An error: an empty batch is refused.
    let disk = Faulty { before_apply: |inner, _, _| Some(inner.apply(&[])), ..Faulty::new(mem_store(genesis, &[])) };
    let mut settings = config(&[&server]);
    settings.state_sync.request_timeout = Duration::from_secs(5);
    let client = start(node(2, genesis, Arc::new(disk), settings));
    let status = stands_still(&client, "disk").await;
    expect_text(&status, &["commits cannot be stored", "an empty batch"]);
    assert!(status.is_alive() && !status.is_ready(), "its parts run, and it does not get on");
}
