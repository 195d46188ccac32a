//! Who is connected, whom a node trusts, and how the node that embeds it hears of peers.

use soma_p2p::{
    Handle, LostReason, PeerEvent, PeerEvents, PeerId, Status,
    testing::{Fault, PlannedFaults},
};
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{PATIENCE, chain, config, eventually, expect_commits, mem_store, node, node_with_key, start};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tokio::time::timeout;

async fn next(events: &mut PeerEvents) -> PeerEvent {
    let event = timeout(PATIENCE, events.next()).await.expect("an event in time");
    event.expect("the stream goes on").expect("no gap")
}

/// Has Connections panic at its next input once `now` is set, and unsets it.
fn panics_when(now: &Arc<AtomicBool>) -> PlannedFaults {
    let now = now.clone();
    Arc::new(move |actor, _| {
        let due = actor == "connections" && now.swap(false, Ordering::SeqCst);
        due.then(|| Fault::Panic("on purpose".into()))
    })
}

fn is_trusted(status: &Status, peer: &Handle) -> Option<bool> {
    let peers = status.peers.iter().filter(|status| status.outbound);
    peers.into_iter().find(|status| status.peer_id == peer.peer_id()).map(|status| status.trusted)
}

#[tokio::test]
async fn peer_events_begin_with_connected_peers_and_report_every_change() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let client = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])));
    let peer = server.peer_id();
    let mut first = client.peer_events();
    assert_eq!(next(&mut first).await, PeerEvent::Connected(peer));
    let mut late = client.peer_events();
    assert_eq!(next(&mut late).await, PeerEvent::Connected(peer));
    server.stop().await;
    for events in [&mut first, &mut late] {
        assert_eq!(next(events).await, PeerEvent::Lost { peer, reason: LostReason::Closed });
    }
    let handle = client.handle();
    client.stop().await;
    assert_eq!(timeout(PATIENCE, first.next()).await.expect("an end"), None);
    assert_eq!(timeout(PATIENCE, handle.peer_events().next()).await.expect("an end"), None);
}

#[test]
fn peer_events_need_no_async_runtime() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let client = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])));
    let mut events = client.peer_events();
    let reader = thread::spawn(move || events.blocking_next());
    assert_eq!(reader.join().unwrap(), Some(Ok(PeerEvent::Connected(server.peer_id()))));
}

#[tokio::test]
async fn restart_of_connections_reports_every_link_as_lost() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &[]), config(&[])));
    let panics = Arc::new(AtomicBool::new(false));
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).faults(panics_when(&panics));
    let client = start(client);
    let peer = server.peer_id();
    let mut events = client.peer_events();
    assert_eq!(next(&mut events).await, PeerEvent::Connected(peer));
    panics.store(true, Ordering::SeqCst);
    // Two nodes that know each other: somebody asks Connections for something soon.
    let third = start(node(3, &genesis, mem_store(&genesis, &[]), config(&[&client])));
    assert_eq!(next(&mut events).await, PeerEvent::Lost { peer, reason: LostReason::Restarted });
    let mut again = vec![next(&mut events).await];
    while !again.contains(&PeerEvent::Connected(peer)) {
        again.push(next(&mut events).await);
    }
    let known = |event: &PeerEvent| matches!(event, PeerEvent::Connected(id) if [peer, third.peer_id()].contains(id));
    assert!(again.iter().all(known), "{again:?}");
}

#[tokio::test]
async fn next_epochs_validators_are_trusted_at_handover_and_last_ones_stay() {
    let spec = ChainSpec { commits_per_epoch: 20, network_keys_change: true, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(30);
    let genesis = builder.genesis().clone();
    let of_epoch = |epoch| {
        let store = mem_store(&genesis, &commits[..10]);
        start(node_with_key(builder.network_key_in(epoch, 1), &genesis, store, config(&[])))
    };
    let (last, next) = (of_epoch(0), of_epoch(1));
    assert_ne!(last.peer_id(), next.peer_id());
    let panics = Arc::new(AtomicBool::new(false));
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&last, &next])).faults(panics_when(&panics));
    let client = start(client);
    expect_commits(&client, &commits[..10]).await;
    let trusts = |trusted: &Handle, other: &Handle| {
        let [trusted, other] = [trusted, other].map(Clone::clone);
        move |status: &Status| is_trusted(status, &trusted) == Some(true) && is_trusted(status, &other) == Some(false)
    };
    eventually(&client, "the first validators are trusted", trusts(&last, &next)).await;
    let mut events = client.peer_events();
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(Ok(PeerEvent::Connected(_)))));
    }
    for commit in &commits[10..] {
        next.send_commit(commit.clone()).await.unwrap();
    }
    expect_commits(&client, &commits).await;
    eventually(&client, "the next validators are trusted", trusts(&next, &last)).await;
    // A Connections that is made anew asks for them.
    panics.store(true, Ordering::SeqCst);
    let lost: PeerId = match timeout(PATIENCE, events.next()).await.expect("an event") {
        Some(Ok(PeerEvent::Lost { peer, reason: LostReason::Restarted })) => peer,
        other => panic!("{other:?}: nobody was cut off at the handover"),
    };
    assert!([last.peer_id(), next.peer_id()].contains(&lost));
    eventually(&client, "they are trusted again", trusts(&next, &last)).await;
}
