//! What strangers can make a node hold, with the largest blocks, over TLS. A test binary of its own: it looks at the
//! memory of the whole process.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // Other tests need other parts of it.
mod attackers;
#[path = "../../crates/network/tests/support/tls.rs"]
#[allow(dead_code)] // This needs a part of it.
mod tls;

use attackers::{Target, for_ever, resident};
use soma_p2p::PeerMemoryStatus;
use soma_protocol::grpc_adapter::Rpc;
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{config, eventually, key, mem_store, node, start};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::interval};

const MIB: usize = 1 << 20;

/// Identities that attack, with two connections each, of 64 calls each.
const ATTACKERS: u8 = 8;

/// What the process may grow by: the budget. The attackers' ends of the connections are in it, too, and hold next to
/// nothing.
const MOST: usize = 256 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_largest_answers_stay_within_budget_and_are_released() {
    let spec = ChainSpec { payload_bytes: 900 << 10, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(24);
    let genesis = builder.genesis().clone();
    let attacked = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let target = Target::new(&attacked, builder.chain_id(), &commits);
    give_back();
    let before = resident();

    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let looking = tokio::spawn(async move {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            seen.fetch_max(resident() as u64, Ordering::Relaxed);
        }
    });
    let mut attacks = JoinSet::new();
    for connection in 0..2 * ATTACKERS {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.reads_nothing(10 + connection / 2).await;
        });
    }
    let held =
        |memory: &PeerMemoryStatus| memory.connections + memory.handshakes + memory.known_peers + memory.unread_answers;
    eventually(&attacked, "answers are left unread as far as they can be", |status| {
        let memory = status.peer_memory.as_ref().expect("the transport counts");
        assert!(held(memory) <= memory.budget, "{memory:?}");
        let answered = status.serving.as_ref().and_then(|serving| serving.answered.get(&Rpc::FetchBlocks).copied());
        memory.unread_answers > 80 * MIB as u64 || answered > Some(2_000)
    })
    .await;
    eventually(&attacked, "streams end, and others begin", |status| {
        status.serving.as_ref().is_some_and(|serving| serving.answered.get(&Rpc::FetchBlocks) > Some(&500))
    })
    .await;
    attacks.shutdown().await;
    let grown = (most.load(Ordering::Relaxed) as usize).saturating_sub(before);
    println!("{} MiB before, grown by at most {} MiB", before / MIB, grown / MIB);
    assert!(grown <= MOST, "grown by {} MiB", grown / MIB);

    eventually(&attacked, "nothing is held", |status| {
        status.peer_memory.is_some_and(|memory| (memory.connections, memory.unread_answers) == (0, 0))
    })
    .await;
    looking.abort();
    give_back();
    let after = resident();
    println!("{} MiB after", after / MIB);
    assert!(2 * after <= 3 * before, "{} MiB before, {} MiB after", before / MIB, after / MIB);
    attacked.stop().await;
}

/// Does what the command does every 30 s, and what the documents tell embedders to do.
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: it locks each arena, and gives back only pages of which no byte is in use.
    unsafe { libc::malloc_trim(0) };
}
