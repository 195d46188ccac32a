//! Chains of honest authorities are accepted, in ranges of any length, across epochs, with any committee.

mod support;

use soma_testkit::{ChainBuilder, ChainSpec};
use soma_types::{CertifiedCommit, Commit, CommitDigest, TimestampMs};
use soma_verify::{CertificateVerifier, EpochContext, check_commits, verify_blocks, verify_sub_dags};
use std::collections::BTreeSet;
use support::{all_bytes, commit_bytes};

/// Syncs all `commits` in ranges of at most `range` commits, like a node: first commits and their votes, then the
/// blocks of the range in one batch, then each sub-dag.
fn sync(builder: &ChainBuilder, commits: &[CertifiedCommit], range: usize) {
    let mut context = EpochContext::new(builder.chain_id(), builder.genesis().committee().clone()).unwrap();
    let genesis = builder.genesis().commit();
    let mut previous: (CommitDigest, TimestampMs) = (genesis.reference().digest, genesis.timestamp_ms);
    let mut rest = commits;
    while let Some(first) = rest.first() {
        assert_eq!(first.commit.epoch, context.epoch(), "the handover comes with the epoch's last commit");
        let of_epoch = rest.iter().take(range).take_while(|next| next.commit.epoch == context.epoch()).count();
        let (now, later) = rest.split_at(of_epoch);
        rest = later;

        let last = now.last().unwrap();
        let (start, max) = (first.commit.index, first.commit.index + range as u32 - 1);
        let checked = check_commits(&context, start, max, commit_bytes(now), all_bytes(&last.certifiers)).unwrap();
        assert_eq!(checked.certifiers, last.certifiers);
        assert_eq!(checked.commits[0].previous_digest, previous.0);

        let refs: Vec<_> = checked.commits.iter().flat_map(|commit| commit.blocks.iter().copied()).collect();
        let received = now.iter().flat_map(|certified| all_bytes(&certified.blocks)).collect();
        let blocks = verify_blocks(&context, &CertificateVerifier, &refs, received).unwrap();
        let mut blocks = blocks.as_slice();
        let mut received = Vec::new();
        for (commit, certified) in checked.commits.iter().zip(now) {
            assert_eq!(commit, &certified.commit);
            let (own, others) = blocks.split_at(commit.blocks.len());
            blocks = others;
            received.push(CertifiedCommit { commit: commit.clone(), blocks: own.to_vec(), certifiers: Vec::new() });
        }
        let verdict = verify_sub_dags(&context, &received);
        assert_eq!((verdict.verified, verdict.error), (now.len(), None));
        assert_eq!(verdict.end_of_epoch.as_ref(), last.end_of_epoch());
        let first_ms = Commit::timestamp_after(verdict.first_leader_timestamp_ms, previous.1);
        assert_eq!(first.commit.timestamp_ms, first_ms);
        previous = (last.commit.reference().digest, last.commit.timestamp_ms);
        if let Some(end) = verdict.end_of_epoch {
            context = EpochContext::new(builder.chain_id(), end.next_committee).unwrap();
        }
    }
}

fn spec(seed: u64) -> ChainSpec {
    ChainSpec { seed, commits_per_epoch: 40, payload_bytes: 32, ..ChainSpec::default() }
}

#[test]
fn honest_chains_are_accepted_with_any_committee() {
    let specs = [
        spec(1),
        ChainSpec { stakes: vec![1], ..spec(2) },
        ChainSpec { stakes: vec![1; 7], ..spec(3) },
        ChainSpec { stakes: vec![10, 20, 30, 40], ..spec(4) },
        ChainSpec { stakes: vec![1, 1_000_000, 1_000_000, 1_000_000], ..spec(5) },
        ChainSpec { stakes: vec![1; 7], silent: BTreeSet::from([1, 6]), ..spec(6) },
        ChainSpec { stakes: vec![1; 7], faulty: BTreeSet::from([0, 2, 4, 6]), ..spec(7) },
        ChainSpec { stakes: vec![3, 1, 2, 2, 1], silent: BTreeSet::from([1]), faulty: BTreeSet::from([3]), ..spec(8) },
        ChainSpec { transactions_per_block: 0, ..spec(9) },
        ChainSpec { transactions_per_block: 5, commits_per_epoch: 2, ..spec(10) },
    ];
    for spec in specs {
        let mut builder = ChainBuilder::new(spec).unwrap();
        let commits = builder.build(100);
        sync(&builder, &commits, 30);
    }
}

#[test]
fn chain_is_accepted_in_ranges_of_any_length() {
    let mut builder = ChainBuilder::new(spec(0)).unwrap();
    let commits = builder.build(100);
    for range in [1, 2, 7, 40, 100] {
        sync(&builder, &commits, range);
    }
}
