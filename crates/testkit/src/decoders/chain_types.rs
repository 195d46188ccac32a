//! The chain's types in the canonical codec: from peers and from disk.

use super::{
    decoder::Decoder,
    seeds::{Chain, context, genesis},
};
use bytes::Bytes;
use soma_store::{MemStore, Store};
use soma_types::{
    Access, Address, AuthoritySignature, BlockRef, Capabilities, Certificate, ChainId, Checkpoint, CommitRef,
    Committee, EncodedCertificate, EndOfEpoch, EpochProof, Genesis, HashedBlock, NodeInfo, NodeRole, PeerId,
    ProtocolVersions, QuorumSignatures, Signable, Signature, Signed, SignedBlock, SignedNodeInfo, TrustedCommit,
    UnverifiedCommit, VerifiedBlock, codec, limits,
};
use soma_verify::{
    CertificateVerifier, EpochContext, TransactionError, check_commits, verify_blocks, verify_checkpoint,
    verify_epoch_proof, verify_node_info, verify_sub_dag, verify_transaction,
};

/// Puts a decoded value together again.
fn again<T: Signable + Clone>(signed: &Signed<T>) -> Bytes {
    Signed::with_signature(signed.value().clone(), *signed.signature()).bytes().clone()
}

pub(crate) const BLOCK: Decoder = Decoder {
    name: "block",
    decode: |bytes| SignedBlock::decode(Bytes::copy_from_slice(bytes)).is_ok(),
    check: |input| {
        let bytes = Bytes::copy_from_slice(input);
        let Ok(block) = SignedBlock::decode(bytes.clone()) else { return false };
        assert_eq!(again(&block), bytes, "a block has one encoding");
        let hashed = HashedBlock::hash_each(vec![bytes.clone()]).remove(0).expect("a block has a signature");
        assert_eq!(hashed.digest(), block.reference().digest, "a digest names the bytes");
        let checked = verify_blocks(context(), &CertificateVerifier, &[block.reference()], vec![bytes.clone()]);
        if let Ok(verified) = checked {
            assert_eq!(verified[0].bytes(), &bytes, "what is verified is what came");
        }
        if let Some(end) = &block.end_of_epoch {
            committee_holds(&end.next_committee);
        }
        true
    },
    seeds: |chain| chain.blocks().map(|block| block.bytes().to_vec()).collect(),
    // What is cut off moves the signature, and what then decodes may be another value.
    refuses_truncated: false,
};

pub(crate) const COMMIT: Decoder = Decoder {
    name: "commit",
    decode: |bytes| UnverifiedCommit::decode(Bytes::copy_from_slice(bytes)).is_ok(),
    check: |input| {
        let bytes = Bytes::copy_from_slice(input);
        let Ok(commit) = UnverifiedCommit::decode(bytes.clone()) else { return false };
        let made = UnverifiedCommit::from((*commit).clone());
        assert_eq!(made.bytes(), &bytes, "a commit has one encoding");
        assert_eq!(made.reference(), commit.reference(), "a digest names the bytes");
        let checked = check_commits(context(), commit.index, commit.index, vec![bytes], vec![]);
        assert!(checked.is_err(), "without votes nothing is certified");
        let _ = verify_sub_dag(context(), &TrustedCommit::assume_trusted(commit), &Vec::<VerifiedBlock>::new());
        true
    },
    seeds: |chain| chain.commits.iter().map(|certified| certified.commit.bytes().to_vec()).collect(),
    refuses_truncated: true,
};

/// Whatever stakes and keys it has, what is asked of a committee has an answer.
fn committee_holds(committee: &Committee) {
    let everybody = 0..committee.authorities.len() as u32;
    assert_eq!(committee.stake_of(everybody), committee.total_stake());
    assert!(committee.quorum() <= committee.total_stake());
    let size = committee.authorities.len();
    // Points of the curve are checked one by one: a few show what many do.
    if size <= 16 && EpochContext::new(ChainId([0; 32]), committee.clone()).is_ok() {
        assert!((1..=limits::MAX_COMMITTEE_SIZE).contains(&size));
        assert!(committee.quorum() > committee.total_stake() / 2, "two quorums have a member in common");
    }
}

