//! Invalid requests of an admitted peer, which the typed interface cannot express. They are refused before the handler
//! sees them, and the connection stays usable.

#![cfg(feature = "tls")]

mod support;

use bytes::Bytes;
use soma_network::wire::{
    CHAIN_ID_METADATA, Call,
    limits::{MAX_BLOCKS_PER_FETCH, MAX_REQUEST_BYTES},
    proto::{
        BlockRef, FetchBlocksRequest, FetchCommitsRequest, GetCommitAvailabilityRequest, GetKnownPeersRequest,
        p2p_client::P2pClient,
    },
};
use std::time::Duration;
use support::{raw::raw_client, tls::*, *};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

/// Seed of the listening node.
const LISTENER: u8 = 2;

async fn let_in() -> (Node, P2pClient<Channel>) {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let client = raw_client(&node).await;
    assert_eq!(node.connected().await.peer(), id(STRANGER));
    (node, client)
}

async fn serves_on(node: &mut Node, client: &mut P2pClient<Channel>) -> Call {
    let calls = node.calls();
    client.get_commit_availability(GetCommitAvailabilityRequest {}).await.unwrap();
    assert_eq!(node.calls(), calls + 1);
    node.asked().await.1
}

#[tokio::test]
async fn chain_id_that_is_not_32_bytes_is_an_invalid_argument() {
    let (mut node, mut client) = let_in().await;
    for len in [0, 1, 31, 33, 1_000] {
        let mut request = Request::new(GetCommitAvailabilityRequest {});
        request.metadata_mut().insert_bin(CHAIN_ID_METADATA, MetadataValue::from_bytes(&vec![1; len]));
        let refused = client.get_commit_availability(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(node.calls(), 0);
    assert_eq!(serves_on(&mut node, &mut client).await.chain, None);
}

#[tokio::test]
async fn caller_with_no_timeout_or_a_long_one_gets_half_a_minute() {
    let (mut node, mut client) = let_in().await;
    assert_eq!(serves_on(&mut node, &mut client).await.timeout, Duration::from_secs(30));
    for (asked, given) in [("99999999H", 30_000), ("31S", 30_000), ("5S", 5_000), ("250m", 250), ("soon", 30_000)] {
        let mut request = Request::new(GetCommitAvailabilityRequest {});
        request.metadata_mut().insert("grpc-timeout", asked.parse().unwrap());
        client.get_commit_availability(request).await.unwrap();
        assert_eq!(node.asked().await.1.timeout, Duration::from_millis(given), "{asked}");
    }
}

#[tokio::test]
async fn requests_against_the_protocol_are_invalid_arguments() {
    let (mut node, mut client) = let_in().await;
    let reference = BlockRef { epoch: 1, round: 1, author: 1, digest: Bytes::from(vec![1; 32]) };
    let short = BlockRef { digest: Bytes::from(vec![1; 31]), ..reference.clone() };
    let distinct = |round| BlockRef { round, ..reference.clone() };
    for refs in [
        vec![],
        vec![short],
        vec![reference.clone(), reference.clone()],
        (0..=MAX_BLOCKS_PER_FETCH as u32).map(distinct).collect(),
    ] {
        let refused = client.fetch_blocks(FetchBlocksRequest { refs }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    for (start, end) in [(0, 0), (0, 1), (2, 1), (u32::MAX, 0)] {
        let refused = client.fetch_commits(FetchCommitsRequest { start, end, max_bytes: 0 }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(node.calls(), 0);
    serves_on(&mut node, &mut client).await;
}

#[tokio::test]
async fn request_over_the_limit_is_refused_and_the_largest_is_accepted() {
    let (mut node, mut client) = let_in().await;
    let own_info = Bytes::from(vec![1; MAX_REQUEST_BYTES + 1]);
    let refused = client.get_known_peers(GetKnownPeersRequest { own_info }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(node.calls(), 0);
    let widest = |number: u32| {
        let mut digest = vec![0xff; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        BlockRef { epoch: u64::MAX, round: u32::MAX, author: u32::MAX, digest: digest.into() }
    };
    let refs = (0..MAX_BLOCKS_PER_FETCH as u32).map(widest).collect();
    client.fetch_blocks(FetchBlocksRequest { refs }).await.unwrap();
    serves_on(&mut node, &mut client).await;
}

#[tokio::test]
async fn headers_over_the_limit_do_not_reach_the_handler() {
    let (mut node, mut client) = let_in().await;
    let mut request = Request::new(GetCommitAvailabilityRequest {});
    request.metadata_mut().insert("x-long", "x".repeat(20_000).parse().unwrap());
    client.get_commit_availability(request).await.unwrap_err();
    assert_eq!(node.calls(), 0);
    // HTTP/2 decides whether the connection survives; the listener must.
    let mut other = raw_client(&node).await;
    serves_on(&mut node, &mut other).await;
}

#[tokio::test]
async fn more_concurrent_calls_than_allowed_wait_their_turn() {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Silent).await;
    let client = raw_client(&node).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get_commit_availability(GetCommitAvailabilityRequest {}).await })
        })
        .collect();
    for _ in 0..64 {
        node.asked().await;
    }
    // The calls that waited get the freed places.
    for call in &calls {
        call.abort();
    }
    for call in calls {
        let _ = call.await;
    }
    for _ in 0..64 {
        node.given_up().await;
    }
    assert!(node.calls() <= 100);
}
