//! Nodes that serve slowly, because their operator said so: over real TLS.

use soma_network::wire::{Call, CallError, CommitRange, Status};
use soma_network::{Link, TlsTransport, Transport};
use soma_p2p::Config;
use soma_tests::{TestNode, chain, config, eventually, expect_commits, key, mem_store, node, start};
use std::time::Duration;
use tokio::time::sleep;

/// A node with 40 commits, and somebody who is connected to it.
async fn server(limit: impl Fn(&mut Config)) -> (TestNode, Link, Call) {
    let (builder, commits) = chain(40);
    let genesis = builder.genesis().clone();
    let mut settings = config(&[]);
    limit(&mut settings);
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), settings));
    let transport = TlsTransport::new(&key(7)).unwrap();
    let link = transport.dial(server.peer_id(), server.address(), Duration::from_secs(5)).await.unwrap();
    let call =
        Call { peer: link.peer(), chain: Some(builder.chain_id()), remote: None, timeout: Duration::from_secs(10) };
    (server, link, call)
}

/// When to come back.
fn hint(error: CallError) -> Duration {
    assert_eq!(error.status, Status::ResourceExhausted, "{error}");
    error.retry_after.expect("a hint")
}

#[tokio::test]
async fn who_calls_too_fast_is_told_when_to_come_back_and_is_answered_then() {
    let slow = |settings: &mut Config| {
        settings.serving.max_calls_per_second = 2;
        settings.serving.burst = Duration::from_secs(1);
    };
    let (_server, link, call) = server(slow).await;
    for _ in 0..2 {
        link.api().get_commit_info(call, None).await.unwrap();
    }
    for _ in 0..3 {
        let hint = hint(link.api().get_commit_info(call, None).await.unwrap_err());
        assert!(hint <= Duration::from_millis(500), "{hint:?}");
        // As an honest caller does.
        sleep(hint).await;
        link.api().get_commit_info(call, None).await.unwrap();
    }
}

#[tokio::test]
async fn who_took_more_bytes_than_its_rate_is_told_when_they_are_paid_off() {
    let slow = |settings: &mut Config| {
        settings.serving.max_bytes_per_second = 256 << 10;
        settings.serving.burst = Duration::from_secs(1);
    };
    let (_server, link, call) = server(slow).await;
    let range = CommitRange::new(1, 20).unwrap();
    let mut taken = 0;
    let refused = loop {
        match link.api().fetch_commits(call, range).await {
            Ok(commits) => taken += commits.size(),
            Err(error) => break hint(error),
        }
    };
    assert!(taken > 256 << 10, "{taken} bytes are less than a burst");
    sleep(refused).await;
    link.api().fetch_commits(call, range).await.unwrap();
}

#[tokio::test]
async fn pushes_and_questions_for_peers_are_refused_long_before_other_calls() {
    let (_server, link, call) = server(|_| {}).await;
    let mut pushes = 0;
    let refused = loop {
        match link.api().push_commit(call, 1).await {
            Ok(()) => pushes += 1,
            Err(error) => break hint(error),
        }
        assert!(pushes < 20_000, "a push is never refused");
    };
    assert!(refused <= Duration::from_secs(1), "{refused:?}");
    for _ in 0..100 {
        link.api().get_commit_availability(call).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_syncs_obeys_a_peer_that_serves_slowly_and_gets_everything() {
    let (builder, commits) = chain(40);
    let genesis = builder.genesis().clone();
    let mut settings = config(&[]);
    settings.serving.max_calls_per_second = 10;
    settings.serving.burst = Duration::from_secs(1);
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), settings));
    let mut settings = config(&[&server]);
    settings.discovery.interval = Duration::from_secs(5);
    // Twenty calls and more, of which a burst of ten is answered at once.
    settings.state_sync.commits_per_fetch = 4;
    settings.state_sync.max_workers = 2;
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), settings));
    expect_commits(&fresh, &commits).await;
    let refused = |status: &soma_p2p::Status| status.serving.as_ref().is_some_and(|serving| serving.refused > 0);
    let status = eventually(&server, "it refused some calls", refused).await;
    // Who does not obey is refused hundreds of times in each second.
    let serving = status.serving.unwrap();
    let answered: u64 = serving.answered.values().sum();
    assert!(serving.refused <= answered, "{} refused, {answered} answered", serving.refused);
    assert_eq!(fresh.status().await.banned, []);
}
