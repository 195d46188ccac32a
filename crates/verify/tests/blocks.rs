//! One test for each rule of `verify_blocks`, with its error and kind of fault.

mod support;

use bytes::Bytes;
use soma_types::{
    AuthorityIndex, Block, BlockDigest, BlockRef, Certificate, CodecError, CommitRef, Fault, HashedBlock, KeyError,
    PublicKey, Scope, Signature, Signed, SignedBlock, TransactionBytes, VerifiedBlock,
    limits::{MAX_BLOCK_BYTES, MAX_COMMIT_VOTES_PER_BLOCK, MAX_TRANSACTIONS_PER_BLOCK},
};
use soma_verify::{
    BlockError, BlocksError, BlocksVerdict, CertificateVerifier, CheckObserver, CheckedBlocks, Checks, EpochContext,
    QuorumError, TransactionError, TransactionSignatures, TransactionVerifier, check_blocks, verify_blocks,
    verify_transaction,
};
use support::{CHAIN, all_bytes, bytes, transaction, verify_one};

/// A block of the chain with ancestors of rounds above genesis; its author is 0.
fn block() -> &'static Block {
    let block = CHAIN.commit(4).blocks.iter().find(|block| block.author == 0 && block.round > 2);
    block.expect("each commit but the first has a block of most authors").value()
}

/// Expects that the changed block, signed again and named by a trusted commit, is refused with `error`, and that the
/// fault is not the serving peer's.
#[track_caller]
fn breaks(error: BlockError, change: impl FnOnce(&mut Block)) {
    let block = CHAIN.changed(block(), change);
    invalid(&block, error);
}

#[track_caller]
fn invalid(block: &SignedBlock, source: BlockError) {
    let error = BlocksError::Invalid { reference: block.reference(), source };
    assert_eq!(verify_one(block), Err(error.clone()));
    assert_eq!(error.fault(), Fault::Ours);
}

#[track_caller]
fn refuses_transaction(transaction: TransactionBytes, source: TransactionError) {
    let position = block().transactions.len();
    breaks(BlockError::Transaction { position, source }, |block| block.transactions.push(transaction));
}

fn refs() -> Vec<BlockRef> {
    CHAIN.commit(4).commit.blocks.clone()
}

#[test]
fn requested_blocks_are_accepted_in_their_order() {
    let blocks = all_bytes(&CHAIN.commit(4).blocks);
    let verified = verify_blocks(&CHAIN.context, &CertificateVerifier, &refs(), blocks).unwrap();
    assert_eq!(verified, CHAIN.commit(4).blocks);
    assert_eq!(verify_blocks(&CHAIN.context, &CertificateVerifier, &[], vec![]), Ok(vec![]));
    assert!(verify_one(&CHAIN.sign(block().clone())).is_ok(), "the block is valid before a test changes it");
}

#[test]
fn another_number_of_blocks_than_requested_is_malformed() {
    let mut blocks = all_bytes(&CHAIN.commit(4).blocks);
    let asked = blocks.len();
    blocks.pop();
    let error = BlocksError::Count { asked, received: asked - 1 };
    assert_eq!(verify_blocks(&CHAIN.context, &CertificateVerifier, &refs(), blocks), Err(error.clone()));
    assert_eq!(error.fault(), Fault::Malformed);
}

#[test]
fn bytes_with_another_digest_than_the_reference_are_a_lie() {
    let right = all_bytes(&CHAIN.commit(4).blocks);
    let another_valid_block = bytes(&CHAIN.commit(3).blocks[0]);
    let nothing = Bytes::new();
    let junk = Bytes::from_static(&[7; 500]);
    let too_large = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
    for wrong in [another_valid_block, nothing, junk, too_large] {
        let mut blocks = right.clone();
        blocks[1] = wrong;
        let error = BlocksError::WrongBlock { reference: refs()[1] };
        assert_eq!(verify_blocks(&CHAIN.context, &CertificateVerifier, &refs(), blocks), Err(error.clone()));
        assert_eq!(error.fault(), Fault::ProvableLie);
    }
}

