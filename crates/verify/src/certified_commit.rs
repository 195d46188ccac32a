//! Checks of a whole commit from the node's own consensus.

use crate::{
    BlocksError, BlocksVerdict, CheckObserver, CheckedBlocks, Checks, CommitsError, EpochContext, SubDag, SubDagError,
    check_blocks, check_commits, verify_sub_dag,
};
use soma_types::{CertifiedCommit, VerifiedBlock};

/// The reason why a commit of the node's own consensus is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertifiedCommitError {
    /// The commit or its certifier blocks are invalid.
    #[error(transparent)]
    Commit(#[from] CommitsError),
    /// One of its blocks is invalid.
    #[error(transparent)]
    Block(#[from] BlocksError),
    /// The commit and its blocks do not fit together.
    #[error(transparent)]
    SubDag(#[from] SubDagError),
    /// The observer ended the check early.
    #[error("the check was interrupted")]
    Interrupted,
}

/// Checks a commit of the node's own consensus with the functions that every peer uses, so that all peers accept it
/// too. The caller must check its timestamp and its place in the chain, because these need the previous commit.
///
/// # Errors
///
/// Fails if the commit, its blocks or its certifier blocks break a rule, or if the observer ends the check.
pub fn verify_certified_commit(
    context: &EpochContext,
    checks: Checks<'_>,
    certified: &CertifiedCommit,
    observer: &mut dyn CheckObserver,
) -> Result<SubDag, CertifiedCommitError> {
    let CertifiedCommit { commit, blocks, certifiers } = certified;
    let bytes = |blocks: &[VerifiedBlock]| blocks.iter().map(|block| block.bytes().clone()).collect::<Vec<_>>();
    check_commits(context, commit.index, commit.index, vec![commit.bytes().clone()], bytes(certifiers))?;
    let checked = check_blocks(context, checks, &commit.blocks, bytes(blocks), observer)?;
    match CheckedBlocks::verify_all(vec![checked]).remove(0) {
        BlocksVerdict { error: Some(error), .. } => Err(error.into()),
        BlocksVerdict { blocks, .. } if blocks.len() < commit.blocks.len() => Err(CertifiedCommitError::Interrupted),
        BlocksVerdict { blocks, .. } => Ok(verify_sub_dag(context, commit, &blocks)?),
    }
}
