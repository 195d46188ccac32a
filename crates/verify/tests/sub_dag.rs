//! One test for each rule of `verify_sub_dag`, with its error. No error is a peer's fault.

mod support;

use bytes::Bytes;
use soma_types::{
    AuthoritySignature, Block, CertifiedCommit, Commit, Committee, CommitteeError, EndOfEpoch, Fault, QuorumSignatures,
    Scope, TransactionBytes, TrustedCommit, VerifiedBlock,
    limits::{MAX_BLOCK_BYTES, MAX_COMMIT_BLOCKS_BYTES},
};
use soma_verify::{QuorumError, SubDag, SubDagError, SubDagsVerdict, verify_sub_dag, verify_sub_dags};
use support::{CHAIN, PER_EPOCH, verified};

type Verdict = Result<Option<EndOfEpoch>, SubDagError>;

/// A commit with its blocks.
fn certified(commit: &TrustedCommit, blocks: &[VerifiedBlock]) -> CertifiedCommit {
    CertifiedCommit { commit: commit.clone(), blocks: blocks.to_vec(), certifiers: Vec::new() }
}

fn fourth() -> &'static CertifiedCommit {
    CHAIN.commit(4)
}

fn check(commit: &TrustedCommit, blocks: &[VerifiedBlock]) -> Verdict {
    verify_sub_dag(&CHAIN.context, commit, blocks).map(|sub_dag| sub_dag.end_of_epoch)
}

#[track_caller]
fn refused(verdict: Verdict, error: SubDagError) {
    assert_eq!(verdict, Err(error.clone()));
    assert_eq!(error.fault(), Fault::Ours);
}

/// The commit after a change of its leader, signed and committed again.
fn with_leader(certified: &CertifiedCommit, change: impl FnOnce(&mut Block)) -> (TrustedCommit, Vec<VerifiedBlock>) {
    let (leader, others) = certified.blocks.split_last().unwrap();
    let mut blocks = others.to_vec();
    blocks.push(verified(CHAIN.changed(leader, change)));
    (CHAIN.commit_of(&certified.commit, &blocks), blocks)
}

/// The last commit of epoch 0 with another handover in its leader.
fn with_handover(end: EndOfEpoch) -> Verdict {
    let (commit, blocks) = with_leader(CHAIN.last_of_epoch(), |leader| leader.end_of_epoch = Some(end));
    check(&commit, &blocks)
}

fn next_committee() -> Committee {
    CHAIN.builder.committee(1)
}

#[test]
fn commit_with_its_own_blocks_is_accepted() {
    let leader_timestamp_ms = fourth().blocks.last().unwrap().timestamp_ms;
    let expected = SubDag { leader_timestamp_ms, end_of_epoch: None };
    assert_eq!(verify_sub_dag(&CHAIN.context, &fourth().commit, &fourth().blocks), Ok(expected));
    let (commit, blocks) = with_leader(fourth(), |_| {});
    assert_eq!(check(&commit, &blocks), Ok(None), "the commit is valid before a test changes it");
}

#[test]
fn last_commit_of_an_epoch_hands_over_to_the_next_committee() {
    let end = check(&CHAIN.last_of_epoch().commit, &CHAIN.last_of_epoch().blocks).unwrap().unwrap();
    assert_eq!(end.next_committee, next_committee());
    assert_eq!(Some(&end), CHAIN.last_of_epoch().end_of_epoch());
}

#[test]
fn commit_of_another_epoch_than_the_context_is_refused() {
    let first_of_next = CHAIN.commit(PER_EPOCH + 1);
    let error = SubDagError::OtherEpoch { index: PER_EPOCH as u32 + 1, expected: 0, found: 1 };
    refused(check(&first_of_next.commit, &first_of_next.blocks), error);
}

#[test]
fn other_blocks_than_the_commit_names_are_refused() {
    let (commit, blocks) = (&fourth().commit, &fourth().blocks);
    let differs = |position| SubDagError::NotItsBlocks { index: 4, position };
    refused(check(commit, &[]), differs(0));
    refused(check(commit, &blocks[1..]), differs(0));
    let last = blocks.len() - 1;
    refused(check(commit, &blocks[..last]), differs(last));
    refused(check(commit, &[&blocks[..], &blocks[..1]].concat()), differs(last + 1));
    let mut swapped = blocks.clone();
    swapped.swap(0, 1);
    refused(check(commit, &swapped), differs(0));
    refused(check(commit, &CHAIN.commit(3).blocks), differs(0));
}

