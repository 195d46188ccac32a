//! One test for each rule of `check_commits`, with its error and kind of fault.

mod support;

use bytes::Bytes;
use soma_types::{
    BlockDigest, BlockRef, CodecError, Commit, CommitDigest, Fault, Signature, Signed, SignedBlock, TrustedCommit,
    UnverifiedCommit, limits::MAX_BLOCKS_PER_COMMIT,
};
use soma_verify::{BlockError, CheckedCommits, CommitsError, QuorumError, check_commits};
use support::{CHAIN, PER_EPOCH, all_bytes, bytes, commit_bytes};

/// Checks commits 1 to 3 with the votes for the third.
fn check(commits: Vec<Bytes>, certifiers: Vec<Bytes>) -> Result<CheckedCommits, CommitsError> {
    check_commits(&CHAIN.context, 1, 3, commits, certifiers)
}

fn three() -> Vec<Bytes> {
    commit_bytes(&CHAIN.commits[..3])
}

fn votes() -> Vec<Bytes> {
    all_bytes(&CHAIN.commit(3).certifiers)
}

/// Checks commits 1 to 3 after a change of the second, with the third chained to it again and votes for the new third.
fn check_changed(change: impl FnOnce(&mut Commit)) -> Result<CheckedCommits, CommitsError> {
    let mut second = (*CHAIN.commit(2).commit).clone();
    change(&mut second);
    let second = TrustedCommit::assume_trusted(second);
    let third = Commit { previous_digest: second.reference().digest, ..(*CHAIN.commit(3).commit).clone() };
    let third = TrustedCommit::assume_trusted(third);
    let commits = vec![three()[0].clone(), second.bytes().clone(), third.bytes().clone()];
    check(commits, CHAIN.certifiers(third.reference()))
}

/// Checks the votes for commit 3, with another block in the first position.
fn check_certifier(first: SignedBlock) -> Result<CheckedCommits, CommitsError> {
    let mut certifiers = votes();
    certifiers[0] = bytes(&first);
    check(three(), certifiers)
}

#[track_caller]
fn refused(result: Result<CheckedCommits, CommitsError>, error: CommitsError, fault: Fault) {
    assert_eq!(result.as_ref().err(), Some(&error));
    assert_eq!(error.fault(), fault, "{error}");
}

/// Expects that a certified second commit breaks a rule: the commit before it passes, and no peer is to blame.
#[track_caller]
fn breaks(change: impl Fn(&mut Commit), error: CommitsError) {
    let checked = check_changed(&change).unwrap();
    let breach = CommitsError::Certified(Box::new(error));
    assert_eq!(breach.fault(), Fault::Ours);
    assert_eq!(checked.commits, [CHAIN.commit(1).commit.clone()]);
    assert_eq!((checked.certifiers, checked.breach), (vec![], Some(breach.clone())));
    // As the first commit of its range.
    let mut second = (*CHAIN.commit(2).commit).clone();
    change(&mut second);
    let second = UnverifiedCommit::from(second);
    let votes = CHAIN.certifiers(second.reference());
    let alone = check_commits(&CHAIN.context, 2, 2, vec![second.bytes().clone()], votes);
    assert!(alone == Err(breach) || matches!(alone, Err(CommitsError::OtherEpoch { .. })), "{alone:?}");
    // Without a quorum's votes, the peer is to blame.
    let alone = check_commits(&CHAIN.context, 2, 2, vec![second.bytes().clone()], self::votes());
    assert!(matches!(alone.unwrap_err().fault(), Fault::Malformed | Fault::Unproven));
}

#[test]
fn range_with_votes_of_a_quorum_is_accepted_and_returned_whole() {
    let checked = check(three(), votes()).unwrap();
    let expected: Vec<_> = CHAIN.commits[..3].iter().map(|certified| certified.commit.clone()).collect();
    assert_eq!(checked.commits, expected);
    assert_eq!(checked.certifiers, CHAIN.commit(3).certifiers);
    check_changed(|_| {}).expect("the commits are valid before a test changes them");
}

#[test]
fn fewer_commits_than_requested_are_accepted_if_the_last_is_certified() {
    let certifiers = || all_bytes(&CHAIN.commit(2).certifiers);
    let two = commit_bytes(&CHAIN.commits[..2]);
    assert_eq!(check_commits(&CHAIN.context, 1, 100, two.clone(), certifiers()).unwrap().commits.len(), 2);
    assert_eq!(check_commits(&CHAIN.context, 1, u32::MAX, two, certifiers()).unwrap().commits.len(), 2);
}

#[test]
fn empty_response_is_refused() {
    refused(check(vec![], vec![]), CommitsError::Empty { start: 1 }, Fault::Malformed);
}

