//! The check of proofs of consecutive epochs.

use bytes::Bytes;
use soma_types::{EndedEpoch, EpochProof, Fault, PeerFailure, TrustedCommit};
use soma_verify::{EpochContext, verify_epoch_proof};
use std::sync::Arc;

/// Checks the proofs of consecutive epochs, each with the committee that the one before hands over to.
pub(super) fn verify_epochs(
    mut context: Arc<EpochContext>,
    mut previous: TrustedCommit,
    proofs: &[Bytes],
) -> Result<Vec<EndedEpoch>, PeerFailure> {
    let mut ended = Vec::with_capacity(proofs.len());
    for bytes in proofs {
        let failed = |fault, reason: String| PeerFailure::new(fault, reason);
        let proof = EpochProof::decode(bytes).map_err(|error| failed(Fault::Malformed, error.to_string()))?;
        let epoch = verify_epoch_proof(&context, &previous, &proof)
            .map_err(|error| failed(error.fault(), error.to_string()))?;
        let next = EpochContext::new(context.chain(), epoch.next_committee.clone());
        // The proof has shown that the committee is valid.
        context = Arc::new(next.map_err(|error| failed(Fault::Ours, error.to_string()))?);
        previous = epoch.last_commit.clone();
        ended.push(epoch);
    }
    Ok(ended)
}
