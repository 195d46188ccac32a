//! Promises of [`Store::prepend`].

use super::{
    Chain, Factory,
    pruning::{end_epoch, prune, stored},
};
use crate::{Mismatch, Store, StoreError, serve_commits};
use soma_types::{CertifiedCommit, CommitDigest, CommitIndex, EndedEpoch, TrustedCommit};

/// A chain of three epochs and some commits, with its ended epochs.
pub(super) struct History {
    chain: Chain,
    commits: Vec<CertifiedCommit>,
    ended: Vec<EndedEpoch>,
}

impl History {
    fn new() -> Self {
        let mut chain = Chain::new();
        let (mut commits, mut ended) = (Vec::new(), Vec::new());
        for length in [40, 2, 70] {
            let (grown, epoch) = end_epoch(&mut chain, length);
            commits.extend(grown);
            ended.push(epoch);
        }
        // A commit of blocks that certify an earlier one, and a large one.
        let voters = commits[100].certifiers.clone();
        commits.extend(chain.grow(5));
        commits.push(chain.commit_of(voters));
        commits.push(chain.large(300_000));
        commits.extend(chain.grow(30));
        Self { chain, commits, ended }
    }

    /// The first commit after the ended epochs.
    fn first_applied(&self) -> CommitIndex {
        self.ended[2].last_commit.index + 1
    }

    fn commit(&self, index: CommitIndex) -> &CertifiedCommit {
        &self.commits[index as usize - 1]
    }

    /// Commits `first` to the one below `lowest`.
    fn batch(&self, first: CommitIndex, lowest: CommitIndex) -> Vec<&CertifiedCommit> {
        (first..lowest).map(|index| self.commit(index)).collect()
    }

    /// Lets an empty store skip the ended epochs, and applies the first `applied` commits after them.
    fn begin_late(&self, store: &dyn Store, applied: usize) {
        store.skip_epochs(&self.ended).unwrap();
        let first = self.first_applied() as usize - 1;
        if applied > 0 {
            store.apply(&self.commits[first..first + applied]).unwrap();
        }
    }

    /// Prepends all that is missing in batches that begin with these commits.
    fn prepend(&self, store: &dyn Store, firsts: &[CommitIndex]) {
        for &first in firsts {
            let before = store.watermarks().unwrap();
            let after = store.prepend(&self.batch(first, before.lowest_available)).unwrap();
            assert_eq!((after.lowest_available, after.highest_synced), (first, before.highest_synced));
            assert_eq!(store.watermarks().unwrap(), after);
        }
    }

    /// Checks that the store reads like one that has applied the same commits.
    fn expect_like_applied(&self, store: &dyn Store, applied: &dyn Store) {
        let lowest = store.watermarks().unwrap().lowest_available;
        let highest = store.watermarks().unwrap().highest_synced.index;
        for index in lowest..=highest {
            let expected = self.commit(index);
            let commit = expected.commit.reference();
            assert_eq!(store.commit(index).unwrap().as_ref(), Some(&expected.commit));
            assert_eq!(store.sub_dag(index).unwrap(), Some(expected.sub_dag()));
            assert_eq!(store.votes(commit).unwrap(), applied.votes(commit).unwrap(), "votes for {index}");
            let served = |store| serve_commits(store, index, index + 30, 1 << 20).unwrap();
            assert_eq!(served(store), served(applied), "from {index} on");
        }
        let ranges = (lowest..=highest).step_by(7);
        for range in ranges.map(|first| first..=highest) {
            assert_eq!(store.commits(range.clone()).unwrap(), applied.commits(range.clone()).unwrap());
            let bytes = |store: &dyn Store| store.commit_bytes(range.clone(), usize::MAX).unwrap();
            assert_eq!(bytes(store), bytes(applied));
            let sub_dags = |store: &dyn Store| store.sub_dags(range.clone(), usize::MAX).unwrap();
            assert_eq!(sub_dags(store), sub_dags(applied));
        }
        for epoch in 0..=3 {
            assert_eq!(store.committee(epoch).unwrap(), applied.committee(epoch).unwrap());
            assert_eq!(store.last_commit_of_epoch(epoch).unwrap(), applied.last_commit_of_epoch(epoch).unwrap());
            let commit = |store: &dyn Store| store.epoch_proof(epoch).unwrap().map(|proof| proof.commit);
            assert_eq!(commit(store), commit(applied), "epoch {epoch}");
        }
        assert_eq!(store.commit(0).unwrap(), Some(self.chain.genesis.commit()));
    }
}

/// Where batches begin: short and long ones, across epochs, from the lowest commit of a group of 16.
const FIRSTS: [CommitIndex; 7] = [114, 112, 80, 79, 33, 16, 1];

pub(super) fn prepended_commits_read_like_applied_ones(open: &Factory) {
    let history = History::new();
    let (store, applied) = (open(&history.chain.genesis), open(&history.chain.genesis));
    applied.apply(&history.commits[..history.commits.len() - 10]).unwrap();
    history.begin_late(&*store, history.commits.len() - 10 - (history.first_applied() as usize - 1));
    for first in FIRSTS {
        history.prepend(&*store, &[first]);
        history.expect_like_applied(&*store, &*applied);
        assert!(matches!(first, 1) || store.sub_dag(first - 1).is_err());
    }
    // The chain goes on at its other end.
    for store in [&store, &applied] {
        store.apply(&history.commits[history.commits.len() - 10..]).unwrap();
    }
    history.expect_like_applied(&*store, &*applied);
}