#[test]
fn more_commits_than_requested_are_refused() {
    for max in [0, 1, 2] {
        let result = check_commits(&CHAIN.context, 1, max, three(), votes());
        refused(result, CommitsError::TooMany { start: 1, max, count: 3 }, Fault::Malformed);
    }
    let result = check_commits(&CHAIN.context, u32::MAX, u32::MAX, three(), votes());
    refused(result, CommitsError::TooMany { start: u32::MAX, max: u32::MAX, count: 3 }, Fault::Malformed);
}

#[test]
fn bytes_that_are_no_commit_are_refused() {
    let mut commits = three();
    commits[1] = [&commits[1][..], &[0]].concat().into();
    let source = CodecError::TrailingBytes { what: "commit", extra: 1 };
    refused(check(commits, votes()), CommitsError::Undecodable { index: 2, source }, Fault::Malformed);
}

#[test]
fn commit_out_of_its_place_is_refused() {
    let mut commits = three();
    commits.swap(1, 2);
    refused(check(commits, votes()), CommitsError::WrongIndex { expected: 2, found: 3 }, Fault::Malformed);
    let result = check_commits(&CHAIN.context, 2, 4, three(), votes());
    refused(result, CommitsError::WrongIndex { expected: 2, found: 1 }, Fault::Malformed);
}

#[test]
fn range_of_another_epoch_is_refused_without_blame() {
    let error = CommitsError::OtherEpoch { expected: 1, found: 0, index: 1 };
    refused(check_commits(&CHAIN.context_of(1), 1, 3, three(), votes()), error, Fault::Unproven);
    let first = PER_EPOCH as u32 + 1;
    let next_epoch = commit_bytes(&CHAIN.commits[PER_EPOCH..]);
    let error = CommitsError::OtherEpoch { expected: 0, found: 1, index: first };
    refused(check_commits(&CHAIN.context, first, 99, next_epoch, votes()), error, Fault::Unproven);
}

#[test]
fn range_across_the_end_of_an_epoch_is_refused() {
    let first = PER_EPOCH as u32;
    let over = commit_bytes(&CHAIN.commits[PER_EPOCH - 1..=PER_EPOCH]);
    let certifiers = &CHAIN.commit(PER_EPOCH + 1).certifiers;
    let source = BlockError::OtherEpoch { expected: 0, found: 1 };
    let error = CommitsError::InvalidCertifier { certifier: certifiers[0].reference(), source };
    refused(check_commits(&CHAIN.context, first, first + 1, over, all_bytes(certifiers)), error, Fault::Malformed);
}

#[test]
fn certified_commit_of_another_epoch_ends_the_range_before_it() {
    let error = CommitsError::MixedEpochs { expected: 0, found: 1, index: 2 };
    breaks(|commit| commit.epoch = 1, error);
}

#[test]
fn commit_without_the_digest_of_the_previous_one_is_a_lie() {
    let result = check_changed(|commit| commit.previous_digest = CommitDigest([9; 32]));
    refused(result, CommitsError::BrokenChain { index: 2 }, Fault::ProvableLie);
}

#[test]
fn commit_of_no_block_or_too_many_is_refused() {
    breaks(|commit| commit.blocks.clear(), CommitsError::BlockCount { index: 2, count: 0 });
    let count = MAX_BLOCKS_PER_COMMIT + 1;
    breaks(|commit| commit.blocks = vec![commit.leader; count], CommitsError::BlockCount { index: 2, count });
}

#[test]
fn blocks_out_of_order_or_named_twice_are_refused() {
    let block = CHAIN.commit(2).commit.blocks[0];
    breaks(|commit| commit.blocks.swap(0, 1), CommitsError::BlocksOutOfOrder { index: 2, block });
    breaks(|commit| commit.blocks.insert(0, block), CommitsError::BlocksOutOfOrder { index: 2, block });
    // Two blocks of one author in one round: an honest leader's commit contains at most one of them.
    let twin = BlockRef { digest: BlockDigest([1; 32]), ..block };
    breaks(|commit| commit.blocks.insert(1, twin), CommitsError::BlocksOutOfOrder { index: 2, block: twin });
}

#[test]
fn reference_that_no_block_of_the_epoch_can_have_is_refused() {
    let right = CHAIN.commit(2).commit.blocks[0];
    for block in [
        BlockRef { epoch: 1, ..right },
        BlockRef { round: 0, ..right },
        BlockRef { author: 4, ..right },
        BlockRef { author: u32::MAX, ..right },
    ] {
        breaks(|commit| commit.blocks[0] = block, CommitsError::ImpossibleBlock { index: 2, block });
    }
}

#[test]
fn leader_that_is_not_the_last_block_is_refused() {
    let leader = CHAIN.commit(2).commit.blocks[0];
    breaks(|commit| commit.leader = leader, CommitsError::LeaderNotLast { index: 2, leader });
}

#[test]
fn more_certifier_blocks_than_authorities_are_refused() {
    let mut certifiers = votes();
    assert_eq!(certifiers.len(), 4);
    certifiers.push(certifiers[0].clone());
    let error = CommitsError::TooManyCertifiers { count: 5, size: 4 };
    refused(check(three(), certifiers), error, Fault::Malformed);
}

