//! What the builder makes is what the verifier accepts, whatever the spec.

use soma_testkit::{BlockKind, ChainBuilder, ChainSpec, LiveSource, Payload, SpecError};
use soma_types::{Certificate, CertifiedCommit, Commit, CommitRef, codec};
use soma_verify::{CertificateVerifier, Checks, EpochContext, verify_certified_commit};
use std::{collections::BTreeSet, time::Duration};

/// Verifies commits as a node that fetches them one by one would, from genesis.
fn verify(builder: &ChainBuilder, commits: &[CertifiedCommit]) {
    let mut context = EpochContext::new(builder.chain_id(), builder.genesis().committee().clone()).unwrap();
    let mut previous = builder.genesis().commit();
    for certified in commits {
        let index = certified.commit.index;
        assert_eq!(certified.commit.previous_digest, previous.reference().digest, "commit {index}");
        let checks = Checks::Full(&CertificateVerifier);
        let sub_dag = verify_certified_commit(&context, checks, certified, &mut ()).unwrap();
        let timestamp_ms = Commit::timestamp_after(sub_dag.leader_timestamp_ms, previous.timestamp_ms);
        assert_eq!(certified.commit.timestamp_ms, timestamp_ms);
        if let Some(handover) = sub_dag.end_of_epoch {
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
        ChainSpec { rounds_per_commit: 3, senders: 1_000, commits_per_epoch: 6, ..ChainSpec::default() },
        ChainSpec { rounds_per_commit: 10, silent: BTreeSet::from([2]), commits_per_epoch: 6, ..ChainSpec::default() },
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

#[test]
fn ten_rounds_per_commit_make_forty_blocks_and_end_epochs_on_time() {
    let spec = ChainSpec { rounds_per_commit: 10, commits_per_epoch: 4, ..ChainSpec::default() };
    let commits = ChainBuilder::new(spec).unwrap().build(9);
    let ends: Vec<_> = commits
        .iter()
        .map(|commit| commit.blocks.iter().filter(|block| block.end_of_epoch.is_some()).count())
        .collect();
    assert_eq!(ends, [0, 0, 0, 1, 0, 0, 0, 1, 0]);
    let blocks: Vec<_> = commits.iter().map(|commit| commit.blocks.len()).collect();
    // The other blocks of the leader's round are committed with the next one; the end of an epoch leaves them behind.
    assert_eq!(blocks, [37, 40, 40, 40, 37, 40, 40, 40, 37]);
}

#[test]
fn block_kinds_have_their_stated_length_and_signature_count() {
    for kind in BlockKind::ALL {
        for rounds_per_commit in [1, 10] {
            let like = ChainSpec { rounds_per_commit, commits_per_epoch: 10_000, ..ChainSpec::default() };
            let spec = kind.spec(like).unwrap();
            assert_eq!(spec.payload == Payload::Certified, kind == BlockKind::C);
            let commits = ChainBuilder::new(spec).unwrap().build(120);
            let blocks: Vec<_> = commits.iter().flat_map(|commit| &commit.blocks).collect();
            let mean = blocks.iter().map(|block| block.bytes().len()).sum::<usize>() as f64 / blocks.len() as f64;
            let off = mean / kind.block_bytes() as f64 - 1.0;
            assert!(off.abs() < 0.02, "{kind}, {rounds_per_commit} rounds to a commit: {mean} bytes");
            for block in blocks {
                let signed = block.transactions.iter().map(|transaction| match kind {
                    BlockKind::C => {
                        let certificate: Certificate = codec::decode(&transaction.0, "certificate", 4_096).unwrap();
                        1 + certificate.quorum.signatures.len()
                    }
                    BlockKind::S | BlockKind::L => 0,
                });
                assert_eq!(1 + signed.sum::<usize>(), kind.signatures());
            }
        }
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert!("s".parse::<BlockKind>().is_err_and(|error| error.to_string().contains("\"s\"")));
}

#[test]
fn a_chain_without_senders_or_rounds_is_refused_with_the_setting() {
    for spec in
        [ChainSpec { senders: 0, ..ChainSpec::default() }, ChainSpec { rounds_per_commit: 0, ..ChainSpec::default() }]
    {
        let name = if spec.senders == 0 { "senders" } else { "rounds_per_commit" };
        assert_eq!(ChainBuilder::new(spec).err(), Some(SpecError::Zero(name)));
    }
}
