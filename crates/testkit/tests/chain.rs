//! What the builder makes is what the verifier accepts, whatever the spec.

use soma_testkit::{ChainBuilder, ChainSpec, LiveSource, SpecError};
use soma_types::{CertifiedCommit, CommitRef};
use soma_verify::{CertificateVerifier, EpochContext, check_commits, verify_blocks, verify_sub_dag};
use std::{collections::BTreeSet, time::Duration};

/// Verifies commits as a node that fetches them one by one would, from genesis.
fn verify(builder: &ChainBuilder, commits: &[CertifiedCommit]) {
    let mut context = EpochContext::new(builder.chain_id(), builder.genesis().committee.clone()).unwrap();
    let mut previous = builder.genesis().commit();
    for certified in commits {
        let index = certified.commit.index;
        assert_eq!(certified.commit.previous_digest, previous.reference().digest, "commit {index}");
        let certifiers = certified.certifiers.iter().map(|block| block.bytes().clone()).collect();
        let bytes = vec![certified.commit.bytes().clone()];
        let checked = check_commits(&context, index, index, bytes, certifiers).unwrap();
        let blocks = certified.blocks.iter().map(|block| block.bytes().clone()).collect();
        let blocks = verify_blocks(&context, &CertificateVerifier, &checked.commits[0].blocks, blocks).unwrap();
        let handover = verify_sub_dag(&context, &checked.commits[0], Some(previous.timestamp_ms), &blocks).unwrap();
        if let Some(handover) = handover {
            context = EpochContext::new(builder.chain_id(), handover.next_committee).unwrap();
        }
        previous = certified.commit.clone();
    }
}

#[test]
fn every_commit_of_every_kind_of_chain_verifies_across_epochs() {
    let specs = [
        ChainSpec { commits_per_epoch: 7, ..ChainSpec::default() },
        ChainSpec { stakes: vec![1], commits_per_epoch: 5, ..ChainSpec::default() },
        ChainSpec { stakes: vec![10, 20, 30, 5, 5, 17, 13], commits_per_epoch: 9, ..ChainSpec::default() },
        ChainSpec { silent: BTreeSet::from([2]), commits_per_epoch: 8, ..ChainSpec::default() },
        ChainSpec {
            stakes: vec![1; 7],
            faulty: BTreeSet::from([0, 3]),
            silent: BTreeSet::from([5]),
            commits_per_epoch: 11,
            transactions_per_block: 0,
            ..ChainSpec::default()
        },
    ];
    for spec in specs {
        let mut builder = ChainBuilder::new(spec.clone()).unwrap();
        let commits = builder.build(40);
        verify(&builder, &commits);
        assert!(commits.last().unwrap().commit.epoch >= 3, "{spec:?}");
        let blocks: Vec<_> = commits.iter().flat_map(|commit| commit.commit.blocks.clone()).collect();
        let distinct: BTreeSet<_> = blocks.iter().collect();
        assert_eq!(distinct.len(), blocks.len(), "no block is committed twice");
    }
}

#[test]
fn equal_specs_make_equal_chains_and_other_seeds_others() {
    let tip = |seed| -> CommitRef {
        let spec = ChainSpec { seed, faulty: BTreeSet::from([1]), commits_per_epoch: 6, ..ChainSpec::default() };
        ChainBuilder::new(spec).unwrap().build(20).pop().unwrap().commit.reference()
    };
    assert_eq!(tip(1), tip(1));
    assert_ne!(tip(1), tip(2));
}

#[test]
fn committees_change_keys_and_stakes_from_epoch_to_epoch() {
    let builder = ChainBuilder::new(ChainSpec::default()).unwrap();
    for epoch in 1..9 {
        let (before, after) = (builder.committee(epoch - 1), builder.committee(epoch));
        let changed = before.authorities.iter().zip(&after.authorities);
        assert_eq!(changed.filter(|(a, b)| a.protocol_key != b.protocol_key).count(), 1, "epoch {epoch}");
        assert_ne!(before.digest(), after.digest());
    }
}

#[test]
fn silent_authorities_are_never_seen_and_the_chain_goes_on_without_them() {
    let spec = ChainSpec { silent: BTreeSet::from([1]), ..ChainSpec::default() };
    let commits = ChainBuilder::new(spec).unwrap().build(20);
    assert!(commits.iter().all(|commit| commit.blocks.iter().all(|block| block.author != 1)));
}

#[test]
fn a_silent_authority_of_great_stake_never_holds_the_chain_up_for_long() {
    let spec = ChainSpec { stakes: vec![1_000; 4], silent: BTreeSet::from([0]), ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(100);
    verify(&builder, &commits);
    let largest = commits.iter().map(|commit| commit.blocks.len()).max().unwrap();
    assert!(largest <= 60, "{largest} blocks in one commit");
}

#[test]
fn without_a_live_quorum_there_is_no_chain_and_the_error_says_why() {
    let spec = ChainSpec { silent: BTreeSet::from([0, 1]), ..ChainSpec::default() };
    let error = ChainBuilder::new(spec).err().unwrap();
    assert_eq!(error, SpecError::NoQuorum { live: 2, total: 4, quorum: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_live_source_keeps_its_rate_on_average_even_for_a_late_caller() {
    let mut source = LiveSource::new(ChainBuilder::new(ChainSpec::default()).unwrap(), 10);
    let started = tokio::time::Instant::now();
    assert_eq!(source.next().await.commit.index, 1);
    tokio::time::advance(Duration::from_millis(450)).await;
    for index in 2..=5 {
        assert_eq!(source.next().await.commit.index, index);
    }
    assert!(started.elapsed() < Duration::from_millis(500), "what was due came at once");
    source.next().await;
    assert!(started.elapsed() >= Duration::from_millis(500), "what was not due came when it was");
}
