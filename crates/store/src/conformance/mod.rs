//! What every store promises, as a suite for tests of a store: [`check_all`].
//!
//! ```
//! use soma_store::{MemStore, conformance::{Opened, check_all}};
//!
//! check_all(&|genesis| Opened::new(MemStore::new(genesis)));
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken promise fails the caller's test")]

mod chain;
mod prepending;
mod pruning;
mod reading;
mod votes;

pub use chain::{Chain, committee, genesis};

use crate::{Mismatch, PeerList, Store, StoreError, VOTES_AHEAD, Watermarks};
use bytes::Bytes;
use soma_types::{CertifiedCommit, CommitDigest, CommitRef, CommittedSubDag, Genesis, PeerId, SubDagDigest};
use std::{
    any::Any,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Makes an empty store of a chain.
pub type Factory = dyn Fn(&Genesis) -> Opened;

/// A store under test, with what must outlive it.
pub struct Opened {
    // Dropped in this order.
    store: Box<dyn Store>,
    _guard: Option<Box<dyn Any>>,
}

impl Opened {
    /// A store that needs nothing else.
    pub fn new(store: impl Store) -> Self {
        Self { store: Box::new(store), _guard: None }
    }

    /// Drops `guard` after the store: its temporary directory, say.
    pub fn with_guard(self, guard: impl Any) -> Self {
        Self { _guard: Some(Box::new(guard)), ..self }
    }
}

impl Deref for Opened {
    type Target = dyn Store;

    fn deref(&self) -> &dyn Store {
        &*self.store
    }
}

/// Panics if an empty store that the factory makes breaks the promise.
type Promise = fn(&Factory);

/// Every promise, by name.
const PROMISES: &[(&str, Promise)] = &[
    ("a_new_store_holds_the_genesis_and_no_more", a_new_store_holds_the_genesis_and_no_more),
    ("applied_commits_read_back_byte_for_byte", applied_commits_read_back_byte_for_byte),
    ("commits_end_at_the_first_gap", commits_end_at_the_first_gap),
    (
        "blocks_come_in_the_order_asked_with_none_for_the_missing",
        blocks_come_in_the_order_asked_with_none_for_the_missing,
    ),
    ("a_sub_dag_is_what_was_applied", a_sub_dag_is_what_was_applied),
    (
        "sub_dags_end_at_the_bound_and_at_the_first_gap_and_are_at_least_one",
        sub_dags_end_at_the_bound_and_at_the_first_gap_and_are_at_least_one,
    ),
    ("a_refused_batch_writes_nothing", a_refused_batch_writes_nothing),
    ("a_batch_that_does_not_continue_the_chain_is_refused", a_batch_that_does_not_continue_the_chain_is_refused),
    (
        "a_batch_whose_blocks_are_not_those_of_its_commits_is_refused",
        a_batch_whose_blocks_are_not_those_of_its_commits_is_refused,
    ),
    ("a_committee_for_another_than_the_next_epoch_is_refused", a_committee_for_another_than_the_next_epoch_is_refused),
    (
        "votes_name_the_blocks_that_vote_for_exactly_this_commit",
        votes::votes_name_the_blocks_that_vote_for_exactly_this_commit,
    ),
    (
        "votes_of_committed_blocks_count_as_those_of_certifiers_do",
        votes::votes_of_committed_blocks_count_as_those_of_certifiers_do,
    ),
    ("votes_before_their_commit_are_kept_up_to_a_bound", votes::votes_before_their_commit_are_kept_up_to_a_bound),
    ("a_vote_from_another_epoch_does_not_count", votes::a_vote_from_another_epoch_does_not_count),
    ("the_end_of_an_epoch_stores_the_next_committee", the_end_of_an_epoch_stores_the_next_committee),
    ("the_address_book_keeps_the_last_word_for_each_peer", the_address_book_keeps_the_last_word_for_each_peer),
    (
        "a_certifier_block_that_is_committed_later_is_still_there",
        a_certifier_block_that_is_committed_later_is_still_there,
    ),
    ("a_block_that_votes_in_two_batches_is_one_voter", a_block_that_votes_in_two_batches_is_one_voter),
    (
        "blocks_of_one_round_are_there_whichever_batches_they_came_in",
        blocks_of_one_round_are_there_whichever_batches_they_came_in,
    ),
    ("blocks_of_any_length_read_back_in_any_order", reading::blocks_of_any_length_read_back_in_any_order),
    (
        "blocks_within_a_bound_are_the_first_ones_and_at_least_one",
        reading::blocks_within_a_bound_are_the_first_ones_and_at_least_one,
    ),
    (
        "commits_as_bytes_end_at_the_bound_and_at_the_first_gap",
        reading::commits_as_bytes_end_at_the_bound_and_at_the_first_gap,
    ),
    (
        "commits_and_votes_of_batches_of_any_size_read_back_from_any_start",
        reading::commits_and_votes_of_batches_of_any_size_read_back_from_any_start,
    ),
    ("readers_beside_a_writer_see_whole_commits", reading::readers_beside_a_writer_see_whole_commits),
    (
        "pruned_commits_are_gone_and_all_others_read_as_before",
        pruning::pruned_commits_are_gone_and_all_others_read_as_before,
    ),
    (
        "pruning_stops_before_the_last_commit_and_never_moves_back",
        pruning::pruning_stops_before_the_last_commit_and_never_moves_back,
    ),
    (
        "block_that_a_remaining_commit_names_outlives_its_batch",
        pruning::block_that_a_remaining_commit_names_outlives_its_batch,
    ),
    (
        "block_of_a_pruned_batch_is_stored_again_when_a_new_commit_names_it",
        pruning::block_of_a_pruned_batch_is_stored_again_when_a_new_commit_names_it,
    ),
    ("proof_of_an_ended_epoch_is_the_same_after_pruning", pruning::proof_of_an_ended_epoch_is_the_same_after_pruning),
    ("one_step_of_pruning_removes_what_one_write_adds", pruning::one_step_of_pruning_removes_what_one_write_adds),
    ("store_that_skipped_epochs_goes_on_after_them", pruning::store_that_skipped_epochs_goes_on_after_them),
    ("prepended_commits_read_like_applied_ones", prepending::prepended_commits_read_like_applied_ones),
    (
        "commits_are_prepended_to_a_store_without_later_ones",
        prepending::commits_are_prepended_to_a_store_without_later_ones,
    ),
    (
        "batch_that_does_not_end_below_the_lowest_commit_is_refused",
        prepending::batch_that_does_not_end_below_the_lowest_commit_is_refused,
    ),
    ("executors_begin_where_the_store_began", prepending::executors_begin_where_the_store_began),
    ("prepended_commits_are_pruned_like_applied_ones", prepending::prepended_commits_are_pruned_like_applied_ones),
    ("epochs_that_cannot_be_skipped_are_refused", pruning::epochs_that_cannot_be_skipped_are_refused),
];

/// Checks every promise of [`Store`], each with an empty store that `open` makes.
///
/// # Panics
///
/// The store breaks a promise. The message names all broken promises; the panic of each is printed before.
pub fn check_all(open: &Factory) {
    let is_broken = |check: &Promise| catch_unwind(AssertUnwindSafe(|| check(open))).is_err();
    let broken: Vec<_> = PROMISES.iter().filter(|(_, check)| is_broken(check)).map(|(name, _)| *name).collect();
    assert!(broken.is_empty(), "the store breaks {} of {} promises: {broken:?}", broken.len(), PROMISES.len());
}

/// All that a reader can learn of a store, to compare two stores. `voted`: the commits whose votes are read.
pub fn contents(store: &dyn Store, voted: &[CommitRef]) -> impl PartialEq + std::fmt::Debug + use<> {
    let watermarks = store.watermarks().unwrap();
    let commits = store.commits(0..=u32::MAX).unwrap();
    let mut digest = SubDagDigest::default();
    for index in 1..=watermarks.highest_synced.index {
        digest.push(&store.sub_dag(index).unwrap().unwrap());
    }
    let votes: Vec<_> = voted.iter().map(|commit| store.votes(*commit).unwrap()).collect();
    let latest = store.latest_epoch().unwrap();
    let epochs: Vec<_> = (0..=latest + 1)
        .map(|epoch| (store.committee(epoch).unwrap(), store.last_commit_of_epoch(epoch).unwrap()))
        .collect();
    (watermarks, commits, digest.to_string(), votes, latest, epochs, store.peers(PeerList::Infos).unwrap())
}

fn a_new_store_holds_the_genesis_and_no_more(open: &Factory) {
    let chain = Chain::new();
    let store = open(&chain.genesis);
    let genesis = chain.genesis.commit();
    assert_eq!(store.chain_id(), chain.genesis.chain_id());
    let expected = Watermarks { highest_synced: genesis.reference(), lowest_available: 1 };
    assert_eq!(store.watermarks().unwrap(), expected);
    assert_eq!(store.commits(0..=9).unwrap(), [genesis]);
    assert_eq!(store.commit(1).unwrap(), None);
    assert_eq!(store.sub_dag(1).unwrap(), None);
    assert_eq!(store.committee(0).unwrap(), Some(chain.genesis.committee().clone()));
    assert_eq!(store.committee(1).unwrap(), None);
    assert_eq!(store.latest_epoch().unwrap(), 0);
    assert_eq!(store.last_commit_of_epoch(0).unwrap(), None);
    assert_eq!(store.peers(PeerList::Infos).unwrap(), []);
    store.flush().unwrap();
}

fn applied_commits_read_back_byte_for_byte(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch = chain.grow(5);
    let watermarks = store.apply(&batch).unwrap();
    assert_eq!(watermarks, Watermarks { highest_synced: chain.last, lowest_available: 1 });
    assert_eq!(store.watermarks().unwrap(), watermarks);
    for certified in &batch {
        let stored = store.commit(certified.commit.index).unwrap().unwrap();
        assert_eq!(stored, certified.commit);
        assert_eq!(stored.bytes(), certified.commit.bytes());
    }
    assert_eq!(store.apply(&chain.grow(1)).unwrap().highest_synced, chain.last);
}

fn commits_end_at_the_first_gap(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    store.apply(&chain.grow(5)).unwrap();
    let indices = |range| store.commits(range).unwrap().iter().map(|commit| commit.index).collect::<Vec<_>>();
    assert_eq!(indices(2..=4), [2, 3, 4]);
    assert_eq!(indices(4..=u32::MAX), [4, 5]);
    assert_eq!(indices(6..=9), Vec::<u32>::new());
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = 4..=3;
    assert_eq!(indices(reversed), Vec::<u32>::new());
}

fn blocks_come_in_the_order_asked_with_none_for_the_missing(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch = chain.grow(2);
    store.apply(&batch).unwrap();
    let (first, certifier) = (&batch[0].blocks[1], &batch[1].certifiers[0]);
    let missing = chain.block(99, 3, &[], 0).reference();
    let refs = [certifier.reference(), missing, first.reference(), certifier.reference()];
    let expected =
        [Some(certifier.bytes().clone()), None, Some(first.bytes().clone()), Some(certifier.bytes().clone())];
    assert_eq!(store.blocks(&refs).unwrap(), expected);
    let sizes = expected.map(|bytes| bytes.map(|bytes| bytes.len()));
    assert_eq!(store.block_sizes(&refs).unwrap(), sizes);
    assert_eq!(store.blocks(&[]).unwrap(), Vec::<Option<Bytes>>::new());
}

fn a_sub_dag_is_what_was_applied(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch = chain.grow(3);
    store.apply(&batch).unwrap();
    for certified in &batch {
        assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
    }
}

fn sub_dags_end_at_the_bound_and_at_the_first_gap_and_are_at_least_one(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    // In batches of several sizes, so that commits, rounds and segments are shared by some and not by others; blocks
    // of up to 70,000 bytes, so that segments are many.
    let mut commits = Vec::new();
    for size in [1, 5, 40, 2, 17usize] {
        let commit = |number| {
            let round = chain.round + 1;
            let large = chain.block(round, 0, &[], number % 7 * 10_000);
            let small = chain.block(round, 1, &[], 20);
            chain.commit_of(vec![large, small])
        };
        let batch: Vec<_> = (0..size).map(commit).collect();
        store.apply(&batch).unwrap();
        commits.extend(batch);
    }
    let sub_dags: Vec<_> = commits.iter().map(CertifiedCommit::sub_dag).collect();
    let bytes = |of: &CommittedSubDag| of.blocks.iter().map(|block| block.bytes().len()).sum::<usize>();
    for start in 1..=sub_dags.len() {
        let rest = &sub_dags[start - 1..];
        for max_bytes in [0, 1, 60_000, 1 << 20, usize::MAX] {
            let mut room = max_bytes;
            let fits = rest.iter().take_while(|next| {
                let left = room.checked_sub(bytes(next));
                room = left.unwrap_or(0);
                left.is_some()
            });
            let expected = fits.count().max(1);
            let read = store.sub_dags(start as u32..=u32::MAX, max_bytes).unwrap();
            assert_eq!(read, rest[..expected], "from {start}, {max_bytes} bytes");
        }
        let last = (start + 2).min(sub_dags.len());
        assert_eq!(store.sub_dags(start as u32..=last as u32, usize::MAX).unwrap(), sub_dags[start - 1..last]);
    }
    let end = sub_dags.len() as u32;
    assert_eq!(store.sub_dags(end + 1..=end + 9, usize::MAX).unwrap(), []);
    #[expect(clippy::reversed_empty_ranges)]
    let empty = 9..=8;
    assert_eq!(store.sub_dags(empty, usize::MAX).unwrap(), []);
    // Of small blocks there may come fewer than there is room for, but some, and all in the end.
    let batch: Vec<_> = (0..60).map(|_| chain.commit()).collect();
    store.apply(&batch).unwrap();
    let mut next = end + 1;
    while next <= end + 60 {
        let read = store.sub_dags(next..=u32::MAX, 5_000).unwrap();
        let expected: Vec<_> =
            batch[(next - end - 1) as usize..].iter().take(read.len()).map(CertifiedCommit::sub_dag).collect();
        assert!(!read.is_empty() && read.iter().map(bytes).sum::<usize>() <= 5_000, "from {next}");
        assert_eq!(read, expected);
        next += read.len() as u32;
    }
}

/// Applies `batch`, which must be refused and leave no trace, and returns the error.
fn refused(store: &dyn Store, batch: &[CertifiedCommit]) -> StoreError {
    let voted: Vec<CommitRef> = batch.iter().map(|certified| certified.commit.reference()).collect();
    let before = contents(store, &voted);
    let error = store.apply(batch).expect_err("the batch is refused");
    assert_eq!(before, contents(store, &voted), "{error}");
    let blocks = batch.iter().flat_map(|certified| certified.blocks.iter().chain(&certified.certifiers));
    for block in blocks.filter(|block| block.round > 100) {
        assert_eq!(store.blocks(&[block.reference()]).unwrap(), [None], "{error}");
    }
    assert!(!error.is_fatal(), "{error}");
    error
}

fn a_refused_batch_writes_nothing(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    store.apply(&chain.grow(3)).unwrap();
    chain.round = 100;
    // Good commits before a bad one, with an end of an epoch among them.
    let mut batch = chain.grow(2);
    batch.push(chain.end_epoch());
    batch.extend(chain.grow(2));
    batch[4].blocks.pop();
    let error = refused(&*store, &batch);
    let what = Mismatch::BlockCount { expected: 2, found: 1 };
    assert!(matches!(error, StoreError::Mismatch { index: 8, what: actual, .. } if *actual == what));
    assert_eq!(store.latest_epoch().unwrap(), 0);
}

fn a_batch_that_does_not_continue_the_chain_is_refused(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut other = chain.clone();
    let batch = chain.grow(6);
    assert!(matches!(refused(&*store, &[]), StoreError::EmptyBatch { expected: 1, .. }));
    assert!(matches!(refused(&*store, &batch[1..]), StoreError::OutOfOrder { expected: 1, found: 2, .. }));
    store.apply(&batch[..2]).unwrap();
    let skipping = [batch[2].clone(), batch[4].clone()];
    assert!(matches!(refused(&*store, &skipping), StoreError::OutOfOrder { expected: 4, found: 5, .. }));
    let repeating = [batch[2].clone(), batch[2].clone()];
    assert!(matches!(refused(&*store, &repeating), StoreError::OutOfOrder { expected: 4, found: 3, .. }));
    assert!(matches!(refused(&*store, &batch[..2]), StoreError::OutOfOrder { expected: 3, found: 1, .. }));

    other.round = 50;
    let fork = other.grow(4);
    let error = refused(&*store, &fork[2..]);
    let (expected, found) = (batch[1].commit.reference().digest, fork[1].commit.reference().digest);
    let what = Mismatch::PreviousDigest { expected, found };
    assert!(matches!(error, StoreError::Mismatch { index: 3, what: actual, .. } if *actual == what));
    let broken = [batch[2].clone(), fork[3].clone()];
    let error = refused(&*store, &broken);
    let (expected, found) = (batch[2].commit.reference().digest, fork[3].commit.previous_digest);
    let what = Mismatch::PreviousDigest { expected, found };
    assert!(matches!(error, StoreError::Mismatch { index: 4, what: actual, .. } if *actual == what));
    store.apply(&batch[2..]).unwrap();
}

fn a_batch_whose_blocks_are_not_those_of_its_commits_is_refused(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let good = chain.grow(1);
    let spoil = |change: &dyn Fn(&mut CertifiedCommit)| {
        let mut bad = good.clone();
        change(&mut bad[0]);
        match refused(&*store, &bad) {
            StoreError::Mismatch { index: 1, what, .. } => *what,
            error => panic!("{error}"),
        }
    };
    let named = &good[0].commit.blocks;
    assert_eq!(spoil(&|bad| bad.blocks.clear()), Mismatch::BlockCount { expected: 2, found: 0 });
    let extra = chain.block(200, 2, &[], 0);
    assert_eq!(spoil(&|bad| bad.blocks.push(extra.clone())), Mismatch::BlockCount { expected: 2, found: 3 });
    let swapped = Mismatch::Block { position: 0, expected: named[0], found: named[1] };
    assert_eq!(spoil(&|bad| bad.blocks.swap(0, 1)), swapped);
    let other = Mismatch::Block { position: 1, expected: named[1], found: extra.reference() };
    assert_eq!(spoil(&|bad| bad.blocks[1] = extra.clone()), other);
    store.apply(&good).unwrap();
}

fn a_committee_for_another_than_the_next_epoch_is_refused(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    chain.epoch = 4;
    let end = chain.end_epoch();
    chain.epoch = 7;
    chain.last = chain.genesis.commit().reference();
    let forged = chain.commit_of(end.blocks);
    let error = refused(&*store, &[forged]);
    let what = Mismatch::NextCommittee { epoch: 7, found: 5 };
    assert!(matches!(&error, StoreError::Mismatch { index: 1, what: actual, .. } if **actual == what), "{error}");
}

fn the_end_of_an_epoch_stores_the_next_committee(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut batch = chain.grow(2);
    batch.push(chain.end_epoch());
    batch.extend(chain.grow(1));
    batch.push(chain.end_epoch());
    store.apply(&batch).unwrap();
    assert_eq!(store.latest_epoch().unwrap(), 2);
    for epoch in 0..=2 {
        assert_eq!(store.committee(epoch).unwrap(), Some(committee(epoch, &[1, 1, 1, 1])));
    }
    assert_eq!([0, 1, 2].map(|epoch| store.last_commit_of_epoch(epoch).unwrap()), [Some(3), Some(5), None]);
}

fn the_address_book_keeps_the_last_word_for_each_peer(open: &Factory) {
    let chain = Chain::new();
    let store = open(&chain.genesis);
    let peer = |id| PeerId([id; 32]);
    let entry = |id, info: &'static str| (peer(id), Bytes::from_static(info.as_bytes()));
    store
        .update_peers(PeerList::Infos, &[entry(3, "old"), entry(1, "one"), entry(2, "two"), entry(3, "three")], &[])
        .unwrap();
    assert_eq!(store.peers(PeerList::Infos).unwrap(), [entry(1, "one"), entry(2, "two"), entry(3, "three")]);
    store.update_peers(PeerList::Infos, &[entry(2, "new"), entry(4, "four")], &[peer(4), peer(1), peer(9)]).unwrap();
    assert_eq!(store.peers(PeerList::Infos).unwrap(), [entry(2, "new"), entry(3, "three")]);
    store.update_peers(PeerList::Infos, &[], &[]).unwrap();
    assert_eq!(store.peers(PeerList::Infos).unwrap().len(), 2);
}

fn a_certifier_block_that_is_committed_later_is_still_there(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let first = chain.grow(1);
    store.apply(&first).unwrap();
    let second = chain.commit_of(first[0].certifiers.clone());
    store.apply(std::slice::from_ref(&second)).unwrap();
    assert_eq!(store.sub_dag(2).unwrap(), Some(second.sub_dag()));
}

fn a_block_that_votes_in_two_batches_is_one_voter(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut first = chain.commit();
    let this = first.commit.reference();
    let ahead = CommitRef { index: 1 + VOTES_AHEAD + 1, digest: CommitDigest([5; 32]) };
    first.certifiers = chain.votes(&[this, ahead], &[0, 1]);
    let voters = first.certifiers.clone();
    let refs: Vec<_> = voters.iter().map(|block| block.reference()).collect();
    store.apply(std::slice::from_ref(&first)).unwrap();
    assert_eq!(store.votes(ahead).unwrap(), []);
    // Twice in one batch, too: certifier blocks of one commit, blocks of the next.
    let mut second = chain.commit();
    second.certifiers = voters.clone();
    let third = chain.commit_of(voters);
    store.apply(&[second, third]).unwrap();
    assert_eq!(store.votes(this).unwrap(), refs);
    // It was too far ahead at first, and no longer is.
    assert_eq!(store.votes(ahead).unwrap(), refs);
}

fn blocks_of_one_round_are_there_whichever_batches_they_came_in(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    // By two authors, one with two different blocks; the later ones come first.
    let late: Vec<_> = [(3, 0), (1, 7), (1, 0), (0, 0)].map(|(author, size)| chain.block(7, author, &[], size)).into();
    let mut expected = Vec::new();
    for block in late {
        let round = chain.round + 10;
        let commit = chain.commit_of(vec![block.clone(), chain.block(round, 2, &[], 9)]);
        store.apply(std::slice::from_ref(&commit)).unwrap();
        expected.extend(commit.blocks);
    }
    let missing = chain.block(7, 1, &[], 8).reference();
    let refs: Vec<_> = expected.iter().map(|block| block.reference()).collect();
    let bytes: Vec<_> = expected.iter().map(|block| Some(block.bytes().clone())).collect();
    assert_eq!(store.blocks(&refs).unwrap(), bytes);
    assert_eq!(store.blocks(&[missing]).unwrap(), [None]);
    assert_eq!(store.block_sizes(&[missing]).unwrap(), [None]);
}
