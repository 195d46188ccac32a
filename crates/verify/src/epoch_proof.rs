//! Checks of epoch proofs: how an epoch ended, without the commits before.
//!
//! Proofs form a chain. The committee of epoch 0 is in the genesis, and each proof hands over to the next committee.

use crate::{
    BlockError, CommitsError, EpochContext, SubDagError, block_rules::check_block, check_commits,
    sub_dag::check_end_of_epoch,
};
use soma_types::{
    BlockRef, ChainId, Checkpoint, CodecError, CommitIndex, CommitteeError, EndedEpoch, Epoch, EpochProof, Fault,
    Genesis, SignedBlock, TimestampMs, TrustedCommit, UnverifiedCommit, VerifiedBlock,
};

/// The reason why a proof does not prove the end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochProofError {
    /// The commit does not decode.
    #[error("the last commit of epoch {epoch}: {source}")]
    Commit {
        /// The epoch that the proof should end.
        epoch: Epoch,
        /// The reason.
        source: CodecError,
    },
    /// The commit is invalid, or its certifier blocks do not certify it.
    #[error("the last commit of epoch {epoch}: {source}")]
    NotCertified {
        /// The epoch.
        epoch: Epoch,
        /// The reason.
        source: CommitsError,
    },
    /// The commit is not later than the end of the epoch before.
    #[error("epoch {epoch} ends with commit {index} at {timestamp_ms} ms, which is before the end of the epoch before")]
    NotLater {
        /// The epoch.
        epoch: Epoch,
        /// The commit.
        index: CommitIndex,
        /// Its timestamp.
        timestamp_ms: TimestampMs,
    },
    /// The block of the handover does not decode.
    #[error("the block that ends epoch {epoch}: {source}")]
    Block {
        /// The epoch.
        epoch: Epoch,
        /// The reason.
        source: CodecError,
    },
    /// The commit does not name the block of the handover.
    #[error("commit {index} does not name block {block}, which is to end epoch {epoch}")]
    ForeignBlock {
        /// The epoch.
        epoch: Epoch,
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
    },
    /// The block of the handover breaks a rule.
    #[error("block {block}, which ends epoch {epoch}: {source}")]
    InvalidBlock {
        /// The epoch.
        epoch: Epoch,
        /// The block.
        block: BlockRef,
        /// The reason.
        source: BlockError,
    },
    /// The block has no handover.
    #[error("block {block} does not end epoch {epoch}")]
    NoHandover {
        /// The epoch.
        epoch: Epoch,
        /// The block.
        block: BlockRef,
    },
    /// The handover is invalid.
    #[error("the end of epoch {epoch}: {source}")]
    Handover {
        /// The epoch.
        epoch: Epoch,
        /// The reason.
        source: SubDagError,
    },
}

impl EpochProofError {
    /// The kind of fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotCertified { source, .. } => source.fault(),
            Self::Commit { .. } | Self::Block { .. } => Fault::Malformed,
            // The commit is certified, and its index or time is wrong: no peer can make that.
            Self::NotLater { .. } => Fault::Ours,
            // The peer chose the block.
            Self::ForeignBlock { .. } | Self::NoHandover { .. } => Fault::ProvableLie,
            // The certified commit names the block.
            Self::InvalidBlock { .. } | Self::Handover { .. } => Fault::Ours,
        }
    }
}

/// Checks that `proof` ends the epoch of `context`, after `previous`: the last commit of the epoch before, or the
/// genesis commit for epoch 0.
///
/// Not checked: the commits between, and the other blocks of the last commit. The votes pin both by their digests. The
/// signature of the handover's block is pinned, too.
///
/// # Errors
///
/// Fails if the proof breaks a rule. [`EpochProofError::fault`] returns the kind of fault.
pub fn verify_epoch_proof(
    context: &EpochContext,
    previous: &TrustedCommit,
    proof: &EpochProof,
) -> Result<EndedEpoch, EpochProofError> {
    let epoch = context.epoch();
    let commit = UnverifiedCommit::decode(proof.commit.clone());
    let index = commit.map_err(|source| EpochProofError::Commit { epoch, source })?.index;
    let checked = check_commits(context, index, index, vec![proof.commit.clone()], proof.certifiers.clone());
    let checked = checked.map_err(|source| EpochProofError::NotCertified { epoch, source })?;
    // The check returns the one commit that it got, or fails.
    let missing = || EpochProofError::NotCertified { epoch, source: CommitsError::Empty { start: index } };
    let last_commit = checked.commits.into_iter().next().ok_or_else(missing)?;
    let timestamp_ms = last_commit.timestamp_ms;
    if index <= previous.index || timestamp_ms < previous.timestamp_ms {
        return Err(EpochProofError::NotLater { epoch, index, timestamp_ms });
    }
    let block = SignedBlock::decode(proof.end_of_epoch.clone());
    let block = block.map_err(|source| EpochProofError::Block { epoch, source })?;
    let reference = block.reference();
    if !last_commit.blocks.contains(&reference) {
        return Err(EpochProofError::ForeignBlock { epoch, index, block: reference });
    }
    check_block(context, &block).map_err(|source| EpochProofError::InvalidBlock { epoch, block: reference, source })?;
    let end = check_end_of_epoch(context, index, &[VerifiedBlock::assume_verified(block)]);
    let end = end.map_err(|source| EpochProofError::Handover { epoch, source })?;
    let end = end.ok_or(EpochProofError::NoHandover { epoch, block: reference })?;
    Ok(EndedEpoch { proof: proof.clone(), last_commit, next_committee: end.next_committee })
}

/// The reason why a node cannot begin at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The checkpoint is of another chain.
    #[error("it is of chain {found}, and the genesis is of chain {expected}")]
    OtherChain {
        /// The chain of the genesis.
        expected: ChainId,
        /// The chain of the checkpoint.
        found: ChainId,
    },
    /// The committee is invalid.
    #[error("its committee: {0}")]
    Committee(#[from] CommitteeError),
    /// The proof is invalid.
    #[error(transparent)]
    Proof(#[from] EpochProofError),
}

/// Checks that the proof of `checkpoint` ends the epoch of the checkpoint's own committee, on the chain of `genesis`.
/// Whether that committee is the right one, nothing can show: the caller trusts it.
///
/// # Errors
///
/// Fails if the checkpoint breaks a rule.
pub fn verify_checkpoint(genesis: &Genesis, checkpoint: &Checkpoint) -> Result<EndedEpoch, CheckpointError> {
    let (expected, found) = (genesis.chain_id(), checkpoint.chain_id);
    if found != expected {
        return Err(CheckpointError::OtherChain { expected, found });
    }
    let context = EpochContext::new(found, checkpoint.committee.clone())?;
    Ok(verify_epoch_proof(&context, &genesis.commit(), &checkpoint.proof)?)
}
