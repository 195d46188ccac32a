//! Proofs of ended epochs: an honest chain of proofs leads to the current committee, and each broken rule is named.

mod support;

use bytes::Bytes;
use soma_types::{Block, Commit, Committee, EndOfEpoch, EndedEpoch, EpochProof, Fault, TrustedCommit};
use soma_verify::{CommitsError, EpochContext, EpochProofError, QuorumError, SubDagError, verify_epoch_proof};
use support::{CHAIN, PER_EPOCH, all_bytes, bytes, verified};

/// The genesis commit.
fn genesis() -> TrustedCommit {
    CHAIN.builder.genesis().commit()
}

/// The proof of epoch 0 or 1.
fn proof(epoch: usize) -> EpochProof {
    let last = CHAIN.commit((epoch + 1) * PER_EPOCH);
    let end = last.blocks.iter().find(|block| block.end_of_epoch.is_some()).unwrap();
    EpochProof {
        commit: last.commit.bytes().clone(),
        certifiers: all_bytes(&last.certifiers),
        end_of_epoch: bytes(end),
    }
}

fn verify(proof: &EpochProof) -> Result<EndedEpoch, EpochProofError> {
    verify_epoch_proof(&CHAIN.context, &genesis(), proof)
}

/// A proof of epoch 0 with a changed block at its end. Its commit names that block, and its votes are for that commit.
fn certified(change: impl FnOnce(&mut Block)) -> EpochProof {
    let last = CHAIN.last_of_epoch();
    let position = last.blocks.iter().position(|block| block.end_of_epoch.is_some()).unwrap();
    let changed = CHAIN.changed(&last.blocks[position], change);
    let mut blocks = last.blocks.clone();
    blocks[position] = verified(changed.clone());
    let commit = CHAIN.commit_of(&last.commit, &blocks);
    let certifiers = last.certifiers.iter();
    let vote = |block: &mut Block| block.commit_votes = vec![commit.reference()];
    EpochProof {
        certifiers: certifiers.map(|block| bytes(&CHAIN.changed(block, vote))).collect(),
        commit: commit.bytes().clone(),
        end_of_epoch: bytes(&changed),
    }
}

fn with_handover(end: EndOfEpoch) -> EpochProof {
    certified(|block| block.end_of_epoch = Some(end))
}

fn next_committee() -> Committee {
    CHAIN.builder.committee(1)
}

#[test]
fn proofs_lead_from_genesis_to_the_current_committee() {
    let (mut context, mut previous) = (CHAIN.context.clone(), genesis());
    for epoch in 0..2 {
        let end = verify_epoch_proof(&context, &previous, &proof(epoch)).unwrap();
        assert_eq!(end.last_commit, CHAIN.commit((epoch + 1) * PER_EPOCH).commit);
        assert_eq!(end.next_committee, CHAIN.builder.committee(epoch as u64 + 1));
        previous = end.last_commit;
        context = EpochContext::new(CHAIN.builder.chain_id(), end.next_committee).unwrap();
    }
    assert_eq!(context.epoch(), 2);
}

#[test]
fn proof_survives_its_encoding() {
    let proof = proof(0);
    assert_eq!(EpochProof::decode(&proof.encode()).as_ref(), Ok(&proof));
}

#[test]
fn proof_of_another_epoch_is_refused() {
    let error = verify(&proof(1)).unwrap_err();
    assert!(matches!(error, EpochProofError::NotCertified { source: CommitsError::OtherEpoch { .. }, .. }), "{error}");
    let committee_of_1 = CHAIN.context_of(1);
    assert!(verify_epoch_proof(&committee_of_1, &genesis(), &proof(0)).is_err());
}

#[test]
fn proof_without_a_quorum_of_votes_is_a_lie() {
    let mut few = proof(0);
    few.certifiers.truncate(2);
    let error = verify(&few).unwrap_err();
    assert!(
        matches!(error, EpochProofError::NotCertified { source: CommitsError::NotCertified { .. }, .. }),
        "{error}"
    );
    assert_eq!(error.fault(), Fault::ProvableLie);
    // Votes for another commit.
    let other = EpochProof { certifiers: all_bytes(&CHAIN.commit(3).certifiers), ..proof(0) };
    assert!(matches!(verify(&other), Err(EpochProofError::NotCertified { source: CommitsError::NoVote { .. }, .. })));
}

#[test]
fn certifier_block_with_a_wrong_signature_is_refused() {
    let mut forged = proof(0);
    let mut block = forged.certifiers[0].to_vec();
    *block.last_mut().unwrap() ^= 1;
    forged.certifiers[0] = block.into();
    let error = verify(&forged).unwrap_err();
    assert!(
        matches!(error, EpochProofError::NotCertified { source: CommitsError::InvalidCertifier { .. }, .. }),
        "{error}"
    );
}