#[test]
fn commit_whose_leader_is_not_its_last_block_is_refused() {
    let blocks = &fourth().blocks;
    let commit = Commit { leader: blocks[0].reference(), ..(*fourth().commit).clone() };
    let commit = TrustedCommit::assume_trusted(commit);
    refused(check(&commit, blocks), SubDagError::NotItsBlocks { index: 4, position: blocks.len() });
}

#[test]
fn commit_of_too_many_bytes_is_refused() {
    let large = |round| {
        verified(CHAIN.changed(&fourth().blocks[0], |block| {
            block.round = round;
            block.transactions = vec![TransactionBytes(Bytes::from(vec![0; MAX_BLOCK_BYTES - 2_000]))];
        }))
    };
    let blocks: Vec<_> = (1..=33).map(large).collect();
    let bytes = blocks.iter().map(|block| block.bytes().len()).sum();
    assert!(bytes > MAX_COMMIT_BLOCKS_BYTES);
    let commit = CHAIN.commit_of(&fourth().commit, &blocks);
    refused(check(&commit, &blocks), SubDagError::TooLarge { index: 4, bytes });
}

#[test]
fn block_older_than_its_ancestor_is_refused() {
    let (leader, others) = fourth().blocks.split_last().unwrap();
    let ancestor = others.iter().rev().find(|block| leader.ancestors.contains(&block.reference())).unwrap();
    // The leader itself.
    let youngest = others.iter().map(|block| block.timestamp_ms).max().unwrap();
    let (commit, blocks) = with_leader(fourth(), |leader| leader.timestamp_ms = youngest);
    assert_eq!(check(&commit, &blocks), Ok(None), "as old as its ancestors is old enough");
    let (commit, blocks) = with_leader(fourth(), |leader| leader.timestamp_ms = 0);
    let error = check(&commit, &blocks).unwrap_err();
    let block = blocks.last().unwrap().reference();
    assert!(matches!(error, SubDagError::BlockBeforeAncestor { index: 4, block: at, .. } if at == block), "{error}");

    // An ancestor that is younger than the leader.
    let younger = verified(CHAIN.changed(ancestor, |block| block.timestamp_ms = leader.timestamp_ms + 1));
    let leader = verified(CHAIN.changed(leader, |leader| {
        leader.ancestors.iter_mut().filter(|named| **named == ancestor.reference()).for_each(|named| {
            *named = younger.reference();
        });
    }));
    let blocks = [younger.clone(), leader.clone()];
    let commit = CHAIN.commit_of(&fourth().commit, &blocks);
    let error = SubDagError::BlockBeforeAncestor { index: 4, block: leader.reference(), ancestor: younger.reference() };
    refused(check(&commit, &blocks), error);
}

#[test]
fn block_outside_the_leaders_history_is_refused() {
    // A second block of the same author and round, unknown to the other blocks of the commit.
    let (first, rest) = fourth().blocks.split_first().unwrap();
    let stranger = verified(CHAIN.changed(first, |block| block.timestamp_ms -= 1));
    let blocks = [std::slice::from_ref(&stranger), rest].concat();
    let commit = CHAIN.commit_of(&fourth().commit, &blocks);
    refused(check(&commit, &blocks), SubDagError::NotInHistory { index: 4, block: stranger.reference() });
    // A block of the same round as the leader, ordered before it.
    let beside = fourth().certifiers.iter().find(|block| block.author == 0).unwrap();
    let leader = fourth().blocks.last().unwrap();
    let beside = verified(CHAIN.changed(beside, |block| block.round = leader.round - 1));
    let blocks = [beside.clone(), leader.clone()];
    let commit = CHAIN.commit_of(&fourth().commit, &blocks);
    refused(check(&commit, &blocks), SubDagError::NotInHistory { index: 4, block: beside.reference() });
}

