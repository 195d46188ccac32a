//! Peers that an operator chooses, disconnects and bans while the node runs: over TLS and gRPC, through the handle.

use soma_p2p::{
    Config, LostReason, PeerEvent, PeerEvents, PeerId, PeerManagementError, Status, Store,
    testing::{Fault, PlannedFaults},
};
use soma_tests::{PATIENCE, TestNode, chain, config, eventually, mem_store, node, seed_peer, start};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A node that nobody told of any other.
fn alone(key: u8) -> TestNode {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    start(node(key, &genesis, mem_store(&genesis, &[]), config(&[])))
}

fn has_link(peer: PeerId) -> impl Fn(&Status) -> bool {
    move |status| status.peers.iter().any(|status| status.peer_id == peer && status.outbound)
}

fn is_trusted(peer: PeerId, trusted: bool) -> impl Fn(&Status) -> bool {
    move |status| status.peers.iter().any(|status| status.peer_id == peer && status.trusted == trusted)
}

async fn next_event(events: &mut PeerEvents) -> PeerEvent {
    let event = timeout(PATIENCE, events.next()).await.expect("an event in time");
    event.expect("the stream goes on").expect("no event is missed")
}

/// Waits until the stream tells of the link to the peer. It tells of the end of such a link only.
async fn connected(events: &mut PeerEvents, peer: PeerId) {
    while next_event(events).await != PeerEvent::Connected(peer) {}
}

/// The next loss of the link to the peer.
async fn lost(events: &mut PeerEvents, lost: PeerId) -> LostReason {
    loop {
        if let PeerEvent::Lost { peer, reason } = next_event(events).await
            && peer == lost
        {
            return reason;
        }
    }
}

#[tokio::test]
async fn a_seed_added_at_run_time_is_dialled() {
    let (server, client) = (alone(1), alone(2));
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&client, "the seed is linked", has_link(server.peer_id())).await;
}

#[tokio::test]
async fn a_seed_added_at_run_time_is_dialled_after_discovery_was_restarted() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let server = alone(1);
    let panics = Arc::new(AtomicBool::new(false));
    let due = panics.clone();
    let faults: PlannedFaults = Arc::new(move |actor, _| {
        let due = actor == "discovery" && due.swap(false, Ordering::SeqCst);
        due.then(|| Fault::Panic("on purpose".into()))
    });
    let client = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[])).faults(faults));
    // The change itself makes Discovery fail: the handle hands it to the next Discovery.
    panics.store(true, Ordering::SeqCst);
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&client, "the seed is linked", has_link(server.peer_id())).await;
    let restarts = |status: &Status| status.tree.actors().iter().any(|actor| actor.restarts > 0);
    eventually(&client, "Discovery was restarted", restarts).await;
}

#[tokio::test]
async fn a_removed_seed_keeps_its_link() {
    let (server, client) = (alone(1), alone(2));
    let peer = server.peer_id();
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&client, "the seed is linked", has_link(peer)).await;
    client.remove_seed(peer).await.unwrap();
    assert!(has_link(peer)(&client.status().await));
    client.add_seed(seed_peer(&server)).await.unwrap();
    assert!(has_link(peer)(&client.status().await));
}

#[tokio::test]
async fn a_peer_is_trusted_from_the_moment_it_is_added_until_it_is_removed() {
    let (server, client) = (alone(1), alone(2));
    let peer = server.peer_id();
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&client, "the seed is linked", has_link(peer)).await;
    assert!(is_trusted(peer, false)(&client.status().await));
    client.add_trusted_peer(peer).await.unwrap();
    assert!(is_trusted(peer, true)(&client.status().await));
    client.remove_trusted_peer(peer).await.unwrap();
    assert!(is_trusted(peer, false)(&client.status().await));
}

#[tokio::test]
async fn a_disconnected_peer_comes_back() {
    let (server, client) = (alone(1), alone(2));
    let peer = server.peer_id();
    let mut events = client.peer_events();
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&client, "the seed is linked", has_link(peer)).await;
    connected(&mut events, peer).await;
    client.disconnect_peer(peer).await.unwrap();
    assert_eq!(lost(&mut events, peer).await, LostReason::Disconnected);
    eventually(&client, "the seed is linked again", has_link(peer)).await;
}

#[tokio::test]
async fn banned_peer_stays_out_after_a_restart_until_the_ban_is_lifted() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let server = alone(1);
    let peer = server.peer_id();
    let store = mem_store(&genesis, &[]);
    let client = start(node(2, &genesis, store.clone(), config(&[&server])));
    eventually(&client, "the seed is linked", has_link(peer)).await;
    let mut events = client.peer_events();
    connected(&mut events, peer).await;
    client.ban_peer(peer, DAY, "on purpose").await.unwrap();
    assert_eq!(lost(&mut events, peer).await, LostReason::Banned);
    drop(events);
    let saved = |_: &Status| !store.peers(soma_p2p::PeerList::Standings).unwrap().is_empty();
    eventually(&client, "the ban is stored", saved).await;
    client.stop().await;

    let client = start(node(2, &genesis, store, config(&[&server])));
    let banned = |status: &Status| status.is_banned(peer);
    eventually(&client, "the ban still holds", banned).await;
    assert!(!has_link(peer)(&client.status().await));
    client.unban_peer(peer).await.unwrap();
    eventually(&client, "the peer is linked again", has_link(peer)).await;
}

#[tokio::test]
async fn a_change_that_cannot_be_is_refused_with_the_reason() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let denied = PeerId([7; 32]);
    let mut denies = config(&[]);
    denies.connections.denylist = vec![denied];
    let client = start(node(2, &genesis, mem_store(&genesis, &[]), denies));
    let (own, trusted) = (client.peer_id(), PeerId([8; 32]));
    assert_eq!(client.add_seed(seed_peer(&client)).await, Err(PeerManagementError::ThisNode(own)));
    assert_eq!(client.ban_peer(own, DAY, "").await, Err(PeerManagementError::ThisNode(own)));
    assert_eq!(client.add_trusted_peer(denied).await, Err(PeerManagementError::Denied(denied)));
    client.add_trusted_peer(trusted).await.unwrap();
    assert_eq!(client.ban_peer(trusted, DAY, "").await, Err(PeerManagementError::Trusted(trusted)));
    let handle = client.handle();
    client.stop().await;
    assert_eq!(handle.unban_peer(trusted).await, Err(PeerManagementError::Stopped));
}

#[tokio::test]
async fn peers_given_to_the_builder_join_those_of_the_configuration() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let (first, second) = (alone(1), alone(3));
    let client = node(2, &genesis, mem_store(&genesis, &[]), Config::default());
    let client = start(client.seed_peer(seed_peer(&second)).trusted_peer(second.peer_id()).config(config(&[&first])));
    eventually(&client, "the configured seed is linked", has_link(first.peer_id())).await;
    eventually(&client, "the added seed is linked", has_link(second.peer_id())).await;
    assert!(is_trusted(second.peer_id(), true)(&client.status().await));
}