pub(crate) const COMMITTEE: Decoder = Decoder {
    name: "committee",
    decode: |bytes| Committee::decode(bytes).is_ok(),
    check: |bytes| {
        let Ok(committee) = Committee::decode(bytes) else { return false };
        assert_eq!(codec::encode(&committee), bytes, "a committee has one encoding");
        committee_holds(&committee);
        true
    },
    seeds: |chain| vec![codec::encode(chain.genesis.committee()), codec::encode(&chain.next_committee)],
    refuses_truncated: true,
};

pub(crate) const GENESIS: Decoder = Decoder {
    name: "genesis",
    decode: |bytes| Genesis::decode(bytes).is_ok(),
    check: |bytes| {
        let Ok(genesis) = Genesis::decode(bytes) else { return false };
        assert_eq!(genesis.encode(), bytes, "a genesis has one encoding");
        committee_holds(genesis.committee());
        assert_eq!(genesis.commit().previous_digest.0, genesis.chain_id().0, "its commit tells the chain");
        true
    },
    seeds: |chain| vec![chain.genesis.encode()],
    refuses_truncated: true,
};

pub(crate) const NODE_INFO: Decoder = Decoder {
    name: "node_info",
    decode: |bytes| SignedNodeInfo::decode_bounded(Bytes::copy_from_slice(bytes)).is_ok(),
    check: |input| {
        let bytes = Bytes::copy_from_slice(input);
        let Ok(info) = SignedNodeInfo::decode_bounded(bytes.clone()) else { return false };
        assert_eq!(again(&info), bytes, "a node info has one encoding");
        assert!(info.addresses.len() <= limits::MAX_ADDRESSES_PER_NODE);
        for now_ms in [0, info.timestamp_ms, u64::MAX] {
            if let Ok(verified) = verify_node_info(info.chain_id, bytes.clone(), now_ms) {
                assert_eq!(verified.bytes(), &bytes, "what is verified is what came");
            }
        }
        true
    },
    seeds: |chain| {
        let texts = ["/ip4/127.0.0.1/tcp/9000", "/ip6/::1/tcp/1", "/dns/node.example/tcp/9000"];
        let addresses: Vec<Address> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let kinds = [(NodeRole::Validator, Access::Public), (NodeRole::FullNode, Access::Private)];
        let of = |(role, access)| {
            let info = NodeInfo {
                peer_id: PeerId::from(&chain.network_key),
                addresses: addresses.clone(),
                chain_id: chain.chain_id(),
                timestamp_ms: chain.genesis.timestamp_ms(),
                protocol_versions: ProtocolVersions::SUPPORTED,
                capabilities: Capabilities { role, archive: false, lowest_commit: 7 },
                access,
            };
            SignedNodeInfo::sign(info, chain.chain_id(), &chain.network_key).bytes().to_vec()
        };
        kinds.map(of).to_vec()
    },
    refuses_truncated: false,
};

fn certificate(bytes: &[u8]) -> Option<Certificate> {
    codec::decode(bytes, "certificate", limits::MAX_BLOCK_BYTES).ok()
}

pub(crate) const CERTIFICATE: Decoder = Decoder {
    name: "certificate",
    decode: |bytes| certificate(bytes).is_some() && EncodedCertificate::decode(bytes).is_ok(),
    check: |bytes| {
        let lying = EncodedCertificate::decode(bytes);
        let owned = certificate(bytes);
        assert_eq!(lying.is_ok(), owned.is_some(), "where it lies and decoded, a certificate is one or none");
        // Whatever it is, the check ends without a panic.
        let verdict = verify_transaction(context(), &CertificateVerifier, bytes);
        assert!(!matches!(verdict, Err(TransactionError::Panicked { .. })), "{verdict:?}");
        let (Ok(lying), Some(certificate)) = (lying, owned) else { return false };
        assert_eq!(codec::encode(&certificate), bytes, "a certificate has one encoding");
        let signed = &certificate.signed_transaction;
        assert_eq!(lying.transaction_digest(), signed.transaction.digest());
        assert_eq!(lying.signed_digest(), Certificate::signed_digest(certificate.epoch, signed));
        true
    },
    seeds: |chain| {
        let transactions = chain.blocks().flat_map(|block| &block.transactions);
        transactions.take(8).map(|transaction| transaction.0.to_vec()).collect()
    },
    refuses_truncated: true,
};

