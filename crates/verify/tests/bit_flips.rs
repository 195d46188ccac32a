//! Every flipped bit in signed or certified data is detected, and no bytes make a check panic.

mod support;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use soma_testkit::flip_bit;
use soma_types::{
    Access, BlockDigest, BlockRef, Capabilities, EndOfEpoch, Fault, NodeInfo, NodeRole, PeerId, ProtocolVersions,
    Signed, SigningKey, TransactionBytes, codec, limits::MAX_BLOCK_BYTES,
};
use soma_verify::{BlocksError, CertificateVerifier, check_commits, verify_blocks, verify_node_info, verify_sub_dag};
use support::{CHAIN, PER_EPOCH, all_bytes, bytes, commit_bytes, transaction, verified, verify_one};

fn flipped(bytes: &[u8], at: Index) -> Bytes {
    flip_bit(bytes, at.index(bytes.len() * 8))
}

fn check_three(commits: Vec<Bytes>, certifiers: Vec<Bytes>) -> bool {
    check_commits(&CHAIN.context, 1, 3, commits, certifiers).is_ok()
}

fn node_info() -> Bytes {
    let key = SigningKey::from_bytes(&[5; 32]);
    let info = NodeInfo {
        peer_id: PeerId::from(&key),
        addresses: vec!["/dns/node.example/tcp/9000".parse().unwrap()],
        chain_id: CHAIN.builder.chain_id(),
        timestamp_ms: 1_700_000_000_000,
        protocol_versions: ProtocolVersions { min: 1, max: 3 },
        capabilities: Capabilities { role: NodeRole::Validator, archive: true, lowest_commit: 1 },
        access: Access::Public,
    };
    Signed::sign(info, CHAIN.builder.chain_id(), &key).bytes().clone()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn block_with_any_bit_flipped_is_a_lie(which in any::<Index>(), at in any::<Index>()) {
        let certified = CHAIN.commit(4);
        let mut blocks = all_bytes(&certified.blocks);
        let which = which.index(blocks.len());
        blocks[which] = flipped(&blocks[which], at);
        let result = verify_blocks(&CHAIN.context, &CertificateVerifier, &certified.commit.blocks, blocks);
        let error = BlocksError::WrongBlock { reference: certified.commit.blocks[which] };
        prop_assert_eq!(result, Err(error.clone()));
        prop_assert_eq!(error.fault(), Fault::ProvableLie);
    }

    #[test]
    fn commit_with_any_bit_flipped_is_refused(which in 0..3usize, at in any::<Index>()) {
        let mut commits = commit_bytes(&CHAIN.commits[..3]);
        commits[which] = flipped(&commits[which], at);
        prop_assert!(!check_three(commits, all_bytes(&CHAIN.commit(3).certifiers)));
    }

    #[test]
    fn certifier_block_with_any_bit_flipped_is_refused(which in any::<Index>(), at in any::<Index>()) {
        let mut certifiers = all_bytes(&CHAIN.commit(3).certifiers);
        let which = which.index(certifiers.len());
        certifiers[which] = flipped(&certifiers[which], at);
        prop_assert!(!check_three(commit_bytes(&CHAIN.commits[..3]), certifiers));
    }

    #[test]
    fn certificate_with_any_bit_flipped_is_refused(at in any::<Index>()) {
        let certificate = transaction(&CHAIN.certificate(0, &[0, 1, 3]));
        let certificate = TransactionBytes(flipped(&certificate.0, at));
        let block = CHAIN.changed(&CHAIN.commit(4).blocks[0], |block| block.transactions = vec![certificate]);
        let error = verify_one(&block).unwrap_err();
        prop_assert!(matches!(error, BlocksError::Invalid { .. }), "{}", error);
    }

    #[test]
    fn handover_with_any_bit_flipped_is_refused(at in any::<Index>()) {
        let certified = CHAIN.last_of_epoch();
        let (leader, others) = certified.blocks.split_last().unwrap();
        let handover = flipped(&codec::encode(certified.end_of_epoch().unwrap()), at);
        // Bytes that do not decode are no handover.
        if let Ok(end) = codec::decode::<EndOfEpoch>(&handover, "handover", MAX_BLOCK_BYTES) {
            let leader = CHAIN.changed(leader, |leader| leader.end_of_epoch = Some(end));
            let blocks = [others, &[verified(leader)]].concat();
            let commit = CHAIN.commit_of(&certified.commit, &blocks);
            prop_assert!(verify_sub_dag(&CHAIN.context, &commit, &blocks).is_err());
        }
    }

    #[test]
    fn node_info_with_any_bit_flipped_is_refused(at in any::<Index>()) {
        let chain = CHAIN.builder.chain_id();
        prop_assert!(verify_node_info(chain, node_info(), 1_700_000_000_000).is_ok());
        prop_assert!(verify_node_info(chain, flipped(&node_info(), at), 1_700_000_000_000).is_err());
    }

    #[test]
    fn arbitrary_responses_are_refused_without_a_panic(
        junk in vec(vec(any::<u8>(), 0..300), 1..4),
        place in any::<(u64, u32, u32, [u8; 32])>(),
        range in any::<(u32, u32)>(),
    ) {
        let junk: Vec<Bytes> = junk.into_iter().map(Bytes::from).collect();
        let (epoch, round, author, digest) = place;
        let refs = vec![BlockRef { epoch, round, author, digest: BlockDigest(digest) }; junk.len()];
        prop_assert!(verify_blocks(&CHAIN.context, &CertificateVerifier, &refs, junk.clone()).is_err());
        prop_assert!(check_commits(&CHAIN.context, range.0, range.1, junk.clone(), junk.clone()).is_err());
        prop_assert!(!check_three(commit_bytes(&CHAIN.commits[..3]), junk.clone()));
        prop_assert!(verify_node_info(CHAIN.builder.chain_id(), junk[0].clone(), round.into()).is_err());
    }

    #[test]
    fn well_formed_blocks_of_arbitrary_content_are_refused_without_a_panic(
        place in any::<(u64, u32, u32, u64)>(),
        ancestors in vec(any::<(u32, u32, [u8; 32])>(), 0..6),
        in_context in any::<bool>(),
    ) {
        let block = CHAIN.changed(&CHAIN.commit(4).blocks[0], |block| {
            let (epoch, round, author, timestamp_ms) = place;
            (block.epoch, block.round, block.timestamp_ms) = (if in_context { 0 } else { epoch }, round, timestamp_ms);
            block.author = if in_context { author % 4 } else { author };
            block.ancestors = ancestors.iter().map(|&(round, author, digest)| BlockRef {
                epoch: block.epoch,
                round,
                author: if in_context { author % 5 } else { author },
                digest: BlockDigest(digest),
            }).collect();
        });
        // A block on unknown ancestors may be valid on its own. Only the absence of a panic counts here.
        let _ = verify_one(&block);
        let certifiers = vec![bytes(&block)];
        prop_assert!(!check_three(commit_bytes(&CHAIN.commits[..3]), certifiers));
        let blocks = [verified(block)];
        let commit = CHAIN.commit_of(&CHAIN.commit(PER_EPOCH - 1).commit, &blocks);
        let _ = verify_sub_dag(&CHAIN.context, &commit, &blocks);
    }
}
