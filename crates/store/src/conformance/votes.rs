//! Promises about votes.

use super::*;

pub(super) fn votes_name_the_blocks_that_vote_for_exactly_this_commit(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut certified = chain.commit();
    let this = certified.commit.reference();
    let other = CommitRef { digest: CommitDigest([7; 32]), ..this };
    let right = chain.votes(&[this], &[2, 0]);
    let wrong = chain.votes(&[other], &[1]);
    // One block that votes for both counts for both: the verifier decides whom to believe.
    let both = chain.votes(&[other, this], &[3]);
    certified.certifiers = [right.clone(), wrong.clone(), both.clone()].concat();
    store.apply(&[certified]).unwrap();

    let refs = |blocks: &[&soma_types::VerifiedBlock]| blocks.iter().map(|block| block.reference()).collect::<Vec<_>>();
    assert_eq!(store.votes(this).unwrap(), refs(&[&right[1], &right[0], &both[0]]));
    assert_eq!(store.votes(other).unwrap(), refs(&[&wrong[0], &both[0]]));
    assert_eq!(store.votes(CommitRef { index: 2, ..this }).unwrap(), []);
}

pub(super) fn votes_of_committed_blocks_count_as_those_of_certifiers_do(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let first = chain.commit();
    let voters = chain.votes(&[first.commit.reference()], &[0, 1, 2]);
    let refs: Vec<_> = voters.iter().map(|block| block.reference()).collect();
    let second = chain.commit_of(voters);
    store.apply(&[first.clone(), second]).unwrap();
    assert_eq!(store.votes(first.commit.reference()).unwrap(), refs);
}

pub(super) fn votes_before_their_commit_are_kept_up_to_a_bound(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut batch = vec![chain.commit(), chain.commit()];
    let ahead = |by| CommitRef { index: 2 + by, digest: CommitDigest([by as u8; 32]) };
    let votes = [ahead(0), ahead(1), ahead(VOTES_AHEAD), ahead(VOTES_AHEAD + 1)];
    batch[0].certifiers = chain.votes(&votes, &[0]);
    let voter = batch[0].certifiers[0].reference();
    store.apply(&batch).unwrap();
    let kept = votes.map(|vote| store.votes(vote).unwrap());
    assert_eq!(kept, [vec![voter], vec![voter], vec![voter], vec![]]);
}

pub(super) fn a_vote_from_another_epoch_does_not_count(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut last = chain.end_epoch();
    let this = last.commit.reference();
    last.certifiers.truncate(1);
    let own = last.certifiers[0].reference();
    let mut next = chain.commit();
    next.certifiers = chain.votes(&[this], &[1, 2, 3]);
    store.apply(&[last, next]).unwrap();
    assert_eq!(store.votes(this).unwrap(), [own]);
}
