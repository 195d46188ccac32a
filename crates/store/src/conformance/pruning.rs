//! Promises of [`Store::prune`], [`Store::epoch_proof`] and [`Store::skip_epochs`].

use super::{Chain, Factory};
use crate::{Mismatch, Pruned, Store, StoreError, Watermarks};
use soma_types::{BlockRef, CertifiedCommit, CommitIndex, EndedEpoch, EpochProof, VerifiedBlock};

/// Prunes until nothing is left to remove.
pub(super) fn prune(store: &dyn Store, lowest: CommitIndex) -> Watermarks {
    for _ in 0..10_000 {
        let Pruned { watermarks, is_complete } = store.prune(lowest).unwrap();
        assert_eq!(watermarks, store.watermarks().unwrap());
        if is_complete {
            return watermarks;
        }
    }
    panic!("pruning does not end");
}

fn refs(blocks: &[VerifiedBlock]) -> Vec<BlockRef> {
    blocks.iter().map(|block| block.reference()).collect()
}

/// The number of these blocks that are stored.
pub(super) fn stored(store: &dyn Store, blocks: &[VerifiedBlock]) -> usize {
    let (bytes, sizes) = (store.blocks(&refs(blocks)).unwrap(), store.block_sizes(&refs(blocks)).unwrap());
    let expected: Vec<_> = bytes.iter().map(|bytes| bytes.as_ref().map(|bytes| bytes.len())).collect();
    assert_eq!(sizes, expected);
    bytes.iter().flatten().count()
}

pub(super) fn pruned_commits_are_gone_and_all_others_read_as_before(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut commits: Vec<CertifiedCommit> = Vec::new();
    for size in [1, 30, 1, 1, 100, 2, 600, 40] {
        let batch = chain.grow(size);
        store.apply(&batch).unwrap();
        commits.extend(batch);
    }
    let highest_synced = chain.last;
    for lowest in [1, 2, 33, 140, 700, 775] {
        let watermarks = prune(&*store, lowest);
        assert_eq!(watermarks, Watermarks { highest_synced, lowest_available: lowest });
        let (pruned, kept) = commits.split_at(lowest as usize - 1);
        for certified in kept {
            let commit = certified.commit.reference();
            assert_eq!(store.commit(commit.index).unwrap().as_ref(), Some(&certified.commit));
            assert_eq!(store.sub_dag(commit.index).unwrap(), Some(certified.sub_dag()));
            assert_eq!(store.votes(commit).unwrap(), refs(&certified.certifiers), "commit {}", commit.index);
        }
        assert!((1..lowest).all(|index| store.commit(index).unwrap().is_none()));
        assert_eq!(store.commit_bytes(lowest.saturating_sub(1)..=lowest, usize::MAX).unwrap().is_empty(), lowest > 1);
        for index in (1..lowest).step_by(13) {
            let error = store.sub_dag(index).unwrap_err();
            assert!(
                matches!(error, StoreError::Pruned { index: found, lowest: named, .. } if (found, named) == (index, lowest)),
                "{error}"
            );
            assert!(!error.is_fatal());
        }
        // All but those that share a batch or a value with a remaining commit.
        let gone = pruned.len().saturating_sub(616);
        let left: usize = pruned[..gone].iter().map(|certified| stored(&*store, &certified.blocks)).sum();
        assert_eq!(left, 0, "blocks of commits below {lowest}");
    }
    assert_eq!(store.commit(0).unwrap(), Some(chain.genesis.commit()));
}

pub(super) fn pruning_stops_before_the_last_commit_and_never_moves_back(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    assert_eq!(prune(&*store, 5).lowest_available, 1, "an empty store has nothing to prune");
    store.apply(&chain.grow(50)).unwrap();
    assert_eq!(prune(&*store, CommitIndex::MAX).lowest_available, 50);
    assert_eq!(prune(&*store, 7).lowest_available, 50);
    assert!(store.sub_dag(50).unwrap().is_some());
    let next = chain.grow(20);
    let watermarks = store.apply(&next).unwrap();
    assert_eq!(watermarks, Watermarks { highest_synced: chain.last, lowest_available: 50 });
    for certified in &next {
        assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
    }
}