#[test]
fn blocks_in_another_order_than_requested_are_a_lie() {
    let mut blocks = all_bytes(&CHAIN.commit(4).blocks);
    blocks.swap(0, 1);
    let error = BlocksError::WrongBlock { reference: refs()[0] };
    assert_eq!(verify_blocks(&CHAIN.context, &CertificateVerifier, &refs(), blocks), Err(error));
}

#[test]
fn certified_bytes_that_are_no_block_are_not_the_peers_fault() {
    let junk = Bytes::from_static(&[7; 500]);
    let digest = HashedBlock::hash_each(vec![junk.clone()])[0].as_ref().unwrap().digest();
    let reference = BlockRef { epoch: 0, round: 3, author: 0, digest };
    let error = verify_blocks(&CHAIN.context, &CertificateVerifier, &[reference], vec![junk]).unwrap_err();
    assert!(matches!(&error, BlocksError::Undecodable { reference: at, .. } if *at == reference), "{error}");
    assert_eq!(error.fault(), Fault::Ours);
}

#[test]
fn certified_reference_with_a_wrong_position_is_not_the_peers_fault() {
    let block = CHAIN.sign(block().clone());
    let found = block.reference();
    for reference in
        [BlockRef { round: found.round + 1, ..found }, BlockRef { author: 3, ..found }, BlockRef { epoch: 1, ..found }]
    {
        let result = verify_blocks(&CHAIN.context, &CertificateVerifier, &[reference], vec![bytes(&block)]);
        let error = BlocksError::Misnamed { reference, found };
        assert_eq!(result, Err(error.clone()));
        assert_eq!(error.fault(), Fault::Ours);
    }
}

#[test]
fn block_of_another_epoch_is_refused() {
    breaks(BlockError::OtherEpoch { expected: 0, found: 1 }, |block| block.epoch = 1);
}

#[test]
fn block_by_an_author_outside_the_committee_is_refused() {
    for author in [4, AuthorityIndex::MAX] {
        breaks(BlockError::UnknownAuthor { author, size: 4 }, |block| block.author = author);
    }
}

#[test]
fn block_of_the_genesis_round_is_refused() {
    breaks(BlockError::GenesisRound, |block| block.round = 0);
}

#[test]
fn block_with_too_many_transactions_is_refused() {
    let count = MAX_TRANSACTIONS_PER_BLOCK + 1;
    breaks(BlockError::TooManyTransactions { count }, |block| {
        block.transactions = vec![TransactionBytes(Bytes::new()); count];
    });
}

#[test]
fn block_with_too_many_votes_is_refused() {
    let vote = CommitRef { index: 1, digest: Default::default() };
    let count = MAX_COMMIT_VOTES_PER_BLOCK + 1;
    breaks(BlockError::TooManyVotes { count }, |block| block.commit_votes = vec![vote; count]);
    let full = CHAIN.changed(block(), |block| block.commit_votes = vec![vote; MAX_COMMIT_VOTES_PER_BLOCK]);
    assert!(verify_one(&full).is_ok());
}

#[test]
fn block_without_its_authors_own_ancestor_first_is_refused() {
    breaks(BlockError::NoOwnAncestor, |block| block.ancestors.swap(0, 1));
    breaks(BlockError::NoOwnAncestor, |block| block.ancestors.clear());
}

#[test]
fn ancestor_of_another_epoch_is_refused() {
    let ancestor = BlockRef { epoch: 1, ..block().ancestors[1] };
    breaks(BlockError::AncestorOfOtherEpoch { ancestor }, |block| block.ancestors[1] = ancestor);
}

#[test]
fn ancestor_by_an_author_outside_the_committee_is_refused() {
    for author in [4, AuthorityIndex::MAX] {
        let ancestor = BlockRef { author, ..block().ancestors[1] };
        breaks(BlockError::UnknownAncestorAuthor { ancestor }, |block| block.ancestors[1] = ancestor);
    }
}

#[test]
fn two_ancestors_of_one_author_are_refused() {
    let ancestor = BlockRef { digest: BlockDigest([1; 32]), ..block().ancestors[1] };
    breaks(BlockError::RepeatedAncestorAuthor { ancestor }, |block| block.ancestors.push(ancestor));
}