/// Decodes bytes as one type; what comes out goes back to them.
fn part<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8], encodes: bool) -> bool {
    let Ok(value) = codec::decode::<T>(bytes, "part", limits::MAX_COMMITTEE_BYTES) else { return false };
    assert!(!encodes || codec::encode(&value) == bytes, "{} has one encoding", std::any::type_name::<T>());
    true
}

/// The types of which the others are made, and those that lie alone in a table of the store.
fn parts(bytes: &[u8], encodes: bool) -> bool {
    let forms = [
        part::<BlockRef>(bytes, encodes),
        part::<CommitRef>(bytes, encodes),
        part::<EndOfEpoch>(bytes, encodes),
        part::<QuorumSignatures>(bytes, encodes),
        part::<AuthoritySignature>(bytes, encodes),
        part::<Signature>(bytes, encodes),
        part::<Address>(bytes, encodes),
        part::<ChainId>(bytes, encodes),
        part::<PeerId>(bytes, encodes),
        part::<u32>(bytes, encodes),
    ];
    forms.contains(&true)
}

pub(crate) const PARTS: Decoder = Decoder {
    name: "parts",
    decode: |bytes| parts(bytes, false),
    check: |bytes| parts(bytes, true),
    seeds: |chain| {
        let end = chain.commits.iter().find_map(|certified| certified.end_of_epoch());
        let commit = &chain.commits[0].commit;
        let mut seeds = vec![
            codec::encode(&commit.leader),
            codec::encode(&commit.reference()),
            codec::encode(&chain.genesis.committee().authorities[0].address),
            codec::encode(&Signature::ZERO),
            codec::encode(&chain.chain_id()),
            codec::encode(&commit.index),
        ];
        seeds.extend(end.map(codec::encode));
        seeds.extend(end.map(|end| codec::encode(&end.certificate)));
        seeds
    },
    refuses_truncated: false,
};

pub(crate) const EPOCH_PROOF: Decoder = Decoder {
    name: "epoch_proof",
    decode: |bytes| EpochProof::decode(bytes).is_ok(),
    check: |bytes| {
        let Ok(proof) = EpochProof::decode(bytes) else { return false };
        assert_eq!(proof.encode(), bytes, "a proof has one encoding");
        if let Ok(end) = verify_epoch_proof(context(), &genesis().commit(), &proof) {
            committee_holds(&end.next_committee);
        }
        true
    },
    seeds: |chain| proofs(chain).iter().map(EpochProof::encode).collect(),
    refuses_truncated: true,
};

/// The proof of the ended epoch, as a store makes it.
fn proofs(chain: &Chain) -> Vec<EpochProof> {
    let store = MemStore::new(&chain.genesis);
    let proof = store.apply(&chain.commits).and_then(|_| store.epoch_proof(0));
    proof.ok().flatten().into_iter().collect()
}

pub(crate) const CHECKPOINT: Decoder = Decoder {
    name: "checkpoint",
    decode: |bytes| Checkpoint::decode(bytes).is_ok(),
    check: |bytes| {
        let Ok(checkpoint) = Checkpoint::decode(bytes) else { return false };
        assert_eq!(checkpoint.encode(), bytes, "a checkpoint has one encoding");
        if let Ok(end) = verify_checkpoint(genesis(), &checkpoint) {
            committee_holds(&end.next_committee);
        }
        true
    },
    seeds: |chain| {
        let (chain_id, committee) = (chain.chain_id(), chain.genesis.committee().clone());
        let of = |proof| Checkpoint { chain_id, committee: committee.clone(), proof }.encode();
        proofs(chain).into_iter().map(of).collect()
    },
    refuses_truncated: true,
};
