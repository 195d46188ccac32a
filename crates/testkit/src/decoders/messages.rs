//! What peers send: the messages of the protocol, and certificates of TLS.

use super::{decoder::Decoder, seeds::context};
use bytes::Bytes;
use soma_network::wire::{
    Availability, BlockRefs, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits, Frame, Hello, KnownPeers, Seen,
    checked_chunk,
    codec::{decode, encode},
    limits::*,
    proto::{
        BroadcastFrame, FetchBlocksRequest, FetchBlocksResponse, FetchCommitsRequest, FetchCommitsResponse,
        GetCommitAvailabilityRequest, GetCommitAvailabilityResponse, GetCommitInfoRequest, GetCommitInfoResponse,
        GetEpochProofsRequest, GetEpochProofsResponse, GetKnownPeersRequest, GetKnownPeersResponse, PushCommitRequest,
        PushCommitResponse,
    },
};
use soma_types::{
    Author, Message, PeerId, PublicKey, Topic,
    limits::{MAX_BLOCK_BYTES, MAX_MESSAGE_BYTES},
};
use soma_verify::check_commits;

/// Decodes bytes as a message, and hands it on if it is one; what is encoded of it decodes to the same.
macro_rules! message {
    ($bytes:expr, $forms:ident, $message:ty, $then:expr) => {
        if let Ok(message) = decode::<$message>($bytes.clone()) {
            $forms += 1;
            let again = decode::<$message>(Bytes::from(encode(&message)));
            assert_eq!(again.as_ref(), Ok(&message), "a message comes back");
            #[allow(clippy::redundant_closure_call)]
            ($then)(message);
        }
    };
}

fn every_range() -> CommitRange {
    CommitRange::new(1, u32::MAX).expect("it starts at 1 and ends behind it")
}

/// Reads bytes as every message of the protocol, converts what is one, and goes the other way again.
fn messages(bytes: &[u8]) -> usize {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut forms = 0;
    message!(bytes, forms, FetchBlocksRequest, |message: FetchBlocksRequest| {
        if let Ok(refs) = BlockRefs::try_from(message) {
            assert!((1..=MAX_BLOCKS_PER_FETCH).contains(&refs.as_slice().len()));
            assert_eq!(BlockRefs::try_from(FetchBlocksRequest::from(&refs)), Ok(refs));
        }
    });
    message!(bytes, forms, FetchCommitsRequest, |message: FetchCommitsRequest| {
        if let Ok(range) = CommitRange::try_from(message) {
            assert!(range.start() >= 1 && range.end() - range.start() < MAX_COMMITS_PER_FETCH as u32);
            assert!((1..=MAX_COMMITS_RESPONSE_BYTES).contains(&range.max_bytes()));
            assert_eq!(CommitRange::try_from(FetchCommitsRequest::from(range)), Ok(range));
        }
    });
    message!(bytes, forms, FetchCommitsResponse, |message: FetchCommitsResponse| {
        if let Ok(answer) = FetchedCommits::from(message).checked(every_range()) {
            assert!((1..=MAX_COMMITS_PER_FETCH).contains(&answer.commits.len()));
            assert!(answer.size() <= MAX_COMMITS_RESPONSE_BYTES);
            let _ = check_commits(context(), 1, u32::MAX, answer.commits, answer.certifier_blocks);
        }
    });
    message!(bytes, forms, FetchBlocksResponse, |message: FetchBlocksResponse| {
        if let Ok(chunk) = checked_chunk(message.blocks) {
            assert!(!chunk.is_empty() && chunk.iter().all(|block| block.len() <= MAX_BLOCK_BYTES));
        }
    });
    message!(bytes, forms, GetKnownPeersResponse, |message: GetKnownPeersResponse| {
        if let Ok(answer) = KnownPeers::try_from(message) {
            assert!(answer.known_peers.len() <= MAX_KNOWN_PEERS);
            assert_eq!(KnownPeers::try_from(GetKnownPeersResponse::from(answer.clone())), Ok(answer));
        }
    });
    message!(bytes, forms, GetCommitInfoResponse, |message: GetCommitInfoResponse| {
        if let Ok(reference) = soma_types::CommitRef::try_from(message) {
            assert_eq!(soma_types::CommitRef::try_from(GetCommitInfoResponse::from(reference)), Ok(reference));
        }
    });
    message!(bytes, forms, GetCommitAvailabilityResponse, |message: GetCommitAvailabilityResponse| {
        let answer = Availability::from(message);
        assert_eq!(Availability::from(GetCommitAvailabilityResponse::from(answer)), answer);
    });
    message!(bytes, forms, GetEpochProofsRequest, |message: GetEpochProofsRequest| {
        let from = EpochProofsFrom::from(message);
        assert!((1..=MAX_EPOCH_PROOFS_BYTES).contains(&from.max_bytes()));
        assert_eq!(EpochProofsFrom::from(GetEpochProofsRequest::from(from)), from);
    });
    message!(bytes, forms, GetEpochProofsResponse, |message: GetEpochProofsResponse| {
        let Ok(answer) = EpochProofs::from(message).checked(EpochProofsFrom::new(0)) else { return };
        assert!((1..=MAX_EPOCH_PROOFS_PER_FETCH).contains(&answer.proofs.len()));
    });
    message!(bytes, forms, GetKnownPeersRequest, |_| ());
    message!(bytes, forms, GetCommitInfoRequest, |_| ());
    message!(bytes, forms, GetCommitAvailabilityRequest, |_| ());
    message!(bytes, forms, PushCommitRequest, |_| ());
    message!(bytes, forms, PushCommitResponse, |_| ());
    forms
}