#[test]
fn ancestor_of_no_lower_round_is_refused() {
    for round in [block().round, u32::MAX] {
        for at in [0, 2] {
            let ancestor = BlockRef { round, ..block().ancestors[at] };
            breaks(BlockError::AncestorNotLower { ancestor }, |block| block.ancestors[at] = ancestor);
        }
    }
}

#[test]
fn ancestor_of_round_0_other_than_the_epochs_genesis_is_refused() {
    let first = CHAIN.commits[..3].iter().flat_map(|commit| &commit.blocks).find(|block| block.round == 1).unwrap();
    let ancestor = BlockRef { digest: BlockDigest([1; 32]), ..first.ancestors[2] };
    let block = CHAIN.changed(first, |block| block.ancestors[2] = ancestor);
    invalid(&block, BlockError::NotGenesis { ancestor });
    // The rule also holds in later rounds, in which such an ancestor does not count for the quorum.
    let ancestor = BlockRef { round: 0, ..self::block().ancestors[3] };
    breaks(BlockError::NotGenesis { ancestor }, |block| block.ancestors[3] = ancestor);
    let genesis = CHAIN.context.genesis_refs()[0];
    let returned = CHAIN.changed(self::block(), |block| block.ancestors[0] = genesis);
    assert!(verify_one(&returned).is_ok(), "an author's first block may come in any round");
}

#[test]
fn block_without_a_quorum_of_parents_is_refused() {
    let little = |stake| BlockError::NoParentQuorum(QuorumError::TooLittleStake { stake, quorum: 3 });
    breaks(little(2), |block| block.ancestors.truncate(2));
    breaks(little(2), |block| {
        block.ancestors.truncate(3);
        block.ancestors[2].round -= 1;
    });
    let own_is_older = CHAIN.changed(block(), |block| block.ancestors[0].round -= 1);
    assert!(verify_one(&own_is_older).is_ok(), "three others are a quorum");
    let own_counts = CHAIN.changed(block(), |block| block.ancestors.truncate(3));
    assert!(verify_one(&own_counts).is_ok(), "with the author's own, three are a quorum");
}

#[test]
fn transaction_that_is_no_certificate_is_refused() {
    let certificate = transaction(&CHAIN.certificate(0, &[0, 1, 2]));
    let longer = TransactionBytes([&certificate.0[..], &[0]].concat().into());
    let source = CodecError::TrailingBytes { what: "certificate", extra: 1 };
    refuses_transaction(longer, TransactionError::Codec(source));
    assert!(verify_one(&CHAIN.changed(block(), |block| block.transactions.push(certificate))).is_ok());
}

#[test]
fn certificate_of_another_epoch_is_refused() {
    let certificate = CHAIN.certificate(1, &[0, 1, 2]);
    refuses_transaction(transaction(&certificate), TransactionError::OtherEpoch { expected: 0, found: 1 });
}

#[test]
fn certificate_whose_sender_has_no_valid_key_is_refused() {
    // The neutral element has small order: every signature under it is valid.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for key in [PublicKey(neutral), PublicKey([0xff; 32])] {
        let mut certificate = CHAIN.certificate(0, &[0, 1, 2]);
        certificate.signed_transaction.transaction.sender = key;
        refuses_transaction(transaction(&certificate), TransactionError::Sender(KeyError { key }));
    }
}

#[test]
fn certificate_without_a_quorum_of_members_in_order_is_refused() {
    for (authorities, error) in [
        (vec![], QuorumError::TooLittleStake { stake: 0, quorum: 3 }),
        (vec![0, 3], QuorumError::TooLittleStake { stake: 2, quorum: 3 }),
        (vec![0, 0, 0], QuorumError::NotAscending { authority: 0 }),
        (vec![0, 2, 1], QuorumError::NotAscending { authority: 1 }),
        (vec![0, 1, 4], QuorumError::UnknownAuthority { authority: 4, size: 4 }),
        (vec![0, 1, u32::MAX], QuorumError::UnknownAuthority { authority: u32::MAX, size: 4 }),
    ] {
        let certificate = CHAIN.certificate(0, &authorities);
        refuses_transaction(transaction(&certificate), TransactionError::Quorum(error));
    }
}