pub(super) fn block_that_a_remaining_commit_names_outlives_its_batch(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let first = chain.grow(1);
    let early = first[0].certifiers.clone();
    store.apply(&first).unwrap();
    store.apply(&chain.grow(99)).unwrap();
    let naming = chain.commit_of(early.clone());
    store.apply(std::slice::from_ref(&naming)).unwrap();
    for _ in 0..100 {
        store.apply(&chain.grow(1)).unwrap();
    }
    prune(&*store, 101);
    assert_eq!(store.sub_dag(101).unwrap(), Some(naming.sub_dag()));
    prune(&*store, 200);
    assert_eq!(stored(&*store, &early), 0);
    assert_eq!(stored(&*store, &first[0].blocks), 0);
}

pub(super) fn block_of_a_pruned_batch_is_stored_again_when_a_new_commit_names_it(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let first = chain.grow(1);
    // It has a later round than all pruned blocks.
    let early = chain.block(10_000, 2, &[], 5);
    let second = {
        let mut second = chain.commit();
        second.certifiers = vec![early.clone()];
        second
    };
    store.apply(&first).unwrap();
    store.apply(std::slice::from_ref(&second)).unwrap();
    store.apply(&chain.grow(200)).unwrap();
    store.apply(&chain.grow(1)).unwrap();
    prune(&*store, 203);
    assert_eq!(stored(&*store, std::slice::from_ref(&early)), 0);
    let naming = chain.commit_of(vec![early]);
    store.apply(std::slice::from_ref(&naming)).unwrap();
    assert_eq!(store.sub_dag(naming.commit.index).unwrap(), Some(naming.sub_dag()));
}

pub(super) fn proof_of_an_ended_epoch_is_the_same_after_pruning(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut proofs = Vec::new();
    for epoch in 0..3 {
        assert_eq!(store.epoch_proof(epoch).unwrap(), None);
        store.apply(&chain.grow(40)).unwrap();
        let last = chain.end_epoch();
        store.apply(std::slice::from_ref(&last)).unwrap();
        let proof = store.epoch_proof(epoch).unwrap().unwrap();
        let certifiers = proof.certifiers.len();
        let EpochProof { commit, end_of_epoch, .. } = &proof;
        assert_eq!((commit, end_of_epoch, certifiers), (last.commit.bytes(), last.blocks[0].bytes(), 3));
        proofs.push(proof);
    }
    store.apply(&chain.grow(100)).unwrap();
    for lowest in [41, 42, 200] {
        assert_eq!(prune(&*store, lowest).lowest_available, lowest);
        for (epoch, proof) in (0..).zip(&proofs) {
            assert_eq!(store.epoch_proof(epoch).unwrap().as_ref(), Some(proof), "epoch {epoch}");
        }
    }
    assert_eq!(store.epoch_proof(3).unwrap(), None);
    // What a node needs besides.
    assert!((0..=3).all(|epoch| store.committee(epoch).unwrap().is_some()));
    assert_eq!(store.last_commit_of_epoch(1).unwrap(), Some(82));
}

/// Ends the chain's epoch after `commits` more commits, which are returned.
pub(super) fn end_epoch(chain: &mut Chain, commits: usize) -> (Vec<CertifiedCommit>, EndedEpoch) {
    let mut grown = chain.grow(commits);
    let last = chain.end_epoch();
    let bytes = |block: &VerifiedBlock| block.bytes().clone();
    let ended = EndedEpoch {
        proof: EpochProof {
            commit: last.commit.bytes().clone(),
            certifiers: last.certifiers.iter().map(bytes).collect(),
            end_of_epoch: bytes(&last.blocks[0]),
        },
        last_commit: last.commit.clone(),
        next_committee: last.end_of_epoch().unwrap().next_committee.clone(),
    };
    grown.push(last);
    (grown, ended)
}