/// Decodes as each of the messages, and drops it.
fn decode_each(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    [
        decode::<FetchBlocksRequest>(bytes.clone()).is_ok(),
        decode::<FetchCommitsResponse>(bytes.clone()).is_ok(),
        decode::<FetchBlocksResponse>(bytes.clone()).is_ok(),
        decode::<GetKnownPeersResponse>(bytes.clone()).is_ok(),
        decode::<GetCommitInfoResponse>(bytes.clone()).is_ok(),
        decode::<FetchCommitsRequest>(bytes.clone()).is_ok(),
        decode::<GetCommitAvailabilityResponse>(bytes.clone()).is_ok(),
        decode::<GetKnownPeersRequest>(bytes.clone()).is_ok(),
        decode::<GetCommitInfoRequest>(bytes.clone()).is_ok(),
        decode::<GetEpochProofsRequest>(bytes.clone()).is_ok(),
        decode::<GetEpochProofsResponse>(bytes.clone()).is_ok(),
        decode::<GetCommitAvailabilityRequest>(bytes.clone()).is_ok(),
        decode::<PushCommitRequest>(bytes.clone()).is_ok(),
        decode::<PushCommitResponse>(bytes).is_ok(),
    ]
    .contains(&true)
}

pub(crate) const MESSAGE: Decoder = Decoder {
    name: "message",
    decode: decode_each,
    check: |bytes| messages(bytes) > 0,
    seeds: |chain| {
        let certified = &chain.commits[0];
        let bytes = |blocks: &[soma_types::VerifiedBlock]| blocks.iter().map(|block| block.bytes().clone()).collect();
        let refs = BlockRefs::new(certified.commit.blocks.clone()).expect("a commit names each block once");
        let info = Bytes::from((super::chain_types::NODE_INFO.seeds)(chain).swap_remove(0));
        vec![
            encode(&FetchBlocksRequest::from(&refs)),
            encode(&FetchCommitsRequest::from(every_range())),
            encode(&FetchCommitsResponse {
                commits: vec![certified.commit.bytes().clone()],
                certifier_blocks: bytes(&certified.certifiers),
            }),
            encode(&FetchBlocksResponse { blocks: bytes(&certified.blocks) }),
            encode(&GetKnownPeersRequest { own_info: info.clone() }),
            encode(&GetKnownPeersResponse::from(KnownPeers {
                own_info: info.clone(),
                known_peers: vec![info.clone(), info],
                seen: Seen { ip: Some([192, 0, 2, 7].into()), time_ms: 1_700_000_000_000, reached: Some(true) },
            })),
            encode(&GetCommitInfoRequest { index: Some(7) }),
            encode(&GetCommitInfoResponse::from(certified.commit.reference())),
            encode(&GetCommitAvailabilityResponse { highest_synced_commit: 9, lowest_available_commit: 1 }),
            encode(&PushCommitRequest { index: 7 }),
            encode(&GetEpochProofsRequest::from(EpochProofsFrom::new(3))),
        ]
    },
    refuses_truncated: false,
};