#[test]
fn certificate_with_a_wrong_signature_is_refused() {
    let spoil: [fn(&mut Certificate); 4] = [
        |certificate| certificate.signed_transaction.signature.0[0] ^= 1,
        |certificate| certificate.signed_transaction.transaction.nonce += 1,
        |certificate| certificate.quorum.signatures[2].signature.0[0] ^= 1,
        // The signature of authority 2 under the name of authority 3.
        |certificate| certificate.quorum.signatures[2].authority = 3,
    ];
    for spoil in spoil {
        let mut certificate = CHAIN.certificate(0, &[0, 1, 2]);
        spoil(&mut certificate);
        breaks(BlockError::BadSignature, |block| block.transactions.push(transaction(&certificate)));
    }
}

#[test]
fn block_that_its_author_did_not_sign_is_refused() {
    let (value, chain) = (block().clone(), CHAIN.builder.chain_id());
    invalid(&SignedBlock::sign(value.clone(), chain, &CHAIN.protocol_key(1)), BlockError::BadSignature);
    let other_chain = SignedBlock::sign(value.clone(), soma_types::ChainId([1; 32]), &CHAIN.protocol_key(0));
    invalid(&other_chain, BlockError::BadSignature);
    for signature in [Signature::ZERO, Signature([0xff; 64])] {
        invalid(&Signed::with_signature(value.clone(), signature).into(), BlockError::BadSignature);
    }
}

#[test]
fn among_many_blocks_the_one_with_the_wrong_signature_is_named() {
    let mut blocks = CHAIN.commits[..4].iter().flat_map(|commit| commit.blocks.clone()).collect::<Vec<_>>();
    let at = blocks.len() / 2;
    let value = blocks[at].value().clone();
    let forged: SignedBlock = Signed::with_signature(value, Signature([1; 64])).into();
    blocks[at] = support::verified(forged.clone());
    let refs: Vec<_> = blocks.iter().map(|block| block.reference()).collect();
    let error = verify_blocks(&CHAIN.context, &CertificateVerifier, &refs, all_bytes(&blocks)).unwrap_err();
    let expected = BlocksError::Invalid { reference: forged.reference(), source: BlockError::BadSignature };
    assert_eq!(error, expected);
    assert_eq!(
        judge(&CertificateVerifier, &blocks),
        BlocksVerdict { blocks: blocks[..at].to_vec(), error: Some(expected) }
    );
}

/// The verdict on blocks that trusted commits name.
fn judge(transactions: &dyn TransactionVerifier, blocks: &[VerifiedBlock]) -> BlocksVerdict {
    let refs: Vec<_> = blocks.iter().map(|block| block.reference()).collect();
    let checked = check_blocks(&CHAIN.context, Checks::Full(transactions), &refs, all_bytes(blocks), &mut ()).unwrap();
    CheckedBlocks::verify_all(vec![checked]).remove(0)
}

#[test]
fn blocks_before_one_that_breaks_a_rule_pass() {
    let mut blocks = CHAIN.commits[..4].iter().flat_map(|commit| commit.blocks.clone()).collect::<Vec<_>>();
    let at = blocks.len() / 2;
    let broken = CHAIN.changed(&blocks[at], |block| block.ancestors.clear());
    blocks[at] = support::verified(broken.clone());
    let error = BlocksError::Invalid { reference: broken.reference(), source: BlockError::NoOwnAncestor };
    assert_eq!(
        judge(&CertificateVerifier, &blocks),
        BlocksVerdict { blocks: blocks[..at].to_vec(), error: Some(error) }
    );
}