pub(super) fn commits_are_prepended_to_a_store_without_later_ones(open: &Factory) {
    let history = History::new();
    let (store, applied) = (open(&history.chain.genesis), open(&history.chain.genesis));
    history.begin_late(&*store, 0);
    let last = history.first_applied() - 1;
    assert!(matches!(store.sub_dag(last), Err(StoreError::Pruned { .. })));
    applied.apply(&history.commits[..last as usize]).unwrap();
    history.prepend(&*store, &[last - 10, last - 11]);
    history.expect_like_applied(&*store, &*applied);
    // Epochs are skipped by a store without commits only.
    let error = store.skip_epochs(&history.ended[2..]).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    for store in [&store, &applied] {
        store.apply(&history.commits[last as usize..]).unwrap();
    }
    history.prepend(&*store, &[50, 1]);
    history.expect_like_applied(&*store, &*applied);
}

pub(super) fn batch_that_does_not_end_below_the_lowest_commit_is_refused(open: &Factory) {
    let history = History::new();
    let store = open(&history.chain.genesis);
    let lowest = history.first_applied();
    // A new store has nothing below.
    let error = store.prepend(&history.batch(1, 3)).unwrap_err();
    assert!(matches!(error, StoreError::OutOfOrder { expected: 0, .. }), "{error}");
    history.begin_late(&*store, 20);
    history.prepend(&*store, &[lowest - 5]);
    let lowest = lowest - 5;
    let before = (store.watermarks().unwrap(), store.votes(history.commit(lowest - 1).commit.reference()).unwrap());

    let refused = |batch: &[&CertifiedCommit]| {
        let error = store.prepend(batch).unwrap_err();
        assert!(!error.is_fatal());
        let last = history.commit(lowest - 1);
        assert_eq!((store.watermarks().unwrap(), store.votes(last.commit.reference()).unwrap()), before);
        assert_eq!((store.commit(lowest - 1).unwrap(), stored(&*store, &last.blocks)), (None, 0), "nothing is written");
        error
    };
    let mismatch = |batch: &[&CertifiedCommit]| match refused(batch) {
        StoreError::Mismatch { what, .. } => *what,
        error => panic!("{error}"),
    };
    let empty = refused(&[]);
    assert!(matches!(empty, StoreError::EmptyBatch { expected, .. } if expected == lowest - 1), "{empty}");
    for (first, end) in [(lowest - 3, lowest - 1), (lowest - 3, lowest + 1)] {
        let error = refused(&history.batch(first, end));
        assert!(matches!(error, StoreError::OutOfOrder { expected, .. } if expected == lowest - 1), "{error}");
    }
    let mut with_gap = history.batch(lowest - 4, lowest);
    with_gap.remove(1);
    assert!(matches!(refused(&with_gap), StoreError::OutOfOrder { .. }));

    let changed = |index: CommitIndex, change: fn(&mut soma_types::Commit)| {
        let original = history.commit(index);
        let mut commit = (*original.commit).clone();
        change(&mut commit);
        CertifiedCommit { commit: TrustedCommit::assume_trusted(commit), ..original.clone() }
    };
    let other = changed(lowest - 1, |commit| commit.timestamp_ms += 1);
    assert!(matches!(mismatch(&[&other]), Mismatch::Digest { .. }));
    let other = changed(lowest - 2, |commit| commit.previous_digest = CommitDigest([7; 32]));
    assert!(matches!(mismatch(&[&other, history.commit(lowest - 1)]), Mismatch::PreviousDigest { .. }));
    let mut fewer = history.commit(lowest - 1).clone();
    fewer.blocks.pop();
    assert!(matches!(mismatch(&[&fewer]), Mismatch::BlockCount { .. }));

    history.prepend(&*store, &[lowest - 1]);
}

pub(super) fn executors_begin_where_the_store_began(open: &Factory) {
    let history = History::new();
    let store = open(&history.chain.genesis);
    assert_eq!(store.began_at().unwrap(), 1);
    history.begin_late(&*store, 20);
    let first = history.first_applied();
    assert_eq!(store.began_at().unwrap(), first);
    history.prepend(&*store, &[60, 1]);
    assert_eq!(store.began_at().unwrap(), first);
    prune(&*store, first + 3);
    assert_eq!(store.began_at().unwrap(), first + 3);
}

pub(super) fn prepended_commits_are_pruned_like_applied_ones(open: &Factory) {
    let history = History::new();
    let store = open(&history.chain.genesis);
    let count = history.commits.len();
    history.begin_late(&*store, count - (history.first_applied() as usize - 1));
    history.prepend(&*store, &FIRSTS);
    for lowest in [2, 34, 64, 115, 150] {
        assert_eq!(prune(&*store, lowest).lowest_available, lowest);
        for index in lowest..=count as CommitIndex {
            assert_eq!(store.sub_dag(index).unwrap(), Some(history.commit(index).sub_dag()), "{index} after {lowest}");
        }
        for index in 1..lowest {
            assert_eq!(store.commit(index).unwrap(), None);
            assert!(matches!(store.sub_dag(index), Err(StoreError::Pruned { .. })));
        }
        for (epoch, ended) in (0..).zip(&history.ended) {
            assert_eq!(store.epoch_proof(epoch).unwrap().as_ref(), Some(&ended.proof), "epoch {epoch}");
        }
    }
    // The batches before the one of the lowest commit are gone as a whole.
    let left: usize = history.commits[..110].iter().map(|certified| stored(&*store, &certified.blocks)).sum();
    assert_eq!(left, 0);
}
