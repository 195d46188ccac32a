//! One test for each rule of `verify_node_info`, with its error and kind of fault.

use soma_types::{
    Access, Capabilities, ChainId, CodecError, Fault, KeyError, NodeInfo, NodeRole, PeerId, ProtocolVersions,
    PublicKey, Signature, Signed, SignedNodeInfo, SigningKey, limits::MAX_ADDRESSES_PER_NODE,
};
use soma_verify::{MAX_CLOCK_SKEW_MS, MAX_NODE_INFO_AGE_MS, NodeInfoError, verify_node_info};

const CHAIN: ChainId = ChainId([3; 32]);
const NOW_MS: u64 = 1_700_000_000_000;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn info() -> NodeInfo {
    NodeInfo {
        peer_id: PeerId::from(&key()),
        addresses: vec!["/ip4/192.0.2.1/tcp/9000".parse().unwrap()],
        chain_id: CHAIN,
        timestamp_ms: NOW_MS,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: NodeRole::Validator, archive: true, lowest_commit: 1 },
        access: Access::Public,
    }
}

fn check(info: NodeInfo) -> Result<SignedNodeInfo, NodeInfoError> {
    let signed = Signed::sign(info, CHAIN, &key());
    verify_node_info(CHAIN, signed.bytes().clone(), NOW_MS)
}

#[track_caller]
fn refused(result: Result<SignedNodeInfo, NodeInfoError>, error: NodeInfoError, fault: Fault) {
    assert_eq!(result, Err(error.clone()));
    assert_eq!(error.fault(), fault, "{error}");
}

#[test]
fn info_signed_by_its_own_node_is_accepted() {
    assert_eq!(check(info()).unwrap().value(), &info());
}

#[test]
fn bytes_that_are_no_node_info_are_malformed() {
    let error = verify_node_info(CHAIN, vec![1; 200].into(), NOW_MS).unwrap_err();
    assert!(matches!(error, NodeInfoError::Codec(_)));
    assert_eq!(error.fault(), Fault::Malformed);
}

#[test]
fn more_addresses_than_a_node_may_have_are_malformed() {
    let (limit, size) = (MAX_ADDRESSES_PER_NODE, MAX_ADDRESSES_PER_NODE + 1);
    let addresses = vec![info().addresses[0].clone(); size];
    let error = CodecError::TooLarge { what: "list of addresses", size, limit };
    refused(check(NodeInfo { addresses, ..info() }), error.into(), Fault::Malformed);
}

#[test]
fn node_of_another_chain_is_refused_but_no_liar() {
    let found = ChainId([4; 32]);
    let error = NodeInfoError::OtherChain { peer: info().peer_id, expected: CHAIN, found };
    refused(check(NodeInfo { chain_id: found, ..info() }), error, Fault::Unproven);
}

#[test]
fn info_too_far_ahead_of_our_clock_is_refused_but_no_lie() {
    let at = |timestamp_ms| check(NodeInfo { timestamp_ms, ..info() });
    assert!(at(NOW_MS + MAX_CLOCK_SKEW_MS).is_ok());
    let too_new = |ahead_ms| NodeInfoError::TooNew { peer: info().peer_id, ahead_ms };
    refused(at(NOW_MS + MAX_CLOCK_SKEW_MS + 1), too_new(MAX_CLOCK_SKEW_MS + 1), Fault::Unproven);
    refused(at(u64::MAX), too_new(u64::MAX - NOW_MS), Fault::Unproven);
}

#[test]
fn info_that_is_too_old_is_refused_but_no_lie() {
    let at = |timestamp_ms| check(NodeInfo { timestamp_ms, ..info() });
    assert!(at(NOW_MS - MAX_NODE_INFO_AGE_MS).is_ok());
    let too_old = |age_ms| NodeInfoError::TooOld { peer: info().peer_id, age_ms };
    refused(at(NOW_MS - MAX_NODE_INFO_AGE_MS - 1), too_old(MAX_NODE_INFO_AGE_MS + 1), Fault::Unproven);
    refused(at(0), too_old(NOW_MS), Fault::Unproven);
}

#[test]
fn empty_range_of_versions_is_malformed() {
    let versions = ProtocolVersions { min: 2, max: 1 };
    let error = NodeInfoError::NoVersions { peer: info().peer_id, versions };
    refused(check(NodeInfo { protocol_versions: versions, ..info() }), error, Fault::Malformed);
}

#[test]
fn peer_id_that_is_no_key_is_malformed() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for bytes in [neutral, [0xff; 32]] {
        let error = NodeInfoError::Key(KeyError { key: PublicKey(bytes) });
        refused(check(NodeInfo { peer_id: PeerId(bytes), ..info() }), error, Fault::Malformed);
    }
}

#[test]
fn info_that_its_node_did_not_sign_is_a_lie() {
    let error = || NodeInfoError::BadSignature { peer: info().peer_id };
    for signed in [
        Signed::sign(info(), CHAIN, &SigningKey::from_bytes(&[6; 32])),
        Signed::sign(info(), ChainId([4; 32]), &key()),
        Signed::with_signature(info(), Signature::ZERO),
        Signed::with_signature(info(), Signature([0xff; 64])),
    ] {
        refused(verify_node_info(CHAIN, signed.bytes().clone(), NOW_MS), error(), Fault::ProvableLie);
    }
}