#[test]
fn panic_of_a_transaction_verifier_names_block_transaction_and_text() {
    struct Panics;
    impl TransactionVerifier for Panics {
        fn verify(
            &self,
            context: &EpochContext,
            transaction: &[u8],
            signatures: &mut TransactionSignatures<'_>,
        ) -> Result<(), TransactionError> {
            assert_ne!(transaction, b"poison", "no poison, please");
            CertificateVerifier.verify(context, transaction, signatures)
        }
    }
    let mut blocks = CHAIN.commit(4).blocks.clone();
    let position = blocks[1].transactions.len();
    let poisoned = CHAIN.changed(&blocks[1], |block| block.transactions.push(TransactionBytes("poison".into())));
    blocks[1] = support::verified(poisoned.clone());
    let verdict = judge(&Panics, &blocks);
    assert_eq!(verdict.blocks, blocks[..1], "the blocks before the panic pass");
    let error = verdict.error.unwrap();
    assert!(error.is_verifier_panic() && error.fault() == Fault::Ours, "{error:?}");
    let text = error.to_string();
    for part in [poisoned.reference().to_string(), format!("transaction {position}"), "no poison, please".into()] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn forged_signatures_fail_a_transaction_that_its_verifier_accepts() {
    /// Adds a wrong signature and accepts the transaction.
    struct Careless;
    impl TransactionVerifier for Careless {
        fn verify(
            &self,
            context: &EpochContext,
            _: &[u8],
            signatures: &mut TransactionSignatures<'_>,
        ) -> Result<(), TransactionError> {
            let key = context.public_key(0).unwrap();
            signatures.push(key, CHAIN.intent(Scope::Transaction).message(&[1; 32]), &Signature::ZERO);
            Ok(())
        }
    }
    let block = CHAIN.sign(block().clone());
    let invalid = BlocksError::Invalid { reference: block.reference(), source: BlockError::BadSignature };
    assert_eq!(judge(&Careless, &[support::verified(block)]).error, Some(invalid));
    assert_eq!(verify_transaction(&CHAIN.context, &Careless, b"any"), Err(TransactionError::BadSignature));
    let certificate = transaction(&CHAIN.certificate(0, &[0, 1, 2]));
    assert_eq!(verify_transaction(&CHAIN.context, &CertificateVerifier, &certificate.0), Ok(()));
}

#[test]
fn interrupted_check_returns_the_blocks_checked_so_far() {
    struct Ends {
        blocks: usize,
        transactions: usize,
    }
    impl CheckObserver for Ends {
        fn before_block(&mut self) -> bool {
            self.blocks -= 1;
            self.blocks > 0
        }
        fn before_transaction(&mut self, _: &BlockRef, _: usize) -> bool {
            self.transactions -= 1;
            self.transactions > 0
        }
    }
    let blocks = CHAIN.commits[..3].iter().flat_map(|commit| commit.blocks.clone()).collect::<Vec<_>>();
    let refs: Vec<_> = blocks.iter().map(|block| block.reference()).collect();
    for (mut ends, done) in [
        (Ends { blocks: 3, transactions: 100 }, 3),
        (Ends { blocks: 1, transactions: 100 }, 1),
        // Each block of the chain has one transaction.
        (Ends { blocks: 100, transactions: 3 }, 2),
        (Ends { blocks: 100, transactions: 100 }, blocks.len()),
    ] {
        let checks = Checks::Full(&CertificateVerifier);
        let checked = check_blocks(&CHAIN.context, checks, &refs, all_bytes(&blocks), &mut ends).unwrap();
        let verdict = CheckedBlocks::verify_all(vec![checked]).remove(0);
        assert_eq!(verdict, BlocksVerdict { blocks: blocks[..done].to_vec(), error: None });
    }
}

#[test]
fn node_may_supply_its_own_transaction_verifier() {
    struct NoneAtAll;
    impl TransactionVerifier for NoneAtAll {
        fn verify(
            &self,
            _: &EpochContext,
            _: &[u8],
            _: &mut TransactionSignatures<'_>,
        ) -> Result<(), TransactionError> {
            Err(TransactionError::Refused { reason: "no transactions here".into() })
        }
    }
    let block = CHAIN.sign(block().clone());
    let result = verify_blocks(&CHAIN.context, &NoneAtAll, &[block.reference()], vec![bytes(&block)]);
    let source = TransactionError::Refused { reason: "no transactions here".into() };
    let source = BlockError::Transaction { position: 0, source };
    assert_eq!(result, Err(BlocksError::Invalid { reference: block.reference(), source }));
}
