//! Peers that lie, beside one that does not: the sync goes on, the liar pays, the honest one does not.

use soma_p2p::{CertifiedCommit, Genesis, PeerStatus, Status};
use soma_testkit::flip_bit;
use soma_tests::{
    chain, config, eventually, expect_commits, key, mem_store, node,
    peer::{Behaviour, serve},
    start,
};
use soma_types::{CommitDigest, PeerId};
use soma_wire::{Availability, CallError};

const LIAR: u8 = 66;

/// A fresh node that knows only a peer which behaves as told, until `noticed`; then an honest one turns up, and the
/// fresh node syncs. Returns its status after.
async fn sync_despite(
    commits: &[CertifiedCommit],
    genesis: &Genesis,
    behaviour: Behaviour,
    noticed: fn(&Status) -> bool,
) -> Status {
    let (_listener, liar) = serve(LIAR, genesis, commits, behaviour).await;
    let mut settings = config(&[]);
    settings.seed_peers.push(liar);
    settings.state_sync.commits_per_fetch = 4;
    let fresh = start(node(2, genesis, mem_store(genesis, &[]), settings));
    eventually(&fresh, "the peer's behaviour is noticed", noticed).await;

    let honest = start(node(1, genesis, mem_store(genesis, commits), config(&[&fresh])));
    expect_commits(&fresh, commits).await;
    let honest_id = honest.peer_id();
    let connected =
        |status: &Status| status.peers.iter().any(|peer| peer.peer_id == honest_id && peer.serving.is_some());
    let status = eventually(&fresh, "connected to the honest peer", connected).await;
    let honest = status.peers.iter().find(|peer| peer.peer_id == honest_id).unwrap();
    assert_eq!(honest.serving.as_ref().unwrap().score, 100, "honest peers never pay");
    status
}

fn is_banned(status: &Status) -> bool {
    status.banned == [PeerId::from(&key(LIAR))]
}

/// It was asked, and failed in a way that proves nothing.
fn is_doubted(status: &Status) -> bool {
    let liar = PeerId::from(&key(LIAR));
    let failed = |peer: &PeerStatus| peer.serving.as_ref().is_some_and(|serving| serving.failures > 0);
    status.peers.iter().any(|peer| peer.peer_id == liar && failed(peer))
}

async fn is_banned_and_the_sync_goes_on(behaviour: Behaviour) {
    let (builder, commits) = chain(120);
    let status = sync_despite(&commits, builder.genesis(), behaviour, is_banned).await;
    assert!(is_banned(&status), "{:?}", status.banned);
}

async fn is_doubted_and_the_sync_goes_on(behaviour: Behaviour) {
    let (builder, commits) = chain(60);
    let status = sync_despite(&commits, builder.genesis(), behaviour, is_doubted).await;
    assert_eq!(status.banned, [], "no proof, no ban");
}

#[tokio::test]
async fn a_peer_that_changes_blocks_is_banned_and_the_sync_goes_on() {
    let behaviour = Behaviour {
        blocks: |blocks| Ok(blocks.iter().map(|block| flip_bit(block, 300)).collect()),
        ..Behaviour::default()
    };
    is_banned_and_the_sync_goes_on(behaviour).await;
}

#[tokio::test]
async fn a_peer_that_changes_commits_is_banned_and_the_sync_goes_on() {
    let behaviour = Behaviour {
        commits: |mut fetched| {
            let last = fetched.commits.len() - 1;
            fetched.commits[last] = flip_bit(&fetched.commits[last], 8 * 40);
            Ok(fetched)
        },
        ..Behaviour::default()
    };
    is_banned_and_the_sync_goes_on(behaviour).await;
}

