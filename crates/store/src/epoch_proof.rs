//! Makes the proofs of ended epochs from the stored chain, and serves GetEpochProofs.

use crate::{CorruptReason, Record, Store, StoreError, serve_commits};
use bytes::Bytes;
use soma_types::{
    Checkpoint, CommitIndex, Epoch, EpochProof, SignedBlock,
    limits::{MAX_BLOCK_BYTES, MAX_COMMITTEE_SIZE, MAX_EPOCH_PROOF_BYTES},
};

/// Bytes of a commit and its certifier blocks in a proof: what the block of the handover and the lengths leave.
const COMMIT_AND_VOTES_BYTES: usize = MAX_EPOCH_PROOF_BYTES - MAX_BLOCK_BYTES - 8 * (MAX_COMMITTEE_SIZE + 3);

/// Bytes of blocks that are read together.
const READ_BYTES: usize = 1 << 20;

/// Makes the proof of the epoch that ended with commit `last`, from the commit, its votes and its blocks. `None` if the
/// stored votes are no quorum, or the commit is not stored.
///
/// # Errors
/// Fails if the store cannot be read or is damaged.
pub fn make_epoch_proof(store: &dyn Store, last: CommitIndex) -> Result<Option<EpochProof>, StoreError> {
    let Ok(served) = serve_commits(store, last, last, COMMIT_AND_VOTES_BYTES)? else { return Ok(None) };
    let Some(end_of_epoch) = end_of_epoch(store, last)? else { return Ok(None) };
    let commit = served.commits.into_iter().next();
    Ok(commit.map(|commit| EpochProof { commit, certifiers: served.certifiers, end_of_epoch }))
}

/// The block of commit `last` that names the next committee. `None` if the commit is not stored, or is pruned meanwhile.
/// Holds [`READ_BYTES`] of blocks at a time, because peers make the node do this.
fn end_of_epoch(store: &dyn Store, last: CommitIndex) -> Result<Option<Bytes>, StoreError> {
    let Some(commit) = store.commit(last)? else { return Ok(None) };
    let mut refs = &commit.blocks[..];
    while !refs.is_empty() {
        let blocks = store.blocks_within(refs, READ_BYTES)?;
        for (&block, bytes) in refs.iter().zip(&blocks) {
            let record = Record::BlockOfCommit { index: last, block };
            let Some(bytes) = bytes else {
                let is_pruned = last < store.watermarks()?.lowest_available;
                return if is_pruned { Ok(None) } else { Err(record.corrupt(store.place(), CorruptReason::Missing)) };
            };
            let decoded = SignedBlock::decode(bytes.clone()).map_err(|error| record.corrupt(store.place(), error))?;
            if decoded.end_of_epoch.is_some() {
                return Ok(Some(bytes.clone()));
            }
        }
        refs = &refs[blocks.len().max(1)..];
    }
    Err(Record::Commit(last).corrupt(store.place(), CorruptReason::NoEndOfEpoch))
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