pub(super) fn store_that_skipped_epochs_goes_on_after_them(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let ended: Vec<_> = [40, 2, 30].map(|commits| end_epoch(&mut chain, commits).1).into();
    for (skipped, highest, last) in [(&ended[..2], 44, 1), (&ended[2..], 75, 2)] {
        let watermarks = store.skip_epochs(skipped).unwrap();
        assert_eq!((watermarks.highest_synced.index, watermarks.lowest_available), (highest, highest + 1));
        assert_eq!(store.watermarks().unwrap(), watermarks);
        assert_eq!(store.commit(highest).unwrap().as_ref(), Some(&ended[last].last_commit));
        assert_eq!(store.latest_epoch().unwrap(), last as u64 + 1);
        assert_eq!(store.committee(last as u64 + 1).unwrap().as_ref(), Some(&ended[last].next_committee));
        let error = store.sub_dag(highest).unwrap_err();
        assert!(matches!(error, StoreError::Pruned { lowest, .. } if lowest == highest + 1), "{error}");
        assert_eq!(prune(&*store, 10).lowest_available, highest + 1, "nothing to prune");
    }
    for (epoch, ended) in (0..).zip(&ended) {
        assert_eq!(store.epoch_proof(epoch).unwrap().as_ref(), Some(&ended.proof));
        assert_eq!(store.last_commit_of_epoch(epoch).unwrap(), Some(ended.last_commit.index));
    }
    assert_eq!(store.commit(44).unwrap(), None, "only the last one is kept");
    assert_eq!(store.commit(0).unwrap(), Some(chain.genesis.commit()));

    let (commits, next) = end_epoch(&mut chain, 200);
    for batch in commits.chunks(50) {
        store.apply(batch).unwrap();
    }
    for certified in &commits {
        assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
    }
    assert_eq!(store.epoch_proof(3).unwrap().map(|proof| proof.commit), Some(next.proof.commit));
    assert_eq!(store.commit(75).unwrap(), None);
    assert_eq!(prune(&*store, 200).lowest_available, 200);
    assert_eq!(store.sub_dag(200).unwrap(), Some(commits[200 - 76].sub_dag()));
}

pub(super) fn epochs_that_cannot_be_skipped_are_refused(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let ended = [5, 5, 5].map(|commits| end_epoch(&mut chain, commits).1);
    let [first, _, third] = ended.clone();
    let mismatch = |ended: &[EndedEpoch]| match store.skip_epochs(ended) {
        Err(StoreError::Mismatch { what, .. }) => *what,
        other => panic!("not refused: {other:?}"),
    };
    let before = store.watermarks().unwrap();
    assert!(matches!(store.skip_epochs(&[]), Err(StoreError::EmptyBatch { .. })));
    assert_eq!(mismatch(&[first.clone(), third.clone()]), Mismatch::SkippedEpoch { expected: 1, found: 2 });
    let foreign = EndedEpoch { next_committee: third.next_committee.clone(), ..first.clone() };
    assert_eq!(mismatch(&[foreign]), Mismatch::NextCommittee { epoch: 0, found: 3 });
    assert_eq!(store.watermarks().unwrap(), before, "nothing was written");

    // The first may be a later one: a trusted checkpoint.
    assert_eq!(store.skip_epochs(std::slice::from_ref(&third)).unwrap().lowest_available, 19);
    assert_eq!(mismatch(&[first]), Mismatch::SkippedEpoch { expected: 3, found: 0 });
    let (commits, next) = end_epoch(&mut chain, 3);
    store.apply(&commits).unwrap();
    let error = store.skip_epochs(&[next]).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { lowest: 19, highest: 22, .. }), "{error}");
}

pub(super) fn one_step_of_pruning_removes_what_one_write_adds(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut highest = 0;
    for _ in 0..3 {
        // Small commits and short epochs: a batch that a sync writes has thousands.
        let mut batch = Vec::new();
        for _ in 0..40 {
            batch.extend(chain.grow(99));
            batch.push(chain.end_epoch());
        }
        highest += batch.len() as CommitIndex;
        store.apply(&batch).unwrap();
        let Pruned { watermarks, is_complete } = store.prune(highest - 100).unwrap();
        assert_eq!((watermarks.lowest_available, is_complete), (highest - 100, true), "nothing is left for later");
    }
}
