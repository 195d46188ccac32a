//! Strangers that take all they can get of a node: others are served as if there were none.

#[allow(dead_code)] // Other tests need other parts of it.
mod attackers;
#[path = "../../crates/network/tests/support/tls.rs"]
#[allow(dead_code)] // This needs a part of it.
mod tls;

use attackers::{Target, for_ever};
use soma_network::wire::{Call, CommitRange, Status};
use soma_network::{Link, TlsTransport, Transport};
use soma_protocol::grpc_adapter::Rpc;
use soma_testkit::{ChainBuilder, ChainSpec, address_of};
use soma_tests::{config, eventually, expect_commits, key, mem_store, node, start};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// Identities of those who attack, each with two connections: as many as a peer may have.
const ATTACKERS: u8 = 4;

/// Calls of each kind that an honest newcomer makes.
const CALLS: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_read_no_answers_cause_no_refusal_of_honest_calls() {
    let spec = ChainSpec { payload_bytes: 4 << 10, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(200);
    let genesis = builder.genesis().clone();
    let attacked = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let target = Target::new(&attacked, builder.chain_id(), &commits);
    let mut attacks = JoinSet::new();
    for connection in 0..2 * ATTACKERS {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.reads_nothing(10 + connection / 2).await;
        });
    }
    let taken = |status: &soma_p2p::Status| status.serving.as_ref().is_some_and(|serving| serving.refused > 100);
    eventually(&attacked, "strangers have all places that they get", taken).await;

    // A newcomer, which nobody knows.
    let transport = TlsTransport::new(&key(50)).unwrap();
    let address = address_of(target.address());
    let link = transport.dial(attacked.peer_id(), &address, Duration::from_secs(5)).await.unwrap();
    let call = |timeout| Call { peer: attacked.peer_id(), chain: Some(builder.chain_id()), remote: None, timeout };
    let call = call(Duration::from_secs(20));
    for number in 0..CALLS {
        calls(&link, call, number).await;
    }
    // And one that syncs.
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&attacked])));
    expect_commits(&fresh, &commits).await;
    fresh.stop().await;
    attacks.shutdown().await;
    let ended = |status: &soma_p2p::Status| status.serving.as_ref().is_some_and(|serving| serving.active == 0);
    eventually(&attacked, "calls end", ended).await;
    attacked.stop().await;
}

/// Identities that make cheap calls without end.
const CALLERS: u8 = 20;

/// Frames in a second that the node reads from all strangers together. A call has one: the data that follows does not
/// count.
const FRAMES_PER_SECOND: u64 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_flood_calls_are_slowed_and_honest_calls_are_answered() {
    let mut builder = ChainBuilder::new(ChainSpec::default()).unwrap();
    let commits = builder.build(200);
    let genesis = builder.genesis().clone();
    let attacked = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let target = Target::new(&attacked, builder.chain_id(), &commits);
    let mut attacks = JoinSet::new();
    let began = Instant::now();
    for attacker in 0..CALLERS {
        for_ever(&mut attacks, &target, move |target| async move { target.calls_without_end(10 + attacker).await });
    }
    let answered = |status: &soma_p2p::Status| {
        status.serving.as_ref().and_then(|serving| serving.answered.get(&Rpc::GetCommitInfo).copied()).unwrap_or(0)
    };
    eventually(&attacked, "they are answered", |status| answered(status) > 2 * FRAMES_PER_SECOND).await;

    let transport = TlsTransport::new(&key(50)).unwrap();
    let address = address_of(target.address());
    let link = transport.dial(attacked.peer_id(), &address, Duration::from_secs(5)).await.unwrap();
    let timeout = Duration::from_secs(20);
    let call = Call { peer: attacked.peer_id(), chain: Some(builder.chain_id()), remote: None, timeout };
    for number in 0..CALLS / 5 {
        answered_call(&link, call, number).await;
    }
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), config(&[&attacked])));
    expect_commits(&fresh, &commits).await;
    fresh.stop().await;
    let status = attacked.handle().status().await;
    // What each of them may send at once, and what all may send since.
    let most = (began.elapsed().as_secs() + 2) * FRAMES_PER_SECOND;
    assert!(answered(&status) < most, "{} calls in {:?}", answered(&status), began.elapsed());
    attacks.shutdown().await;
    attacked.stop().await;
}

/// Attempts of one honest call. On a busy machine the strangers' calls may hold every place at a moment.
const ATTEMPTS: usize = 10;

/// A call that is answered, soon after a refusal at the latest.
async fn answered_call(link: &Link, call: Call, number: u32) {
    let mut refused = Vec::new();
    while refused.len() < ATTEMPTS {
        match link.api().get_commit_info(call, Some(number)).await {
            Ok(_) => return,
            Err(error) if error.status == Status::ResourceExhausted => {
                tokio::time::sleep(error.retry_after.unwrap()).await;
                refused.push(error);
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{refused:?}");
}

/// One call of each kind, none of which is refused.
async fn calls(link: &Link, call: Call, number: u32) {
    let api = link.api();
    api.get_commit_info(call, Some(number)).await.unwrap();
    api.get_commit_availability(call).await.unwrap();
    api.push_commit(call, number).await.unwrap();
    let range = CommitRange::new(1 + number, 2 + number).unwrap();
    let answer = api.fetch_commits(call, range).await.unwrap();
    assert_eq!(answer.commits.len(), 2);
}
