//! Encoders bound payloads and decoders bound messages. At every limit both agree, and one step over it is refused.

#![cfg(feature = "tls")]

use bytes::Bytes;
use prost::Message;
use soma_network::wire::{
    BlockRefs, CallError, CommitRange, FetchedCommits, KnownPeers, Seen, Status, checked_chunk,
    limits::*,
    proto::{
        self, FetchBlocksRequest, FetchBlocksResponse, FetchCommitsRequest, FetchCommitsResponse,
        GetCommitInfoResponse, GetKnownPeersRequest, GetKnownPeersResponse,
    },
};
use soma_types::{
    BlockDigest, BlockRef, CommitDigest, CommitRef,
    limits::{MAX_BLOCK_BYTES, MAX_COMMIT_BYTES, MAX_NODE_INFO_BYTES},
};

/// Bytes of a gRPC message header: compression flag and length.
const GRPC_HEADER_BYTES: usize = 5;

fn zeros(len: usize) -> Bytes {
    Bytes::from(vec![0; len])
}

/// References with the longest encoding of every field.
fn widest_refs(count: usize) -> Vec<BlockRef> {
    let reference = |number: usize| {
        let mut digest = [0xff; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        BlockRef { epoch: u64::MAX, round: u32::MAX, author: u32::MAX, digest: BlockDigest(digest) }
    };
    (0..count).map(reference).collect()
}

/// A request for any references, without checks.
fn request(refs: Vec<BlockRef>) -> FetchBlocksRequest {
    let one = |reference| FetchBlocksRequest::from(&BlockRefs::new(vec![reference]).unwrap()).refs.remove(0);
    FetchBlocksRequest { refs: refs.into_iter().map(one).collect() }
}

fn status<T: std::fmt::Debug>(result: Result<T, CallError>) -> Status {
    result.expect_err("over the limit").status
}

#[test]
fn longest_list_of_blocks_to_fetch_fits_into_a_request() {
    let refs = BlockRefs::new(widest_refs(MAX_BLOCKS_PER_FETCH)).unwrap();
    let message = FetchBlocksRequest::from(&refs);
    assert!(message.encoded_len() + GRPC_HEADER_BYTES <= MAX_REQUEST_BYTES, "{}", message.encoded_len());
    let decoded = FetchBlocksRequest::decode(&*message.encode_to_vec()).unwrap();
    assert_eq!(BlockRefs::try_from(decoded).unwrap(), refs);
}

#[test]
fn largest_node_info_fits_into_a_request() {
    let message = GetKnownPeersRequest { own_info: zeros(MAX_NODE_INFO_BYTES) };
    assert!(message.encoded_len() + GRPC_HEADER_BYTES <= MAX_REQUEST_BYTES);
}

#[test]
fn longest_list_of_peers_fits_into_a_response() {
    let largest = KnownPeers {
        own_info: zeros(MAX_NODE_INFO_BYTES),
        known_peers: vec![zeros(MAX_NODE_INFO_BYTES); MAX_KNOWN_PEERS],
        seen: Seen { ip: Some([0xff; 16].into()), time_ms: u64::MAX, reached: Some(false) },
    };
    let message = GetKnownPeersResponse::from(largest.clone());
    let infos = (MAX_KNOWN_PEERS + 1) * MAX_NODE_INFO_BYTES;
    // A caller buffers at most this much: the infos and the overhead.
    assert!(message.encoded_len() + GRPC_HEADER_BYTES <= infos + MESSAGE_OVERHEAD_BYTES);
    let alone = GetKnownPeersResponse { seen: message.seen.clone(), ..Default::default() };
    assert_eq!(alone.encoded_len(), MAX_CALLER_SEEN_BYTES);
    assert!(message.encoded_len() + GRPC_HEADER_BYTES <= MAX_RESPONSE_BYTES);
    assert_eq!(KnownPeers::try_from(message).unwrap(), largest);
}

#[test]
fn largest_commits_and_votes_fit_into_a_response_in_any_division() {
    let mut one_large = FetchedCommits { commits: vec![zeros(MAX_COMMIT_BYTES)], certifier_blocks: vec![] };
    while MAX_COMMITS_RESPONSE_BYTES - one_large.size() >= MAX_BLOCK_BYTES {
        one_large.certifier_blocks.push(zeros(MAX_BLOCK_BYTES));
    }
    one_large.certifier_blocks.push(zeros(MAX_COMMITS_RESPONSE_BYTES - one_large.size()));
    // The most commits of one response, and as many votes as the largest committee has members.
    let many = FetchedCommits {
        commits: vec![zeros(MAX_COMMITS_RESPONSE_BYTES / 1_100); MAX_COMMITS_PER_FETCH],
        certifier_blocks: vec![zeros(MAX_COMMITS_RESPONSE_BYTES / 1_100); 1_000],
    };
    for answer in [one_large, many] {
        assert!(answer.size() <= MAX_COMMITS_RESPONSE_BYTES);
        let message = FetchCommitsResponse::from(answer.clone());
        assert!(message.encoded_len() + GRPC_HEADER_BYTES <= MAX_RESPONSE_BYTES, "{}", message.encoded_len());
        assert_eq!(FetchedCommits::from(message).checked(all_commits()).unwrap(), answer);
    }
}

fn all_commits() -> CommitRange {
    CommitRange::new(1, 100).unwrap()
}

#[test]
fn largest_chunk_fits_into_a_response_with_few_blocks_and_with_many() {
    for count in [MAX_CHUNK_BYTES / MAX_BLOCK_BYTES, MAX_BLOCKS_PER_FETCH] {
        let blocks = vec![zeros(MAX_CHUNK_BYTES / count); count];
        let message = FetchBlocksResponse { blocks: blocks.clone() };
        assert!(message.encoded_len() + GRPC_HEADER_BYTES <= MAX_RESPONSE_BYTES);
        assert_eq!(checked_chunk(message.blocks).unwrap(), blocks);
    }
}

#[test]
fn one_block_too_many_or_repeated_is_refused_on_both_sides() {
    let too_many = widest_refs(MAX_BLOCKS_PER_FETCH + 1);
    assert_eq!(status(BlockRefs::new(too_many.clone())), Status::InvalidArgument);
    let message = request(too_many);
    assert_eq!(status(BlockRefs::try_from(message)), Status::InvalidArgument);

    // The same block 80,000 times killed the first version; now even a single repetition is an error.
    let twice = vec![widest_refs(1)[0]; 2];
    assert_eq!(status(BlockRefs::new(twice.clone())), Status::InvalidArgument);
    let message = request(twice);
    assert_eq!(status(BlockRefs::try_from(message)), Status::InvalidArgument);

    assert_eq!(status(BlockRefs::new(vec![])), Status::InvalidArgument);
    assert_eq!(status(BlockRefs::try_from(FetchBlocksRequest { refs: vec![] })), Status::InvalidArgument);
}

#[test]
fn range_of_commits_never_overflows_and_never_exceeds_the_limit() {
    let last = u32::MAX;
    for (start, end) in [(1, 1), (1, last), (last, last), (last - 50, last), (7, 106), (7, 107)] {
        let range = CommitRange::try_from(FetchCommitsRequest { start, end, max_bytes: 0 }).unwrap();
        assert_eq!(range.start(), start);
        assert!(range.end() <= end && range.end() >= start);
        assert!((range.end() - range.start()) < MAX_COMMITS_PER_FETCH as u32);
    }
    for (start, end) in [(0, 0), (0, 5), (2, 1), (last, 1)] {
        let refused = CommitRange::try_from(FetchCommitsRequest { start, end, max_bytes: 0 });
        assert_eq!(status(refused), Status::InvalidArgument, "{start} to {end}");
    }
}

#[test]
fn caller_may_lower_the_limit_of_a_response_but_not_raise_it() {
    let request = |max_bytes| FetchCommitsRequest { start: 1, end: 100, max_bytes };
    for (asked, limit) in [(0, MAX_COMMITS_RESPONSE_BYTES), (1 << 20, 1 << 20), (u32::MAX, MAX_COMMITS_RESPONSE_BYTES)]
    {
        let range = CommitRange::try_from(request(asked)).unwrap();
        assert_eq!(range.max_bytes(), limit);
        let answer = |bytes| FetchedCommits { commits: vec![zeros(bytes - 1)], certifier_blocks: vec![zeros(1)] };
        assert!(answer(limit).checked(range).is_ok());
        assert_eq!(status(answer(limit + 1).checked(range)), Status::MalformedAnswer);
    }
}

#[test]
fn response_over_a_limit_is_malformed() {
    let own_info = || zeros(MAX_NODE_INFO_BYTES);
    let too_many_peers =
        GetKnownPeersResponse { own_info: own_info(), known_peers: vec![zeros(1); MAX_KNOWN_PEERS + 1], seen: None };
    assert_eq!(status(KnownPeers::try_from(too_many_peers)), Status::MalformedAnswer);
    let large_own = GetKnownPeersResponse { own_info: zeros(MAX_NODE_INFO_BYTES + 1), known_peers: vec![], seen: None };
    assert_eq!(status(KnownPeers::try_from(large_own)), Status::MalformedAnswer);
    let large_other =
        GetKnownPeersResponse { own_info: own_info(), known_peers: vec![zeros(MAX_NODE_INFO_BYTES + 1)], seen: None };
    assert_eq!(status(KnownPeers::try_from(large_other)), Status::MalformedAnswer);

    let commits = |commits, certifier_blocks| FetchCommitsResponse { commits, certifier_blocks };
    for answer in [
        commits(vec![], vec![zeros(1)]),
        commits(vec![zeros(1); MAX_COMMITS_PER_FETCH + 1], vec![]),
        commits(vec![zeros(1)], vec![zeros(MAX_COMMITS_RESPONSE_BYTES)]),
    ] {
        assert_eq!(status(FetchedCommits::from(answer).checked(all_commits())), Status::MalformedAnswer);
    }

    assert_eq!(status(checked_chunk(vec![])), Status::MalformedAnswer);
    assert_eq!(status(checked_chunk(vec![zeros(MAX_BLOCK_BYTES + 1)])), Status::MalformedAnswer);
    let mut over = vec![zeros(MAX_BLOCK_BYTES); MAX_CHUNK_BYTES / MAX_BLOCK_BYTES];
    over.push(zeros(1));
    assert_eq!(status(checked_chunk(over)), Status::MalformedAnswer);
}

#[test]
fn observation_of_the_caller_round_trips_and_wrong_ip_length_is_refused() {
    let answer = |seen| KnownPeers { own_info: Bytes::new(), known_peers: vec![], seen };
    let ips = [None, Some("192.0.2.7".parse().unwrap()), Some("2001:db8::7".parse().unwrap())];
    for (ip, reached) in ips.into_iter().zip([None, Some(true), Some(false)]) {
        let said = answer(Seen { ip, time_ms: 1_700_000_000_000, reached });
        assert_eq!(KnownPeers::try_from(GetKnownPeersResponse::from(said.clone())), Ok(said));
    }
    let mapped = answer(Seen { ip: Some("::ffff:192.0.2.7".parse().unwrap()), ..Seen::default() });
    let arrived = KnownPeers::try_from(GetKnownPeersResponse::from(mapped)).unwrap();
    assert_eq!(arrived.seen.ip, Some("192.0.2.7".parse().unwrap()));

    let seen = |seen| KnownPeers::try_from(GetKnownPeersResponse { seen, ..Default::default() }).map(|it| it.seen);
    assert_eq!(seen(None), Ok(Seen::default()), "of a responder without an observation");
    let later = proto::CallerSeen { reached: 99, ..Default::default() };
    assert_eq!(seen(Some(later)), Ok(Seen::default()), "an unknown value of a later version");
    for len in [1, 3, 5, 15, 17, 64] {
        let wrong = proto::CallerSeen { ip: zeros(len), ..Default::default() };
        assert_eq!(status(seen(Some(wrong))), Status::MalformedAnswer, "{len} bytes");
    }
}

#[test]
fn digest_has_32_bytes_in_requests_and_in_responses() {
    for len in [0, 1, 31, 33, 64] {
        let mut request = request(widest_refs(1));
        request.refs[0].digest = zeros(len);
        assert_eq!(status(BlockRefs::try_from(request)), Status::InvalidArgument, "{len}");
        let answer = GetCommitInfoResponse { index: 1, digest: zeros(len) };
        assert_eq!(status(CommitRef::try_from(answer)), Status::MalformedAnswer, "{len}");
    }
    let reference = CommitRef { index: u32::MAX, digest: CommitDigest([7; 32]) };
    assert_eq!(CommitRef::try_from(GetCommitInfoResponse::from(reference)).unwrap(), reference);
}
