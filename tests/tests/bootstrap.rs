//! A node that finds no place in the network says what is wrong, each in its own words, and goes on trying: over real
//! TLS.

use soma_p2p::{
    Address, Genesis, Handle, PeerId, SeedPeer, Status,
    testing::{Clock, LocalResources, LocalSystem, RuntimeContext},
};
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{STOP, TestNode, chain, config, eventually, key, mem_store, node, seed_peer, start};
use std::{
    net::TcpListener,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::watch, task::LocalSet};

/// Where nobody listens, as the system has just said.
fn free_address() -> Address {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    soma_testkit::address_of(socket.local_addr().unwrap())
}

fn server(number: u8, genesis: &Genesis) -> TestNode {
    start(node(number, genesis, mem_store(genesis, &[]), config(&[])))
}

fn beginner(genesis: &Genesis, seeds: Vec<SeedPeer>) -> TestNode {
    let mut settings = config(&[]);
    settings.seed_peers = seeds;
    start(node(2, genesis, mem_store(genesis, &[]), settings))
}

/// Waits until the node says that this is wrong, in all of these words.
async fn says(node: &Handle, trouble: &str, words: &[&str]) -> Status {
    let status = eventually(node, trouble, |status| status.network_trouble.as_deref() == Some(trouble)).await;
    let said = status.network_explanation.clone().unwrap();
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
    status
}

/// The same of a node without any connection, whose sync gives it for its cause and tells of it.
async fn says_alone(node: &Handle, trouble: &str, words: &[&str]) {
    let status = says(node, trouble, words).await;
    assert_eq!(status.cause.as_deref(), Some(trouble));
    let whole = format!("commit 1 is next, but not connected to any peer: {}", status.network_explanation.unwrap());
    assert_eq!(status.explanation, whole);
}

async fn has_its_place(node: &Handle) {
    let in_order = |status: &Status| status.network_trouble.is_none() && !status.peers.is_empty();
    let status = eventually(node, "the trouble is over", in_order).await;
    assert_eq!(status.network_explanation, None);
}

#[tokio::test]
async fn a_node_without_seeds_that_knows_nobody_says_so() {
    let (builder, _) = chain(0);
    let alone = beginner(builder.genesis(), vec![]);
    says_alone(&alone, "nobody-known", &["no seed peer is configured", "waits for others to connect"]).await;
    let genesis = builder.genesis();
    let other = start(node(3, genesis, mem_store(genesis, &[]), config(&[&alone])));
    has_its_place(&alone).await;
    other.stop().await;
}

#[tokio::test]
async fn node_with_seeds_down_names_them_and_connects_when_one_is_up() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let [late, never] = [1, 9].map(|number| SeedPeer { peer_id: PeerId::from(&key(number)), address: free_address() });
    let node_under_test = beginner(genesis, vec![late.clone(), never.clone()]);
    let ids = [late.peer_id.short(), never.peer_id.short()];
    let words = ["no seed peer can be reached", &ids[0], &ids[1], late.address.as_str(), "refused"];
    says_alone(&node_under_test, "seeds-unreachable", &words).await;
    let mut settings = config(&[]);
    settings.listen = late.address.to_string().parse().unwrap();
    let seed = start(node(1, genesis, mem_store(genesis, &[]), settings));
    has_its_place(&node_under_test).await;
    seed.stop().await;
    says(&node_under_test, "seeds-unreachable", &["no seed peer can be reached"]).await;
}

#[tokio::test]
async fn a_node_whose_seeds_are_on_another_chain_is_told_to_check_its_genesis() {
    let (builder, _) = chain(0);
    let others = ChainBuilder::new(ChainSpec { seed: 77, ..ChainSpec::default() }).unwrap();
    assert_ne!(others.genesis().chain_id(), builder.genesis().chain_id());
    let seed = server(1, others.genesis());
    let dead = SeedPeer { peer_id: PeerId::from(&key(9)), address: free_address() };
    // One that does not answer at all says nothing of the chain.
    let node = beginner(builder.genesis(), vec![seed_peer(&seed), dead]);
    let words = ["on another chain", "check its genesis file", &seed.peer_id().short()];
    says_alone(&node, "seeds-on-other-chain", &words).await;
}

