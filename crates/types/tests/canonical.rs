//! One value, one encoding: every decoded value encodes to the same bytes, so that the digest of received bytes is the
//! digest of the value.

mod arbitrary;

use arbitrary::{block, certificate, commit, committee, damage, damaged, genesis, node_info};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use soma_types::{
    Certificate, Committee, EncodedCertificate, Genesis, HashedBlock, Signable, Signed, SignedBlock, SignedNodeInfo,
    UnverifiedCommit, codec, limits,
};

fn certificate_of(bytes: &[u8]) -> Option<Certificate> {
    codec::decode(bytes, "certificate", limits::MAX_BLOCK_BYTES).ok()
}

/// Encodes a decoded value again.
fn again<T: Signable + Clone>(signed: &Signed<T>) -> Bytes {
    Signed::with_signature(signed.value().clone(), *signed.signature()).bytes().clone()
}

/// Decodes `bytes` as every type. Each decoded value must encode to the same bytes.
fn assert_canonical(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let bytes = Bytes::from(bytes);
    if let Ok(block) = SignedBlock::decode(bytes.clone()) {
        prop_assert_eq!(&again(&block), &bytes);
        let hashed = HashedBlock::hash_each(vec![bytes.clone()]).remove(0).expect("more than a signature");
        prop_assert_eq!(hashed.digest(), block.reference().digest);
        prop_assert_eq!(hashed.decode(), Ok(block));
    }
    if let Ok(info) = SignedNodeInfo::decode_bounded(bytes.clone()) {
        prop_assert_eq!(&again(&info), &bytes);
    }
    if let Ok(commit) = UnverifiedCommit::decode(bytes.clone()) {
        let made = UnverifiedCommit::from((*commit).clone());
        prop_assert_eq!(made.bytes(), &bytes);
        prop_assert_eq!(made.reference(), commit.reference());
    }
    if let Ok(committee) = Committee::decode(&bytes) {
        prop_assert_eq!(codec::encode(&committee), &bytes[..]);
    }
    if let Ok(genesis) = Genesis::decode(&bytes) {
        prop_assert_eq!(genesis.encode(), &bytes[..]);
    }
    let lying = EncodedCertificate::decode(&bytes);
    prop_assert_eq!(lying.is_ok(), certificate_of(&bytes).is_some());
    if let (Some(certificate), Ok(lying)) = (certificate_of(&bytes), lying) {
        prop_assert_eq!(codec::encode(&certificate), &bytes[..]);
        let signed = &certificate.signed_transaction;
        prop_assert_eq!(lying.transaction_digest(), signed.transaction.digest());
        prop_assert_eq!(lying.signed_digest(), Certificate::signed_digest(certificate.epoch, signed));
        prop_assert_eq!((lying.epoch, lying.sender), (certificate.epoch, signed.transaction.sender));
        prop_assert_eq!((lying.payload, lying.signature), (&signed.transaction.payload[..], signed.signature));
        prop_assert_eq!(lying.quorum, certificate.quorum);
    }
    Ok(())
}

/// An encoding of any kind.
fn encoding() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        block().prop_map(|(block, signature)| Signed::with_signature(block, signature).bytes().to_vec()),
        node_info().prop_map(|(info, signature)| Signed::with_signature(info, signature).bytes().to_vec()),
        commit().prop_map(|commit| codec::encode(&commit)),
        committee().prop_map(|committee| codec::encode(&committee)),
        genesis().prop_map(|genesis| genesis.encode()),
        certificate().prop_map(|certificate| codec::encode(&certificate)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn damaged_encoding_is_refused_or_is_canonical_for_another_value(
        bytes in encoding(),
        damage in damage(),
    ) {
        assert_canonical(damaged(bytes, &damage))?;
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(bytes in vec(any::<u8>(), 0..400)) {
        assert_canonical(bytes)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn block_round_trips_through_its_bytes((block, signature) in block()) {
        let made = SignedBlock::from(Signed::with_signature(block.clone(), signature));
        let decoded = SignedBlock::decode(made.bytes().clone()).unwrap();
        prop_assert_eq!(decoded.value(), &block);
        prop_assert_eq!(decoded.signature(), &signature);
        prop_assert_eq!(decoded, made);
    }

    #[test]
    fn node_info_round_trips_through_its_bytes((info, signature) in node_info()) {
        let made = Signed::with_signature(info, signature);
        prop_assert_eq!(SignedNodeInfo::decode_bounded(made.bytes().clone()).unwrap(), made);
    }

    #[test]
    fn commit_round_trips_through_its_bytes(commit in commit()) {
        let made = UnverifiedCommit::from(commit);
        prop_assert_eq!(UnverifiedCommit::decode(made.bytes().clone()).unwrap(), made);
    }

    #[test]
    fn committees_genesis_and_certificates_round_trip_through_their_bytes(
        committee in committee(),
        genesis in genesis(),
        certificate in certificate(),
    ) {
        prop_assert_eq!(Committee::decode(&codec::encode(&committee)).unwrap(), committee);
        prop_assert_eq!(Genesis::decode(&genesis.encode()).unwrap(), genesis);
        prop_assert_eq!(certificate_of(&codec::encode(&certificate)).unwrap(), certificate);
    }

    #[test]
    fn trailing_byte_is_refused(bytes in encoding(), extra in any::<u8>()) {
        // Signed values are excluded: one more byte shifts the signature, and the bytes may decode as another value.
        let longer: Vec<u8> = bytes.iter().copied().chain([extra]).collect();
        if Committee::decode(&bytes).is_ok() {
            prop_assert!(Committee::decode(&longer).is_err());
        }
        if UnverifiedCommit::decode(bytes.clone().into()).is_ok() {
            prop_assert!(UnverifiedCommit::decode(longer.clone().into()).is_err());
        }
        if certificate_of(&bytes).is_some() {
            prop_assert!(certificate_of(&longer).is_none());
        }
    }
}