#[test]
fn block_is_reached_only_through_blocks_of_the_commit() {
    // The first commits merged into one: blocks of earlier rounds are reached through the rounds between.
    let all: Vec<_> = CHAIN.commits[..3].iter().flat_map(|commit| commit.blocks.clone()).collect();
    let mut sorted = all.clone();
    sorted.sort_by_key(|block| (block.round, block.author));
    let leader = all.last().unwrap();
    sorted.retain(|block| block.round < leader.round);
    sorted.push(leader.clone());
    let commit = CHAIN.commit_of(&CHAIN.commit(3).commit, &sorted);
    assert_eq!(check(&commit, &sorted), Ok(None));

    let without_parents: Vec<_> = sorted.iter().filter(|block| block.round + 1 != leader.round).cloned().collect();
    let block = without_parents[without_parents.len() - 2].reference();
    let commit = CHAIN.commit_of(&CHAIN.commit(3).commit, &without_parents);
    refused(check(&commit, &without_parents), SubDagError::NotInHistory { index: 3, block });
}

#[test]
fn commit_timestamp_is_the_later_of_its_leaders_and_the_previous_commits() {
    let leader_ms = fourth().blocks.last().unwrap().timestamp_ms;
    // The third commit at the given time, then the fourth.
    let at = |previous_ms: u64, timestamp_ms| {
        let third = CHAIN.commit(3);
        let previous = TrustedCommit::assume_trusted(Commit { timestamp_ms: previous_ms, ..(*third.commit).clone() });
        let commit = TrustedCommit::assume_trusted(Commit { timestamp_ms, ..(*fourth().commit).clone() });
        let commits = [certified(&previous, &third.blocks), certified(&commit, &fourth().blocks)];
        let SubDagsVerdict { verified, error, first_leader_timestamp_ms, .. } =
            verify_sub_dags(&CHAIN.context, &commits);
        assert_eq!(first_leader_timestamp_ms, third.blocks.last().unwrap().timestamp_ms);
        assert_eq!(verified, if error.is_none() { 2 } else { 1 }, "the commit before it passes");
        error
    };
    let wrong = |timestamp_ms, expected_ms| Some(SubDagError::WrongTimestamp { index: 4, timestamp_ms, expected_ms });
    assert_eq!(at(leader_ms - 5, leader_ms), None);
    assert_eq!(at(leader_ms + 5, leader_ms + 5), None);
    assert_eq!(at(leader_ms - 5, leader_ms + 1), wrong(leader_ms + 1, leader_ms));
    assert_eq!(at(leader_ms + 5, leader_ms), wrong(leader_ms, leader_ms + 5));
    assert_eq!(at(leader_ms + 5, leader_ms + 6), wrong(leader_ms + 6, leader_ms + 5));
    assert_eq!(at(leader_ms - 1, leader_ms - 1), wrong(leader_ms - 1, leader_ms));
}

#[test]
fn no_commit_of_an_epoch_follows_its_end() {
    let (last, epoch) = (CHAIN.last_of_epoch(), CHAIN.context.epoch());
    let next = certified(&CHAIN.commit_of(&fourth().commit, &fourth().blocks), &fourth().blocks);
    let verdict = verify_sub_dags(&CHAIN.context, &[last.clone(), next]);
    assert_eq!((verdict.verified, verdict.end_of_epoch.as_ref()), (1, last.end_of_epoch()));
    assert_eq!(verdict.error, Some(SubDagError::AfterEndOfEpoch { index: 4, epoch }));
}

#[test]
fn handover_signed_by_any_quorum_is_accepted() {
    for authorities in [&[0, 1, 2][..], &[1, 2, 3], &[0, 1, 2, 3]] {
        let end = CHAIN.handover(next_committee(), authorities);
        assert_eq!(with_handover(end.clone()), Ok(Some(end)));
    }
}

