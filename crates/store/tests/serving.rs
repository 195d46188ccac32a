//! Responses to a peer's request for commits.

mod common;

use common::{Chain, Factory};
use soma_store::{NotServed, Served, Store, StoreError, serve_commits};
use soma_types::{BlockRef, CertifiedCommit, CommitDigest, CommitIndex, CommitRef, SignedBlock, UnverifiedCommit};

for_both_stores!(
    range_ends_in_the_highest_commit_with_a_quorum_of_votes,
    uncertified_range_is_not_served,
    range_does_not_cross_the_end_of_its_epoch,
    certifier_blocks_are_the_smallest_that_suffice,
    several_blocks_of_one_author_are_one_vote,
    votes_for_another_digest_certify_nothing,
    range_over_the_byte_limit_ends_earlier,
);

const MANY: usize = usize::MAX;

fn indices(served: &Served) -> Vec<CommitIndex> {
    served.commits.iter().map(|bytes| UnverifiedCommit::decode(bytes.clone()).unwrap().index).collect()
}

fn certifiers(served: &Served) -> Vec<BlockRef> {
    served.certifiers.iter().map(|bytes| SignedBlock::decode(bytes.clone()).unwrap().reference()).collect()
}

fn served(store: &dyn Store, start: CommitIndex, end: CommitIndex) -> Result<Vec<CommitIndex>, NotServed> {
    serve_commits(store, start, end, MANY).unwrap().as_ref().map(indices).map_err(|&reason| reason)
}

/// Ten commits of four equal authorities. Commits 3 and 7 have a quorum of votes, and 8 has too few.
fn ten(open: Factory) -> (common::Opened, Vec<CertifiedCommit>) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch: Vec<_> = (1..=10)
        .map(|index| match index {
            3 => chain.certified(&[3, 1, 0]),
            7 => chain.certified(&[0, 1, 2, 3]),
            8 => chain.certified(&[0, 1]),
            _ => chain.commit(),
        })
        .collect();
    store.apply(&batch).unwrap();
    (store, batch)
}

fn range_ends_in_the_highest_commit_with_a_quorum_of_votes(open: Factory) {
    let (store, batch) = ten(open);
    for (start, end, expected) in [(1, 10, 1..=7), (1, u32::MAX, 1..=7), (1, 6, 1..=3), (3, 3, 3..=3), (4, 8, 4..=7)] {
        assert_eq!(served(&*store, start, end), Ok(expected.collect()), "{start}..={end}");
    }
    let answer = serve_commits(&*store, 2, 5, MANY).unwrap().unwrap();
    let expected: Vec<_> = batch[1..3].iter().map(|certified| certified.commit.bytes().clone()).collect();
    assert_eq!(answer.commits, expected);
    let mut refs: Vec<_> = batch[2].certifiers.iter().map(|block| block.reference()).collect();
    refs.sort();
    assert_eq!(certifiers(&answer), refs);
}

fn uncertified_range_is_not_served(open: Factory) {
    let (store, _) = ten(open);
    for (start, end) in [(1, 2), (8, 10), (8, 8)] {
        assert_eq!(served(&*store, start, end), Err(NotServed::NotCertified), "{start}..={end}");
    }
    let not_here = Err(NotServed::NotHere { lowest: 1, highest: 10 });
    for (start, end) in [(11, 20), (u32::MAX, u32::MAX), (5, 4), (7, 0), (0, 10), (0, 0)] {
        assert_eq!(served(&*store, start, end), not_here, "{start}..={end}");
    }
    let chain = Chain::new();
    assert_eq!(served(&*open(&chain.genesis), 1, 100), Err(NotServed::NotHere { lowest: 1, highest: 0 }));
}

fn range_does_not_cross_the_end_of_its_epoch(open: Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut batch = chain.grow(3);
    batch.push(chain.end_epoch());
    batch.extend(chain.grow(3));
    store.apply(&batch).unwrap();
    assert_eq!(served(&*store, 2, 100), Ok(vec![2, 3, 4]));
    assert_eq!(served(&*store, 2, 3), Ok(vec![2, 3]));
    assert_eq!(served(&*store, 4, 100), Ok(vec![4]));
    assert_eq!(served(&*store, 5, 100), Ok(vec![5, 6, 7]));
    let answer = serve_commits(&*store, 4, 100, MANY).unwrap().unwrap();
    assert!(certifiers(&answer).iter().all(|block| block.epoch == 0));
}