/// This side's hello in a stream of frames.
const HELLO: Hello = Hello { topic: Topic::Certificates, max_message_bytes: 64 << 10 };

/// Reads bytes as the first frame of a stream, and as a later one.
fn frame(bytes: &[u8]) -> bool {
    let mut forms = 0;
    message!(Bytes::copy_from_slice(bytes), forms, BroadcastFrame, |message: BroadcastFrame| {
        if let Ok(hello) = Hello::try_from(message.clone()) {
            assert!((1..=MAX_MESSAGE_BYTES as u32).contains(&hello.max_message_bytes));
            assert_eq!(Hello::try_from(BroadcastFrame::from(hello)), Ok(hello));
        }
        if let Ok(frame) = Frame::received(message, HELLO) {
            assert!(!frame.is_empty() && frame.messages.len() <= MAX_MESSAGES_PER_FRAME);
            for signed in &frame.messages {
                assert!(signed.message().payload.len() <= HELLO.max_message_bytes as usize);
                assert_eq!(signed.id(), signed.message().id(), "the id is the digest");
            }
            let again = BroadcastFrame::from(frame.clone());
            assert!(encode(&again).len() <= MAX_FRAME_BYTES);
            assert_eq!(frame.clone().cut(), std::slice::from_ref(&frame), "what arrives may be sent");
            assert_eq!(Frame::received(again, HELLO), Ok(frame));
        }
    });
    forms > 0
}

pub(crate) const BROADCAST_FRAME: Decoder = Decoder {
    name: "broadcast_frame",
    decode: |bytes| {
        let Ok(message) = decode::<BroadcastFrame>(Bytes::copy_from_slice(bytes)) else { return false };
        let _ = (Hello::try_from(message.clone()), Frame::received(message, HELLO));
        true
    },
    check: frame,
    seeds: |chain| {
        let author = Author::Peer(PeerId::from(&chain.network_key));
        let sign = |bytes: usize| {
            let message = Message { topic: HELLO.topic, epoch: 3, author, payload: vec![5; bytes].into() };
            message.sign(chain.genesis.chain_id(), &chain.network_key)
        };
        let messages = vec![sign(0), sign(100), sign(1_000)];
        let ids: Vec<_> = messages.iter().map(|message| message.id()).collect();
        let all = Frame {
            messages,
            have: ids.clone(),
            want: ids[1..].to_vec(),
            do_not_send: ids[..1].to_vec(),
            graft: vec![author, Author::Authority(7)],
            prune: vec![Author::Authority(999)],
        };
        let ids = Frame { have: ids, ..Frame::default() };
        vec![
            encode(&BroadcastFrame::from(HELLO)),
            encode(&BroadcastFrame::from(all)),
            encode(&BroadcastFrame::from(ids)),
        ]
    },
    refuses_truncated: false,
};

pub(crate) const TLS_CERTIFICATE: Decoder = Decoder {
    name: "tls_certificate",
    decode: |bytes| soma_network::decoders::certified_peer(bytes).is_some(),
    check: |bytes| {
        let Some(peer) = soma_network::decoders::certified_peer(bytes) else { return false };
        assert!(PublicKey::from(peer).verifying_key().is_ok(), "a peer id is a key");
        assert!(bytes.windows(32).any(|window| window == peer.0), "the key is the one in the certificate");
        true
    },
    seeds: |chain| soma_network::decoders::certificate(&chain.network_key).into_iter().collect(),
    refuses_truncated: true,
};
