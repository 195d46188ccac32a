//! Epochs under attack: what hands over to a committee of the attacker's, and what forks off with keys that were once
//! good. Commits of the next epoch before the handover to it, and answers over the end of an epoch, are behaviours:
//! the tables have them.

use crate::{HOSTILE, goes_on, is_banned, is_doubted, victim};
use soma_p2p::{CertifiedCommit, Committee, PublicKey, SignedBlock, SigningKey, TrustedCommit, VerifiedBlock};
use soma_testkit::{ChainBuilder, ChainSpec, hostile::Server};
use soma_tests::{chain, eventually, key};
use soma_types::{AuthoritySignature, Block, Commit, EndOfEpoch, Intent, QuorumSignatures, Scope};

/// The last commit of epoch 0.
const LAST: usize = 20;

/// A committee that is the attacker's, but for its shape.
fn attackers(builder: &ChainBuilder) -> Committee {
    let mut committee = builder.committee(1);
    for (number, authority) in (200..).zip(&mut committee.authorities) {
        authority.protocol_key = PublicKey::from(&key(number));
    }
    committee
}

fn signatures(builder: &ChainBuilder, committee: &Committee, signers: &[(u32, SigningKey)]) -> QuorumSignatures {
    let intent = Intent { scope: Scope::NextCommittee, chain: builder.chain_id() };
    let signatures = signers.iter().map(|(authority, key)| AuthoritySignature {
        authority: *authority,
        signature: intent.sign(key, &committee.digest().0),
    });
    QuorumSignatures { signatures: signatures.collect() }
}

/// The handovers that a node must not follow, by what is wrong with them.
fn forged_handovers(builder: &ChainBuilder) -> Vec<(&'static str, EndOfEpoch)> {
    let next = builder.committee(1);
    let own = |authority| (authority, builder.protocol_key(0, authority));
    let hand_over = |next_committee: Committee, signers: &[(u32, SigningKey)]| EndOfEpoch {
        certificate: signatures(builder, &next_committee, signers),
        next_committee,
    };
    let stolen = EndOfEpoch {
        next_committee: attackers(builder),
        certificate: signatures(builder, &next, &[own(0), own(1), own(2)]),
    };
    let of_next = |authority| (authority, builder.protocol_key(1, authority));
    vec![
        ("a forged committee with the right one's signatures", stolen),
        ("a certificate below quorum", hand_over(next.clone(), &[own(0), own(1)])),
        ("a repeated signer", hand_over(next.clone(), &[own(0), own(1), own(1)])),
        // Authority 1 has another key in epoch 1.
        ("the signatures of the next committee", hand_over(next, &[of_next(0), of_next(1), of_next(2)])),
    ]
}

/// Whose votes there are for a forged commit.
#[derive(Clone, Copy, PartialEq)]
enum Votes {
    /// Forged, too: the attacker has the leader's key and no other.
    Forged,
    /// A quorum's: it has them all.
    OfQuorum,
}

/// The chain up to the end of epoch 0, which hands over so.
fn with_handover(
    builder: &ChainBuilder,
    commits: &[CertifiedCommit],
    end: EndOfEpoch,
    votes: Votes,
) -> Vec<CertifiedCommit> {
    let sign = |block: Block, key: &SigningKey| {
        VerifiedBlock::assume_verified(SignedBlock::sign(block, builder.chain_id(), key))
    };
    let mut forged = commits[..LAST].to_vec();
    let last = &mut forged[LAST - 1];
    let leader = last.blocks.pop().expect("a leader");
    let block = Block { end_of_epoch: Some(end), ..leader.value().clone() };
    let leader = sign(block, &builder.protocol_key(0, leader.author));
    last.blocks.push(leader.clone());
    let blocks = last.blocks.iter().map(|block| block.reference()).collect();
    let commit = Commit { leader: leader.reference(), blocks, ..(*last.commit).clone() };
    last.commit = TrustedCommit::assume_trusted(commit);
    let voted = last.commit.reference();
    for certifier in &mut last.certifiers {
        let block = Block { commit_votes: vec![voted], ..certifier.value().clone() };
        let author = block.author;
        let key = match votes {
            Votes::Forged if author != leader.author => key(HOSTILE),
            _ => builder.protocol_key(0, author),
        };
        *certifier = sign(block, &key);
    }
    forged
}

#[tokio::test]
async fn forged_handover_without_quorum_bans_its_sender_and_sync_continues() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis();
    for (what, end) in forged_handovers(&builder) {
        let forged = with_handover(&builder, &commits, end, Votes::Forged);
        let server = Server::start(None, &key(HOSTILE), genesis, &forged, 0).await;
        let victim = victim(genesis, &[], vec![server.seed_peer()]);
        let status = eventually(&victim, &format!("{what} is noticed"), is_banned).await;
        assert!(status.height < LAST as u32, "{what}: {}", status.height);
        let status = goes_on(&victim, genesis, &commits, &commits).await;
        assert!(is_banned(&status), "{what}");
    }
}

#[tokio::test]
async fn a_handover_that_breaks_a_rule_is_refused_even_with_a_quorums_votes() {
    let (builder, commits) = chain(30);
    let genesis = builder.genesis();
    for (what, end) in forged_handovers(&builder) {
        let forged = with_handover(&builder, &commits, end, Votes::OfQuorum);
        let server = Server::start(None, &key(HOSTILE), genesis, &forged, 0).await;
        let victim = victim(genesis, &[], vec![server.seed_peer()]);
        let told = |status: &soma_p2p::Status| status.explanation.contains("commit 20");
        let status = eventually(&victim, &format!("{what} is told of"), told).await;
        assert!(status.height < LAST as u32, "{what}: {}", status.height);
        assert_eq!(status.epoch, Some(0), "{what}");
        // The votes are those of a quorum: who passes them on has done nothing wrong.
        let status = goes_on(&victim, genesis, &commits, &commits).await;
        assert_eq!(status.banned, [], "{what}");
    }
}

#[tokio::test]
async fn long_range_fork_by_old_keys_is_refused_and_sync_continues() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    // The same keys of all epochs, which were thrown away and found: another chain from genesis on, and every
    // signature in it is good.
    let spec = ChainSpec { commits_per_epoch: LAST as u32, payload_bytes: 64, ..ChainSpec::default() };
    let mut forked = ChainBuilder::new(spec).expect("a valid spec");
    assert_eq!(forked.chain_id(), builder.chain_id());
    let fork = forked.build(80);
    let server = Server::start(None, &key(HOSTILE), genesis, &fork, 0).await;
    // The node has passed the handover that the fork does not share.
    let had = LAST + 5;
    let victim = victim(genesis, &commits[..had], vec![server.seed_peer()]);
    let status = eventually(&victim, "the fork is noticed", is_doubted).await;
    assert_eq!(status.height, had as u32);
    let status = goes_on(&victim, genesis, &commits, &commits[had..]).await;
    assert_eq!((status.height, status.banned.len()), (60, 0));
}