#[tokio::test]
async fn a_peer_that_withholds_or_forges_votes_is_banned_and_the_sync_goes_on() {
    let withholds = Behaviour {
        commits: |mut fetched| {
            fetched.certifier_blocks.truncate(1);
            Ok(fetched)
        },
        ..Behaviour::default()
    };
    is_banned_and_the_sync_goes_on(withholds).await;
    let forges = Behaviour {
        commits: |mut fetched| {
            // The signature is at the end.
            let block = &fetched.certifier_blocks[0];
            fetched.certifier_blocks[0] = flip_bit(block, block.len() * 8 - 500);
            Ok(fetched)
        },
        ..Behaviour::default()
    };
    is_banned_and_the_sync_goes_on(forges).await;
}

#[tokio::test]
async fn a_peer_that_sends_garbage_or_nothing_costs_only_itself() {
    let garbage = Behaviour {
        commits: |mut fetched| {
            fetched.commits = vec![bytes::Bytes::from_static(b"garbage"); 3];
            Ok(fetched)
        },
        ..Behaviour::default()
    };
    is_banned_and_the_sync_goes_on(garbage).await;
    let short = Behaviour {
        blocks: |mut blocks| {
            blocks.truncate(1);
            Ok(blocks)
        },
        ..Behaviour::default()
    };
    is_doubted_and_the_sync_goes_on(short).await;
    let oversized =
        Behaviour { blocks: |_| Ok(vec![bytes::Bytes::from(vec![0; (1 << 20) + 1])]), ..Behaviour::default() };
    is_banned_and_the_sync_goes_on(oversized).await;
}

#[tokio::test]
async fn a_peer_that_claims_every_commit_there_can_be_does_not_stop_the_sync() {
    let behaviour = Behaviour {
        availability: |_| Availability { highest_synced: u32::MAX, lowest_available: 0 },
        commits: |_| Err(CallError::new(soma_wire::Status::NotFound, "not now")),
        ..Behaviour::default()
    };
    is_doubted_and_the_sync_goes_on(behaviour).await;
}

#[tokio::test]
async fn a_peer_that_fails_inside_or_says_it_is_busy_is_left_alone_for_a_while() {
    for status in [soma_wire::Status::Internal, soma_wire::Status::ResourceExhausted] {
        let commits_of: fn(_) -> _ = match status {
            soma_wire::Status::Internal => |_| Err(CallError::new(soma_wire::Status::Internal, "broken")),
            _ => |_| Err(CallError::new(soma_wire::Status::ResourceExhausted, "busy")),
        };
        let behaviour = Behaviour { commits: commits_of, ..Behaviour::default() };
        is_doubted_and_the_sync_goes_on(behaviour).await;
    }
}

#[tokio::test]
async fn a_seed_on_another_chain_is_not_used_and_the_status_says_so() {
    let (builder, commits) = chain(10);
    let behaviour = Behaviour {
        genesis: |mut commit| {
            commit.digest = CommitDigest([9; 32]);
            commit
        },
        ..Behaviour::default()
    };
    let (_listener, seed) = serve(LIAR, builder.genesis(), &commits, behaviour).await;
    let mut settings = config(&[]);
    settings.seed_peers.push(seed);
    let fresh = start(node(2, builder.genesis(), mem_store(builder.genesis(), &[]), settings));
    let told = |status: &Status| status.explanation.contains("another chain");
    let status = eventually(&fresh, "the reason is told", told).await;
    assert!(status.peers.is_empty());
}

#[tokio::test]
async fn a_seed_with_another_key_than_configured_is_not_used_and_the_status_says_so() {
    let (builder, commits) = chain(10);
    let (_listener, mut seed) = serve(LIAR, builder.genesis(), &commits, Behaviour::default()).await;
    seed.peer_id = PeerId::from(&key(67));
    let mut settings = config(&[]);
    settings.seed_peers.push(seed);
    let fresh = start(node(2, builder.genesis(), mem_store(builder.genesis(), &[]), settings));
    let told = |status: &Status| status.explanation.contains("another key than the dialled one");
    eventually(&fresh, "the reason is told", told).await;
    assert_eq!(fresh.height(), 0);
}
