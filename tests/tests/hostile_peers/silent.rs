//! Silent peers over real TLS. A request may take an hour here: whoever waited for one to time out would not be done.

use crate::{HONEST, HOSTILE, VICTIM, goes_on, settings};
use soma_p2p::{CertifiedCommit, Config, Genesis};
use soma_testkit::hostile::{Behaviour, Server};
use soma_tests::{TestNode, chain, config, eventually, key, mem_store, node, start};
use std::time::Duration;

/// Commits that there are before silent peers come.
const BEFORE: usize = 30;

fn patient() -> Config {
    let mut settings = settings();
    settings.state_sync.request_timeout = Duration::from_secs(3_600);
    settings
}

async fn silent(genesis: &Genesis, commits: &[CertifiedCommit], count: u8) -> Vec<Server> {
    let mut servers = Vec::new();
    for number in 0..count {
        let (behaviour, own) = (Behaviour::ClaimsInSilence, key(HOSTILE + number));
        servers.push(Server::start(behaviour, &own, genesis, commits, number.into()).await);
    }
    servers
}

fn victim(genesis: &Genesis, has: &[CertifiedCommit], silent: &[Server]) -> TestNode {
    let mut settings = patient();
    settings.seed_peers = silent.iter().map(Server::seed_peer).collect();
    start(node(VICTIM, genesis, mem_store(genesis, has), settings))
}

#[tokio::test]
async fn sync_among_silent_peers_waits_for_no_request_to_time_out() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let servers = silent(genesis, &commits, 4).await;
    let victim = victim(genesis, &[], &servers);
    let asked = |_: &soma_p2p::Status| servers.iter().all(|server| server.acts() > 0);
    eventually(&victim, "all silent peers are asked", asked).await;
    let status = goes_on(&victim, genesis, &commits, &commits).await;
    assert_eq!(status.banned, [], "silence proves nothing");
}

#[tokio::test]
async fn silent_peers_hold_up_no_commit_of_a_node_at_the_head() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let servers = silent(genesis, &commits[..BEFORE], 2).await;
    let victim = victim(genesis, &commits[..BEFORE], &servers);
    let source = start(node(HONEST, genesis, mem_store(genesis, &commits[..BEFORE]), config(&[&victim])));
    for commit in &commits[BEFORE..] {
        source.send_commit(commit.clone()).await.unwrap();
        let index = commit.commit.index;
        eventually(&victim, &format!("commit {index} is here"), |status| status.height >= index).await;
    }
    source.stop().await;
    victim.stop().await;
}
