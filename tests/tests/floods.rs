//! A node that is attacked in every way at once. A test binary of its own: it looks at the memory of the whole process.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // Other tests need other parts of it.
mod attackers;
#[path = "../../crates/network/tests/support/tls.rs"]
#[allow(dead_code)] // This needs a part of it.
mod tls;

use attackers::{Target, for_ever, resident};
use soma_network::TlsTransport;
use soma_protocol::grpc_adapter::Rpc;
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{config, eventually, expect_commits, key, mem_store, node, start};
use soma_types::PeerId;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};

const MIB: usize = 1 << 20;

/// How much the process may grow while it is attacked, beyond what it holds before:
///
/// | what | MiB |
/// |---|---|
/// | what peers can make the attacked node hold | 256 |
/// | the node that syncs meanwhile, in this process: bytes in flight, twice, as it checks them | 128 |
/// | its store: the chain | 64 |
/// | 600 connections and calls of the other ends, allocator | 32 |
///
/// Without bounds, eight connections with 64 streams each, which read nothing, would hold 1,800 MiB of commits alone.
const BUDGET: usize = 480 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_under_all_attacks_at_once_keeps_serving_within_its_memory() {
    let spec = ChainSpec { payload_bytes: 700 << 10, commits_per_epoch: 20, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(16);
    let genesis = builder.genesis().clone();
    let transport = TlsTransport::new(&key(1)).unwrap();
    let transport = transport.with_answer_time(Duration::from_secs(5)).with_loopback_limited();
    let attacked = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])).transport(Arc::new(transport)));
    let target = Target::new(&attacked, builder.chain_id(), &commits);
    let before = resident();

    let mut attacks = JoinSet::new();
    for attacker in 10..18 {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.reads_nothing(attacker).await;
        });
    }
    let ping = b"\0\0\x08\x06\0\0\0\0\0ping1234".as_slice();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x01\0\0".as_slice();
    let reset = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08".as_slice();
    for (attacker, frame) in [(20, ping), (21, settings), (22, reset)] {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.floods(attacker, frame).await;
        });
    }
    let refusals = Arc::new(AtomicU64::new(0));
    for attacker in [30, 31] {
        let refusals = refusals.clone();
        for_ever(&mut attacks, &target, move |target| {
            let refusals = refusals.clone();
            async move { target.hammers(attacker, &refusals).await }
        });
    }
    for_ever(&mut attacks, &target, |target| async move {
        let _ = target.opens_sockets().await;
    });
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    attacks.spawn(async move {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            seen.fetch_max(resident() as u64, Ordering::Relaxed);
        }
    });

    // Whoever is honest is served all the same: several, one after the other.
    for number in [2, 3] {
        let fresh = start(node(number, &genesis, mem_store(&genesis, &[]), config(&[&attacked])));
        expect_commits(&fresh, &commits).await;
        fresh.stop().await;
    }
    let told = timeout(soma_tests::PATIENCE, async {
        while refusals.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
    });
    let told = told.await;
    println!("{} refusals", refusals.load(Ordering::Relaxed));
    told.expect("the hammering peers are told when to come again");
    let whole = eventually(&attacked, "every attack has had its effect", |status| {
        status.serving.as_ref().is_some_and(|serving| serving.answered.get(&Rpc::FetchCommits) > Some(&60))
    });
    whole.await;
    attacks.shutdown().await;

    let grown = (most.load(Ordering::Relaxed) as usize).saturating_sub(before);
    println!("grown by {} MiB of {}", grown / MIB, BUDGET / MIB);
    assert!(grown <= BUDGET, "grown by {} MiB", grown / MIB);
    let status =
        eventually(&attacked, "calls end", |status| status.serving.as_ref().is_some_and(|serving| serving.active == 0));
    let status = status.await;
    println!("{:?}", status.serving);
    let banned: BTreeSet<_> = status.banned.iter().map(|ban| ban.peer).collect();
    assert_eq!(
        banned,
        [20, 21].map(|attacker| PeerId::from(&key(attacker))).into(),
        "those that flood, and nobody else"
    );
    attacked.stop().await;
}