#[test]
fn bytes_that_are_no_block_are_no_certifier() {
    let mut certifiers = votes();
    certifiers[2] = Bytes::from_static(&[0; 10]);
    let error = check(three(), certifiers).unwrap_err();
    assert!(matches!(error, CommitsError::UndecodableCertifier { position: 2, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Malformed);
}

#[test]
fn certifier_block_that_breaks_a_rule_is_refused() {
    let certifier = CHAIN.changed(&CHAIN.commit(3).certifiers[0], |block| block.ancestors.truncate(2));
    let source = BlockError::NoParentQuorum(QuorumError::TooLittleStake { stake: 2, quorum: 3 });
    let error = CommitsError::InvalidCertifier { certifier: certifier.reference(), source };
    refused(check_certifier(certifier), error, Fault::Malformed);

    let certifier = CHAIN.changed(&CHAIN.commit(3).certifiers[0], |block| block.epoch = 1);
    let source = BlockError::OtherEpoch { expected: 0, found: 1 };
    let error = CommitsError::InvalidCertifier { certifier: certifier.reference(), source };
    refused(check_certifier(certifier), error, Fault::Malformed);
}

#[test]
fn two_certifier_blocks_of_one_author_are_refused() {
    let mut certifiers = votes();
    certifiers[1] = certifiers[0].clone();
    let certifier = CHAIN.commit(3).certifiers[0].reference();
    let error = CommitsError::RepeatedCertifier { certifier, author: certifier.author };
    refused(check(three(), certifiers), error, Fault::Malformed);
}

#[test]
fn block_without_a_vote_for_the_commit_is_no_certifier() {
    let commit = CHAIN.commit(3).commit.reference();
    let right = &CHAIN.commit(3).certifiers[0];
    let none = CHAIN.changed(right, |block| block.commit_votes.clear());
    let other = CHAIN.changed(right, |block| block.commit_votes[0].digest = CommitDigest([1; 32]));
    let earlier = CHAIN.changed(right, |block| block.commit_votes = vec![CHAIN.commit(2).commit.reference()]);
    for block in [none, other, earlier] {
        let error = CommitsError::NoVote { certifier: block.reference(), commit };
        refused(check_certifier(block), error, Fault::Malformed);
    }
}

#[test]
fn commits_without_the_votes_of_a_quorum_are_a_lie() {
    let commit = CHAIN.commit(3).commit.reference();
    for count in 0..3 {
        let certifiers = votes().into_iter().take(count).collect();
        let source = QuorumError::TooLittleStake { stake: count as u64, quorum: 3 };
        refused(check(three(), certifiers), CommitsError::NotCertified { commit, source }, Fault::ProvableLie);
    }
    check(three(), votes().into_iter().skip(1).collect()).expect("three of four are a quorum");
}

#[test]
fn vote_that_its_author_did_not_sign_is_a_lie() {
    let right = &CHAIN.commit(3).certifiers[0];
    let forged = [
        SignedBlock::sign(right.value().clone(), CHAIN.builder.chain_id(), &CHAIN.protocol_key(1)),
        SignedBlock::sign(right.value().clone(), soma_types::ChainId([1; 32]), &CHAIN.protocol_key(0)),
        SignedBlock::from(Signed::with_signature(right.value().clone(), Signature::ZERO)),
        SignedBlock::from(Signed::with_signature(right.value().clone(), Signature([0xff; 64]))),
    ];
    for block in forged {
        let error = CommitsError::InvalidCertifier { certifier: block.reference(), source: BlockError::BadSignature };
        refused(check_certifier(block), error, Fault::ProvableLie);
    }
}

#[test]
fn votes_for_one_commit_do_not_certify_another_of_its_index() {
    let mut other = (*CHAIN.commit(3).commit).clone();
    other.timestamp_ms += 1;
    let other = TrustedCommit::assume_trusted(other);
    let mut commits = three();
    commits[2] = other.bytes().clone();
    let certifier = CHAIN.commit(3).certifiers[0].reference();
    let error = CommitsError::NoVote { certifier, commit: other.reference() };
    refused(check(commits, votes()), error, Fault::Malformed);
}

#[test]
fn votes_signed_with_the_keys_of_an_earlier_epoch_are_a_lie() {
    // Authority 1 has a new key from epoch 1 on; the attacker votes with the old one.
    let first = CHAIN.commit(PER_EPOCH + 1);
    let votes = first.certifiers.iter().map(|block| bytes(&CHAIN.sign(block.value().clone())));
    let start = PER_EPOCH as u32 + 1;
    let commits = commit_bytes(std::slice::from_ref(first));
    let result = check_commits(&CHAIN.context_of(1), start, start, commits, votes.collect());
    let certifier = CHAIN.sign(first.certifiers[1].value().clone()).reference();
    let error = CommitsError::InvalidCertifier { certifier, source: BlockError::BadSignature };
    refused(result, error, Fault::ProvableLie);
}