#[test]
fn certified_commit_that_does_not_end_the_epoch_is_no_proof() {
    let middle = CHAIN.commit(3);
    let proof = EpochProof {
        commit: middle.commit.bytes().clone(),
        certifiers: all_bytes(&middle.certifiers),
        end_of_epoch: bytes(&middle.blocks[0]),
    };
    let error = verify(&proof).unwrap_err();
    assert!(matches!(error, EpochProofError::NoHandover { epoch: 0, .. }), "{error}");
    assert_eq!(error.fault(), Fault::ProvableLie);
}

#[test]
fn block_that_the_commit_does_not_name_cannot_end_the_epoch() {
    let last = CHAIN.last_of_epoch();
    let end = last.blocks.iter().find(|block| block.end_of_epoch.is_some()).unwrap();
    let forged = CHAIN.changed(end, |block| {
        let committee = Committee { authorities: CHAIN.builder.committee(2).authorities, ..next_committee() };
        block.end_of_epoch = Some(CHAIN.handover(committee, &[0, 1, 2]));
    });
    let block = forged.reference();
    let error = verify(&EpochProof { end_of_epoch: bytes(&forged), ..proof(0) }).unwrap_err();
    assert_eq!(error, EpochProofError::ForeignBlock { epoch: 0, index: 6, block });
    assert_eq!(error.fault(), Fault::ProvableLie);
}

#[test]
fn handover_needs_a_quorum_of_right_signatures_on_a_valid_next_committee() {
    let handover = |proof: &EpochProof| match verify(proof).unwrap_err() {
        EpochProofError::Handover { source, .. } => source,
        other => panic!("{other}"),
    };
    assert!(verify(&with_handover(CHAIN.handover(next_committee(), &[0, 1, 2]))).is_ok());
    let few = handover(&with_handover(CHAIN.handover(next_committee(), &[0, 1])));
    assert!(matches!(few, SubDagError::Certificate { source: QuorumError::TooLittleStake { .. }, .. }), "{few}");
    let mut end = CHAIN.handover(next_committee(), &[0, 1, 2]);
    end.certificate.signatures[1].signature.0[7] ^= 1;
    let forged = handover(&with_handover(end));
    assert!(matches!(forged, SubDagError::CertificateSignature { authority: 1, .. }), "{forged}");
    let skips = handover(&with_handover(CHAIN.handover(CHAIN.builder.committee(2), &[0, 1, 2])));
    assert!(matches!(skips, SubDagError::NotNextEpoch { found: 2, .. }), "{skips}");
    let empty = Committee { authorities: Vec::new(), ..next_committee() };
    let empty = handover(&with_handover(CHAIN.handover(empty, &[0, 1, 2])));
    assert!(matches!(empty, SubDagError::NextCommittee { .. }), "{empty}");
}

#[test]
fn epoch_ends_after_the_one_before() {
    let later = TrustedCommit::assume_trusted(Commit { index: 6, ..(*genesis()).clone() });
    let error = verify_epoch_proof(&CHAIN.context, &later, &proof(0)).unwrap_err();
    assert!(matches!(error, EpochProofError::NotLater { index: 6, .. }), "{error}");
    let timestamp_ms = CHAIN.last_of_epoch().commit.timestamp_ms + 1;
    let later = TrustedCommit::assume_trusted(Commit { timestamp_ms, ..(*genesis()).clone() });
    assert!(matches!(verify_epoch_proof(&CHAIN.context, &later, &proof(0)), Err(EpochProofError::NotLater { .. })));
}

#[test]
fn no_flipped_byte_passes_and_none_panics() {
    let good = proof(0).encode();
    for position in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        let Ok(proof) = EpochProof::decode(&bad) else { continue };
        if let Ok(end) = verify(&proof) {
            panic!("byte {position} was changed, and the proof still gives {:?}", end.last_commit.reference());
        }
    }
    let undecodable = EpochProof { commit: Bytes::from_static(b"x"), ..proof(0) };
    assert!(matches!(verify(&undecodable), Err(EpochProofError::Commit { epoch: 0, .. })));
    let undecodable = EpochProof { end_of_epoch: Bytes::from_static(b"x"), ..proof(0) };
    assert!(matches!(verify(&undecodable), Err(EpochProofError::Block { epoch: 0, .. })));
}

#[test]
fn block_that_ends_the_epoch_has_the_form_of_a_block() {
    // A block may not build on the same author twice.
    let proof = certified(|block| {
        let first = block.ancestors[0];
        block.ancestors.push(first);
    });
    let error = verify(&proof).unwrap_err();
    assert!(matches!(error, EpochProofError::InvalidBlock { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Ours, "a quorum has certified the commit that names it");
}
