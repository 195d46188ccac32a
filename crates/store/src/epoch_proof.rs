//! Makes the proofs of ended epochs from the stored chain, and serves GetEpochProofs.

use crate::{CorruptReason, Record, Store, StoreError, serve_commits};
use soma_types::{
    Checkpoint, CommitIndex, Epoch, EpochProof,
    limits::{MAX_BLOCK_BYTES, MAX_COMMITTEE_SIZE, MAX_EPOCH_PROOF_BYTES},
};

/// Bytes of a commit and its certifier blocks in a proof: what the block of the handover and the lengths leave.
const COMMIT_AND_VOTES_BYTES: usize = MAX_EPOCH_PROOF_BYTES - MAX_BLOCK_BYTES - 8 * (MAX_COMMITTEE_SIZE + 3);

/// Makes the proof of the epoch that ended with commit `last`, from the commit, its votes and its blocks. `None` if the
/// stored votes are no quorum, or the commit is not stored.
///
/// # Errors
/// Fails if the store cannot be read or is damaged.
pub fn make_epoch_proof(store: &dyn Store, last: CommitIndex) -> Result<Option<EpochProof>, StoreError> {
    let Some(sub_dag) = store.sub_dag(last)? else { return Ok(None) };
    let Ok(served) = serve_commits(store, last, last, COMMIT_AND_VOTES_BYTES)? else { return Ok(None) };
    let end = sub_dag.blocks.iter().find(|block| block.end_of_epoch.is_some());
    let missing = || Record::Commit(last).corrupt(store.place(), CorruptReason::NoEndOfEpoch);
    let end_of_epoch = end.ok_or_else(missing)?.bytes().clone();
    let commit = served.commits.into_iter().next();
    Ok(commit.map(|commit| EpochProof { commit, certifiers: served.certifiers, end_of_epoch }))
}

/// Makes the checkpoint of an ended epoch. `None` if the epoch has not ended, or if its committee or its proof is not
/// stored.
///
/// # Errors
/// Fails if the store cannot be read or is damaged.
pub fn make_checkpoint(store: &dyn Store, epoch: Epoch) -> Result<Option<Checkpoint>, StoreError> {
    let (committee, proof) = (store.committee(epoch)?, store.epoch_proof(epoch)?);
    Ok(committee.zip(proof).map(|(committee, proof)| Checkpoint { chain_id: store.chain_id(), committee, proof }))
}

/// The reason why no epoch proof is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofNotServed {
    /// The epoch has not ended in the stored chain.
    #[error("this node is in epoch {latest}")]
    NotEnded {
        /// The latest epoch of the stored chain.
        latest: Epoch,
    },
    /// The proof is not stored, or the stored votes for the epoch's last commit are no quorum.
    #[error("this node has neither the proof nor a quorum of votes for its last commit")]
    NotCertified,
    /// The proof exceeds the limit.
    #[error("it has more than {max_bytes} bytes")]
    TooLarge {
        /// The requested limit.
        max_bytes: usize,
    },
}

/// The encoded proofs of `from` and the epochs after it: at most `max_proofs`, with at most `max_bytes` in total. Ends
/// before the first epoch that has not ended or has no proof.
///
/// # Errors
/// Fails if the store cannot be read or is damaged.
pub fn serve_epoch_proofs(
    store: &dyn Store,
    from: Epoch,
    max_proofs: usize,
    max_bytes: usize,
) -> Result<Result<Vec<Vec<u8>>, ProofNotServed>, StoreError> {
    let latest = store.latest_epoch()?;
    if from >= latest {
        return Ok(Err(ProofNotServed::NotEnded { latest }));
    }
    let (mut proofs, mut room) = (Vec::new(), max_bytes);
    for epoch in (from..latest).take(max_proofs) {
        let Some(proof) = store.epoch_proof(epoch)? else { break };
        let encoded = proof.encode();
        let Some(left) = room.checked_sub(encoded.len()) else {
            return Ok(if proofs.is_empty() { Err(ProofNotServed::TooLarge { max_bytes }) } else { Ok(proofs) });
        };
        room = left;
        proofs.push(encoded);
    }
    Ok(if proofs.is_empty() { Err(ProofNotServed::NotCertified) } else { Ok(proofs) })
}