#[test]
fn handovers_to_different_committees_in_one_commit_are_refused() {
    let with_two = |other: EndOfEpoch| {
        let certified = CHAIN.last_of_epoch();
        let (leader, others) = certified.blocks.split_last().unwrap();
        let (parent, rest) = others.split_last().unwrap();
        let old = parent.reference();
        let parent = verified(CHAIN.changed(parent, |block| block.end_of_epoch = Some(other)));
        let leader = verified(CHAIN.changed(leader, |leader| {
            leader.ancestors.iter_mut().filter(|named| **named == old).for_each(|named| *named = parent.reference());
        }));
        let blocks = [rest, &[parent, leader]].concat();
        (check(&CHAIN.commit_of(&certified.commit, &blocks), &blocks), blocks.last().unwrap().reference())
    };
    let same = CHAIN.handover(next_committee(), &[1, 2, 3]);
    assert_eq!(with_two(same.clone()).0, Ok(Some(same)), "the first handover in the commit's order counts");
    let mut other = next_committee();
    other.authorities[0].stake += 1;
    let (verdict, block) = with_two(CHAIN.handover(other, &[0, 1, 2]));
    refused(verdict, SubDagError::CommitteesDiffer { index: PER_EPOCH as u32, block });
}

#[test]
fn next_committee_for_another_epoch_than_the_next_is_refused() {
    for found in [0, 2, u64::MAX] {
        let end = CHAIN.handover(Committee { epoch: found, ..next_committee() }, &[0, 1, 2]);
        refused(with_handover(end), SubDagError::NotNextEpoch { index: PER_EPOCH as u32, epoch: 0, found });
    }
}

#[test]
fn invalid_next_committee_is_refused() {
    let mut no_stake = next_committee();
    no_stake.authorities[2].stake = 0;
    let empty = Committee { epoch: 1, authorities: Vec::new() };
    for (committee, source) in
        [(no_stake, CommitteeError::NoStake { authority: 2 }), (empty, CommitteeError::Size { size: 0 })]
    {
        let end = CHAIN.handover(committee, &[0, 1, 2]);
        refused(with_handover(end), SubDagError::NextCommittee { index: PER_EPOCH as u32, source });
    }
}

#[test]
fn next_committee_without_signatures_of_a_quorum_is_refused() {
    for (authorities, source) in [
        (&[][..], QuorumError::TooLittleStake { stake: 0, quorum: 3 }),
        (&[1, 2], QuorumError::TooLittleStake { stake: 2, quorum: 3 }),
        (&[1, 1, 1], QuorumError::NotAscending { authority: 1 }),
        (&[2, 1, 0], QuorumError::NotAscending { authority: 1 }),
        (&[0, 1, 4], QuorumError::UnknownAuthority { authority: 4, size: 4 }),
    ] {
        let end = CHAIN.handover(next_committee(), authorities);
        refused(with_handover(end), SubDagError::Certificate { index: PER_EPOCH as u32, source });
    }
}

#[test]
fn next_committee_with_a_wrong_signature_is_refused() {
    let wrong = |authority| SubDagError::CertificateSignature { index: PER_EPOCH as u32, authority };
    let mut end = CHAIN.handover(next_committee(), &[0, 1, 2, 3]);
    end.certificate.signatures[3].signature.0[5] ^= 1;
    refused(with_handover(end), wrong(3));
    // Signatures on another committee.
    let mut end = CHAIN.handover(next_committee(), &[0, 1, 2]);
    end.next_committee.authorities[0].stake += 1;
    refused(with_handover(end), wrong(0));
    // Signatures of the right authorities on the right digest, but for another purpose.
    let mut end = CHAIN.handover(next_committee(), &[0, 1, 2]);
    end.certificate = CHAIN.votes(soma_types::Scope::Block, &end.next_committee.digest().0, &[0, 1, 2]);
    refused(with_handover(end), wrong(0));
}

#[test]
fn next_committee_that_signed_itself_in_is_refused() {
    let next = next_committee();
    // Authority 1 has another key in the next epoch. Its signature with that key is invalid in this epoch.
    let intent = CHAIN.intent(Scope::NextCommittee);
    let signatures = (0..4).map(|authority| AuthoritySignature {
        authority,
        signature: intent.sign(&CHAIN.builder.protocol_key(1, authority), &next.digest().0),
    });
    let certificate = QuorumSignatures { signatures: signatures.collect() };
    let error = SubDagError::CertificateSignature { index: PER_EPOCH as u32, authority: 1 };
    refused(with_handover(EndOfEpoch { next_committee: next, certificate }), error);
}
