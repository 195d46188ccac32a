//! For any bytes of a peer, decoding and checking ends in a value within the limits or in an error.

#![cfg(feature = "tls")]

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use prost::Message;
use soma_network::wire::{
    Availability, BlockRefs, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits, KnownPeers, Status,
    checked_chunk,
    codec::{MessageError, decode},
    limits::*,
    proto::{
        FetchBlocksRequest, FetchBlocksResponse, FetchCommitsRequest, FetchCommitsResponse,
        GetCommitAvailabilityResponse, GetCommitInfoRequest, GetCommitInfoResponse, GetEpochProofsResponse,
        GetKnownPeersRequest, GetKnownPeersResponse, PushCommitRequest,
    },
};
use soma_types::{BlockDigest, BlockRef, CommitRef};

/// Reads `bytes` as every message that a peer can send.
fn decode_all(bytes: &Bytes) {
    if let Ok(Ok(refs)) = FetchBlocksRequest::decode(bytes.clone()).map(BlockRefs::try_from) {
        assert!((1..=MAX_BLOCKS_PER_FETCH).contains(&refs.as_slice().len()));
    }
    if let Ok(Ok(range)) = FetchCommitsRequest::decode(bytes.clone()).map(CommitRange::try_from) {
        assert!(range.start() >= 1 && range.end() - range.start() < MAX_COMMITS_PER_FETCH as u32);
    }
    if let Ok(Ok(answer)) = GetKnownPeersResponse::decode(bytes.clone()).map(KnownPeers::try_from) {
        assert!(answer.known_peers.len() <= MAX_KNOWN_PEERS);
    }
    if let Ok(Ok(answer)) = FetchCommitsResponse::decode(bytes.clone())
        .map(|answer| FetchedCommits::from(answer).checked(CommitRange::new(1, u32::MAX).unwrap()))
    {
        assert!((1..=MAX_COMMITS_PER_FETCH).contains(&answer.commits.len()));
    }
    if let Ok(Ok(chunk)) = FetchBlocksResponse::decode(bytes.clone()).map(|answer| checked_chunk(answer.blocks)) {
        assert!(!chunk.is_empty());
    }
    let _ = GetCommitInfoResponse::decode(bytes.clone()).map(CommitRef::try_from);
    let _ = GetCommitAvailabilityResponse::decode(bytes.clone()).map(Availability::from);
    let _ = GetKnownPeersRequest::decode(bytes.clone());
    let _ = GetCommitInfoRequest::decode(bytes.clone());
    let _ = PushCommitRequest::decode(bytes.clone());
    if let Ok(Ok(answer)) = GetEpochProofsResponse::decode(bytes.clone())
        .map(|answer| EpochProofs::from(answer).checked(EpochProofsFrom::new(0)))
    {
        assert!((1..=MAX_EPOCH_PROOFS_PER_FETCH).contains(&answer.proofs.len()));
    }
}

/// Bytes that look like protobuf: fields of any number and wire type, with lengths that may be wrong.
fn nearly_protobuf() -> impl Strategy<Value = Vec<u8>> {
    let field =
        (0_u8..6, 0_u8..8, any::<Option<u8>>(), vec(any::<u8>(), 0..40)).prop_map(|(number, kind, len, body)| {
            let mut bytes = vec![number << 3 | kind, len.unwrap_or(body.len() as u8)];
            bytes.extend(body);
            bytes
        });
    vec(field, 0..20).prop_map(|fields| fields.concat())
}

#[test]
fn response_with_too_many_entries_is_refused_before_they_are_decoded() {
    // 12 MiB of empty commits, two bytes each on the wire, would take 400 MiB in memory: 32 bytes each, in a list that
    // doubles.
    for entry in [[0x0a, 0], [0x12, 0], [0x08, 0]] {
        let most = entry.repeat(MAX_MESSAGE_FIELDS);
        assert_ne!(decode::<FetchCommitsResponse>(most.clone().into()), Err(MessageError::TooManyFields));
        for entries in [MAX_MESSAGE_FIELDS + 1, MAX_RESPONSE_BYTES / 2] {
            let refused = decode::<FetchCommitsResponse>(entry.repeat(entries).into());
            assert_eq!(refused, Err(MessageError::TooManyFields), "{entries} of {entry:?}");
        }
    }
    let error = tonic::Status::internal(MessageError::TooManyFields.to_string());
    assert_eq!(CallError::from(error).status, Status::MalformedAnswer, "a caller knows whose fault it is");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        decode_all(&bytes.into());
    }

    #[test]
    fn bytes_that_are_nearly_a_message_never_panic(bytes in nearly_protobuf()) {
        decode_all(&bytes.into());
    }

    #[test]
    fn damaged_message_never_panics(
        digests in vec(any::<[u8; 32]>(), 1..20),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let refs = digests.into_iter().enumerate().map(|(round, digest)| BlockRef {
            epoch: 1,
            round: round as u32,
            author: 2,
            digest: BlockDigest(digest),
        });
        let refs = BlockRefs::new(refs.collect()).unwrap();
        let mut bytes = FetchBlocksRequest::from(&refs).encode_to_vec();
        prop_assert_eq!(BlockRefs::try_from(FetchBlocksRequest::decode(&*bytes).unwrap()).unwrap(), refs);
        let at = at.index(bytes.len());
        bytes[at] = to;
        decode_all(&bytes.clone().into());
        bytes.truncate(at);
        decode_all(&bytes.into());
    }

    #[test]
    fn range_is_cut_and_never_moved(start in 1_u32.., length in any::<u32>()) {
        let end = start.saturating_add(length);
        let range = CommitRange::new(start, end).unwrap();
        prop_assert_eq!(range.start(), start);
        prop_assert!(range.end() <= end);
        prop_assert_eq!(CommitRange::try_from(FetchCommitsRequest::from(range)).unwrap(), range);
    }
}