fn certifier_blocks_are_the_smallest_that_suffice(open: Factory) {
    // Quorum 9 of 13: the two large stakes alone, or all small stakes and a large one.
    let mut chain = Chain::with_stakes(&[5, 5, 1, 1, 1]);
    let store = open(&chain.genesis);
    // In order of size: 1 + 1 + 1 + 5 is too little. The last 5 completes the quorum, and makes each 1 superfluous.
    let first = chain.certified(&[2, 3, 4, 0, 1]);
    let large: Vec<_> = first.certifiers[3..].iter().map(|block| block.reference()).collect();
    store.apply(&[first]).unwrap();
    assert_eq!(certifiers(&serve_commits(&*store, 1, 1, MANY).unwrap().unwrap()), large);

    let mut chain = Chain::with_stakes(&[1, 1, 1, 1]);
    let store = open(&chain.genesis);
    let first = chain.certified(&[3, 2, 0, 1]);
    let mut small: Vec<_> = first.certifiers[..3].iter().map(|block| block.reference()).collect();
    small.sort();
    store.apply(&[first]).unwrap();
    assert_eq!(certifiers(&serve_commits(&*store, 1, 1, MANY).unwrap().unwrap()), small);
}

fn several_blocks_of_one_author_are_one_vote(open: Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut first = chain.certified(&[0, 1]);
    let this = [first.commit.reference()];
    first.certifiers.push(chain.block(9, 1, &this, 0));
    first.certifiers.push(chain.block(10, 1, &this, 0));
    let mut second = chain.certified(&[0, 1, 2]);
    let smaller = chain.block(9, 2, &[second.commit.reference()], 0);
    second.certifiers.push(smaller.clone());
    store.apply(&[first, second]).unwrap();
    assert_eq!(served(&*store, 1, 1), Err(NotServed::NotCertified));
    let answer = serve_commits(&*store, 1, 2, MANY).unwrap().unwrap();
    assert_eq!(certifiers(&answer).len(), 3);
    assert!(certifiers(&answer).contains(&smaller.reference()));
}

fn votes_for_another_digest_certify_nothing(open: Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut first = chain.certified(&[0, 1]);
    let other = CommitRef { digest: CommitDigest([9; 32]), ..first.commit.reference() };
    first.certifiers.extend(chain.votes(&[other], &[2, 3]));
    store.apply(&[first]).unwrap();
    assert_eq!(served(&*store, 1, 1), Err(NotServed::NotCertified));
}

fn range_over_the_byte_limit_ends_earlier(open: Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    store.apply(&chain.grow(6)).unwrap();
    let size =
        |served: &Served| served.commits.iter().chain(&served.certifiers).map(|bytes| bytes.len()).sum::<usize>();
    for last in (1..=6).rev() {
        let answer = serve_commits(&*store, 1, last, MANY).unwrap().unwrap();
        assert_eq!(indices(&answer), (1..=last).collect::<Vec<_>>());
        // The limit is exact: with one byte less, the range ends one commit earlier.
        assert_eq!(serve_commits(&*store, 1, last, size(&answer)).unwrap().unwrap(), answer);
        let max_bytes = size(&answer) - 1;
        let shorter = serve_commits(&*store, 1, last, max_bytes).unwrap();
        let expected = if last > 1 { Ok((1..last).collect()) } else { Err(NotServed::TooLarge { max_bytes }) };
        assert_eq!(shorter.as_ref().map(indices).map_err(|&reason| reason), expected);
    }
    assert_eq!(serve_commits(&*store, 1, 6, 0).unwrap(), Err(NotServed::TooLarge { max_bytes: 0 }));
}

#[test]
fn store_without_the_committee_of_its_commits_reports_it() {
    let mut chain = Chain::new();
    let store = common::in_memory(&chain.genesis);
    chain.epoch = 3;
    store.apply(&chain.grow(1)).unwrap();
    let error = serve_commits(&*store, 1, 1, MANY).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert!(error.to_string().contains("the committee of epoch 3 is damaged: it is missing"), "{error}");
}