#[tokio::test]
async fn a_node_that_was_told_a_wrong_key_of_its_seed_says_which_one_answers() {
    let (builder, _) = chain(0);
    let seed = server(1, builder.genesis());
    let told = SeedPeer { peer_id: PeerId::from(&key(9)), address: seed.address().clone() };
    let node = beginner(builder.genesis(), vec![told.clone()]);
    let found = seed.peer_id().to_string();
    let words = ["other keys than this node was told", "check the ids", &told.peer_id.short(), &found];
    says_alone(&node, "seeds-have-other-keys", &words).await;
}

/// A node on the current thread whose clock is ahead by so many milliseconds, and what ends it.
async fn with_clock_off(ahead_ms: i64, genesis: &Genesis, seed: &Handle) -> (LocalSystem, watch::Sender<Duration>) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let runtime_context = RuntimeContext::new(Clock::simulated(now_ms.saturating_add_signed(ahead_ms)));
    let (disk, disk_time) = watch::channel(Duration::ZERO);
    let builder = soma_tests::node_with_key(key(2), genesis, mem_store(genesis, &[]), config(&[seed]));
    (builder.start_local(LocalResources { runtime_context, disk_time, check_threads: None }).await.unwrap(), disk)
}

#[tokio::test]
async fn a_node_whose_clock_is_off_by_more_than_30_seconds_says_by_how_much() {
    let (builder, _) = chain(0);
    let seed = server(1, builder.genesis());
    for (ahead_ms, direction) in [(45_000, "ahead of"), (-75_000, "behind")] {
        let on_this_thread = LocalSet::new();
        let looked_at = async {
            let (node, _disk) = with_clock_off(ahead_ms, builder.genesis(), &seed).await;
            let words = [&format!("s {direction} those of 1 peers"), "check its time service"];
            let said = says(&node.handle(), "clock-off", &words).await.network_explanation.unwrap();
            let seconds: i64 = said.split(' ').find_map(|word| word.parse().ok()).unwrap();
            // To what the answer took on its way.
            assert!((ahead_ms.abs() / 1_000 - seconds).abs() < 10, "{said}");
            assert_eq!(node.shutdown(STOP).await.overdue, [""; 0]);
        };
        on_this_thread.run_until(looked_at).await;
    }
}

#[tokio::test]
async fn a_node_that_nobody_can_dial_says_so_and_where_they_tried() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let seed = server(1, genesis);
    // A seed that reaches nobody at all blames nobody.
    let third = start(node(3, genesis, mem_store(genesis, &[]), config(&[&seed])));
    eventually(&seed, "it has a link", |status| status.peers.iter().any(|peer| peer.outbound)).await;
    let dead = free_address();
    let mut settings = config(&[&seed]);
    settings.external_addresses = vec![dead.clone()];
    let hidden = start(node(2, genesis, mem_store(genesis, &[]), settings));
    let status = says(&hidden, "unreachable", &[dead.as_str(), "could connect", "check external_addresses"]).await;
    assert!(status.peers.iter().any(|peer| peer.outbound), "it is connected all the same");
    third.stop().await;
}

#[tokio::test]
async fn a_node_that_can_be_dialled_has_nothing_to_say() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let seed = server(1, genesis);
    let node = beginner(genesis, vec![seed_peer(&seed)]);
    let both_ways = |status: &Status| status.peers.iter().any(|peer| peer.inbound && peer.outbound);
    let status = eventually(&node, "dialled and dialling", both_ways).await;
    assert_eq!((status.network_trouble, status.network_explanation), (None, None));
    assert_eq!(status.discovery.unwrap().addresses, [node.address().clone()]);
}
