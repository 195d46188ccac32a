//! The greatest values within the limits decode, and greater ones do not. False length prefixes are refused without
//! allocating the claimed memory.

use bytes::Bytes;
use soma_types::{
    Address, Authority, Block, BlockRef, CodecError, Commit, CommitRef, Committee, CommitteeError, HashedBlock,
    Signature, Signed, SignedBlock, SigningKey, TransactionBytes, UnverifiedCommit, codec,
    limits::{
        MAX_ADDRESSES_PER_NODE, MAX_BLOCK_BYTES, MAX_BLOCKS_PER_COMMIT, MAX_COMMIT_BYTES, MAX_COMMIT_VOTES_PER_BLOCK,
        MAX_COMMITTEE_BYTES, MAX_COMMITTEE_SIZE, MAX_TRANSACTIONS_PER_BLOCK,
    },
    {Access, Capabilities, ChainId, NodeInfo, NodeRole, PeerId, ProtocolVersions, PublicKey, SignedNodeInfo},
};

const REF: BlockRef = BlockRef { epoch: 1, round: 2, author: 3, digest: soma_types::BlockDigest([4; 32]) };

fn block() -> Block {
    Block {
        epoch: 0,
        round: 1,
        author: 0,
        timestamp_ms: 0,
        ancestors: Vec::new(),
        transactions: Vec::new(),
        commit_votes: Vec::new(),
        end_of_epoch: None,
    }
}

fn signed(block: Block) -> Bytes {
    Signed::with_signature(block, Signature::ZERO).bytes().clone()
}

fn commit(blocks: usize) -> UnverifiedCommit {
    UnverifiedCommit::from(Commit {
        index: 1,
        previous_digest: Default::default(),
        timestamp_ms: 0,
        leader: REF,
        blocks: vec![REF; blocks],
        epoch: 0,
    })
}

/// The longest possible address.
fn longest_address() -> Address {
    let name = [&*"a".repeat(63); 4].join(".")[..253].to_owned();
    format!("/dns/{name}/tcp/65535").parse().unwrap()
}

fn committee(size: usize) -> Committee {
    let address = longest_address();
    let key = |purpose: u8, index: usize| {
        let mut seed = [purpose; 32];
        seed[..8].copy_from_slice(&(index as u64).to_le_bytes());
        PublicKey::from(&SigningKey::from_bytes(&seed))
    };
    let authorities = (0..size).map(|index| Authority {
        stake: 1,
        protocol_key: key(1, index),
        network_key: key(2, index),
        address: address.clone(),
    });
    Committee { epoch: 0, authorities: authorities.collect() }
}

#[test]
fn largest_block_decodes_and_one_byte_more_does_not() {
    let of = |payload| Block { transactions: vec![TransactionBytes(Bytes::from(vec![7; payload]))], ..block() };
    let frame = signed(of(0)).len();
    let largest = signed(of(MAX_BLOCK_BYTES - frame));
    assert_eq!(largest.len(), MAX_BLOCK_BYTES);
    assert!(SignedBlock::decode(largest).is_ok());
    let over = SignedBlock::decode(signed(of(MAX_BLOCK_BYTES - frame + 1)));
    assert_eq!(over, Err(CodecError::TooLarge { what: "block", size: MAX_BLOCK_BYTES + 1, limit: MAX_BLOCK_BYTES }));
}

#[test]
fn block_with_every_list_at_its_limit_decodes() {
    let full = Block {
        ancestors: vec![REF; MAX_COMMITTEE_SIZE],
        transactions: vec![TransactionBytes(Bytes::from_static(&[1; 80])); MAX_TRANSACTIONS_PER_BLOCK],
        commit_votes: vec![CommitRef { index: 1, digest: Default::default() }; MAX_COMMIT_VOTES_PER_BLOCK],
        ..block()
    };
    assert!(SignedBlock::decode(signed(full)).is_ok());
}

#[test]
fn largest_commit_decodes() {
    let largest = commit(MAX_BLOCKS_PER_COMMIT);
    assert!(largest.bytes().len() <= MAX_COMMIT_BYTES);
    assert_eq!(UnverifiedCommit::decode(largest.bytes().clone()), Ok(largest));
}

#[test]
fn largest_committee_can_be_decoded_again() {
    let largest = committee(MAX_COMMITTEE_SIZE);
    assert_eq!(largest.validate(), Ok(()));
    let bytes = codec::encode(&largest);
    assert!(bytes.len() <= MAX_COMMITTEE_BYTES, "{}", bytes.len());
    assert_eq!(Committee::decode(&bytes), Ok(largest));
    assert_eq!(
        committee(MAX_COMMITTEE_SIZE + 1).validate(),
        Err(CommitteeError::Size { size: MAX_COMMITTEE_SIZE + 1 })
    );
}

#[test]
fn node_info_has_at_most_eight_distinct_addresses() {
    let info = |addresses| NodeInfo {
        peer_id: PeerId([1; 32]),
        addresses,
        chain_id: ChainId([2; 32]),
        timestamp_ms: 3,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: NodeRole::FullNode, archive: false, lowest_commit: 7 },
        access: Access::Public,
    };
    let of = |addresses| Signed::with_signature(info(addresses), Signature::ZERO).bytes().clone();
    let at = |port| format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
    let bytes = |count| of((1..=count).map(at).collect());
    assert!(SignedNodeInfo::decode_bounded(bytes(MAX_ADDRESSES_PER_NODE)).is_ok());
    let over = SignedNodeInfo::decode_bounded(bytes(MAX_ADDRESSES_PER_NODE + 1));
    assert!(matches!(over, Err(CodecError::TooLarge { what: "list of addresses", size: 9, .. })), "{over:?}");
    let repeated = SignedNodeInfo::decode_bounded(of([1, 2, 1, 1].map(at).to_vec()));
    let Err(CodecError::Malformed { what: "list of addresses", reason }) = repeated else { panic!("{repeated:?}") };
    assert_eq!(reason, "2 of its 4 addresses are repeated");
}

#[test]
fn length_prefix_beyond_the_input_is_refused() {
    // The length of `ancestors` follows epoch, round, author and timestamp.
    let at = 8 + 4 + 4 + 8;
    for claim in [1, 1 << 20, 1 << 40, u64::MAX] {
        let mut bytes = signed(block()).to_vec();
        bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
        assert!(matches!(SignedBlock::decode(bytes.into()), Err(CodecError::Malformed { .. })), "{claim}");
    }
}

#[test]
fn fewer_bytes_than_a_signature_are_refused() {
    let lens = [0, Signature::BYTES, 1, Signature::BYTES - 1];
    let blocks: Vec<_> = lens.iter().map(|&len| Bytes::from(vec![0; len])).collect();
    for block in &blocks {
        assert!(SignedBlock::decode(block.clone()).is_err(), "{} bytes", block.len());
    }
    let named: Vec<_> = HashedBlock::hash_each(blocks).iter().map(Result::is_ok).collect();
    assert_eq!(named, [false, true, false, false], "bytes shorter than a signature have no digest");
}

#[test]
fn address_without_a_host_is_refused() {
    for text in ["/dns//tcp/0", "/dns//tcp/9000", "/ip4//tcp/1", "/dns/tcp/1"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
    let encoded = codec::encode("/dns//tcp/0");
    assert!(codec::decode::<Address>(&encoded, "address", 64).is_err());
}
