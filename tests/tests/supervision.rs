//! A real node, with threads, TLS and gRPC, whose actors are made to fail.

use soma_p2p::{
    CertifiedCommit, ChildState, ExitReason, Genesis, Handle, Status,
    testing::{Fault, PlannedFaults},
};
use soma_tests::{PATIENCE, STOP, TestNode, chain, config, eventually, expect_commits, mem_store, node, start};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};
use tokio::time::timeout;

/// Each actor, with an input that it takes in every sync, and the name of its thread.
const EACH_ACTOR: [(&str, &str, &str); 8] = [
    ("verifier", "Submit", "verifier"),
    ("store-writer", "Submit", "store-writer"),
    ("connections", "Dial", "connections"),
    ("discovery", "Answered", "discovery"),
    ("state-sync", "Picked", "state-sync"),
    ("sync-worker", "CommitsFetched", "state-sync"),
    ("peer-heights", "Pick", "peer-heights"),
    ("grpc-adapter", "Arrived", "grpc-adapter"),
];

fn is(input: &dyn fmt::Debug, kind: &str) -> bool {
    let text = format!("{input:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next() == Some(kind)
}

/// Something goes wrong with an actor at its first input of a kind.
fn once(actor: &'static str, kind: &'static str, fault: Fault) -> PlannedFaults {
    let pending = AtomicBool::new(true);
    Arc::new(move |name, input| {
        let due = name == actor && is(input, kind) && pending.swap(false, Ordering::SeqCst);
        due.then(|| fault.clone())
    })
}

fn server(genesis: &Genesis, commits: &[CertifiedCommit]) -> TestNode {
    start(node(1, genesis, mem_store(genesis, commits), config(&[])))
}

/// Nobody pays for what went wrong in this node.
fn expect_nobody_is_blamed(status: &Status) {
    assert_eq!(status.banned, []);
    for peer in &status.peers {
        assert!(peer.serving.as_ref().is_none_or(|serving| serving.score == 100), "{peer:?}");
    }
}

/// A handler that does not return before what this gives is dropped.
fn blocked() -> (Fault, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    // A receiver is not `Sync`, and the one handler that waits takes it out.
    let released = std::sync::Mutex::new(Some(released));
    let wait = move || {
        let receiver = released.lock().ok().and_then(|mut slot| slot.take());
        if let Some(receiver) = receiver {
            // The error is that the sender was dropped.
            let _ = receiver.recv();
        }
    };
    (Fault::Block(Arc::new(wait)), release)
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_handler_of_any_actor_is_replaced_and_its_thread_is_named() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let server = server(&genesis, &commits);
    let mut nodes = Vec::new();
    for (number, (actor, kind, thread)) in (10..).zip(EACH_ACTOR) {
        let (fault, release) = blocked();
        let builder = node(number, &genesis, mem_store(&genesis, &[]), config(&[&server]));
        let system = builder.faults(once(actor, kind, fault)).start().unwrap();
        nodes.push((actor, thread, system, release));
    }
    for (actor, thread, system, _) in &nodes {
        expect_commits(system, &commits).await;
        let killed = |status: &Status| {
            let exit = status.tree.find(thread).and_then(|child| child.last_exit.clone());
            matches!(exit, Some(ExitReason::Killed(_)))
        };
        let status = eventually(system, actor, killed).await;
        let Some(ExitReason::Killed(reason)) = &status.tree.find(thread).unwrap().last_exit else { unreachable!() };
        assert!(reason.contains(&format!("its thread is blocked: {actor} is handling")), "{reason}");
        expect_nobody_is_blamed(&status);
    }
    for (actor, _, system, release) in nodes {
        let report = system.shutdown(STOP).await;
        assert_eq!(report.overdue, Vec::<String>::new(), "{actor}");
        assert!(!report.leaked.is_empty(), "the blocked thread of {actor} is left, and the report says so");
        drop(release);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn actor_that_always_fails_stops_the_system_with_the_full_history() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis().clone();
    let faults: PlannedFaults =
        Arc::new(|name, _| (name == "discovery").then(|| Fault::Error("no address book".into())));
    let mut system = node(2, &genesis, mem_store(&genesis, &[]), config(&[])).faults(faults).start().unwrap();
    let handle: Handle = system.handle();
    let report = timeout(PATIENCE, system.failed()).await.unwrap();
    let fatal = report.fatal.unwrap().to_string();
    assert_eq!(fatal, "network does not stay up: it failed: discovery does not stay up: it failed: no address book");
    assert_eq!((report.overdue, report.leaked), (vec![], vec![]));
    let status = handle.status().await;
    assert_eq!(status.fatal, Some(fatal));
    assert_eq!(status.tree.find("network").unwrap().state, ChildState::GivenUp);
    assert!(!status.is_alive() && !status.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_connections_drops_unknown_connections_and_reconnects() {
    let (builder, commits) = chain(5);
    let genesis = builder.genesis().clone();
    let panic = Fault::Panic("on purpose".into());
    let hub = node(1, &genesis, mem_store(&genesis, &commits), config(&[]));
    let hub = start(hub.faults(once("connections", "InboundClosed", panic)));
    let staying = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&hub])));
    let leaving = start(node(3, &genesis, mem_store(&genesis, &[]), config(&[&hub])));
    let inbound = |status: &Status, count: usize| status.peers.iter().filter(|peer| peer.inbound).count() == count;
    eventually(&hub, "two peers", |status| inbound(status, 2)).await;
    leaving.stop().await;
    // Its connection ends, which is what Connections panics at.
    let restarted = |status: &Status| status.tree.find("connections").unwrap().restarts == 1 && inbound(status, 1);
    let status = eventually(&hub, "connections restarted, and its peer back", restarted).await;
    assert_eq!(status.tree.find("discovery").unwrap().restarts, 1, "it relies on connections");
    assert_eq!(status.tree.find("peer-heights").unwrap().restarts, 0);
    expect_nobody_is_blamed(&status);
    expect_commits(&staying, &commits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_survives_the_restart_of_the_grpc_adapter() {
    let (builder, commits) = chain(40);
    let genesis = builder.genesis().clone();
    let panic = Fault::Panic("on purpose".into());
    let hub = node(1, &genesis, mem_store(&genesis, &commits), config(&[]));
    let hub = start(hub.faults(once("grpc-adapter", "Finished", panic)));
    let address = hub.address().clone();
    let follower = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&hub])));
    expect_commits(&follower, &commits).await;
    let restarted = |status: &Status| status.tree.find("grpc-adapter").unwrap().restarts == 1;
    let status = eventually(&hub, "the adapter is restarted", restarted).await;
    assert_eq!(status.address, address);
    let late = start(node(3, &genesis, mem_store(&genesis, &[]), config(&[&hub])));
    expect_commits(&late, &commits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_had_verified_when_it_died_is_not_fetched_again() {
    let (builder, commits) = chain(15);
    let genesis = builder.genesis().clone();
    let blocks: usize = commits.iter().map(|commit| commit.blocks.len()).sum();
    for fault in [Fault::Panic("on purpose".into()), Fault::Error("on purpose".into())] {
        let server = server(&genesis, &commits);
        // By then every block of the range has been verified.
        let faults = once("sync-worker", "SubDagsChecked", fault);
        let client = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).faults(faults));
        expect_commits(&client, &commits).await;
        let status = client.status().await;
        assert_eq!(status.state_sync.as_ref().unwrap().worker_failures, 1);
        expect_nobody_is_blamed(&status);
        // A call counts when its answer has been read to the end.
        let all_counted = |status: &Status| status.serving.as_ref().is_some_and(|serving| serving.active == 0);
        let serving = eventually(&server, "no call under way", all_counted).await.serving.unwrap();
        assert_eq!(serving.blocks_sent, blocks as u64, "each block was sent once");
    }
}
