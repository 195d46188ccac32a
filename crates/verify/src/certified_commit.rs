//! Checks of a whole commit at once, as the node's own consensus hands it over.

use crate::{
    BlocksError, BlocksVerdict, CheckObserver, CheckedBlocks, Checks, CommitsError, EpochContext, SubDag, SubDagError,
    check_blocks, check_commits, verify_sub_dag,
};
use soma_types::{CertifiedCommit, VerifiedBlock};

/// Why a commit of the node's own consensus is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertifiedCommitError {
    /// The commit, or the blocks that are to certify it.
    #[error(transparent)]
    Commit(#[from] CommitsError),
    /// One of its blocks.
    #[error(transparent)]
    Block(#[from] BlocksError),
    /// The commit together with its blocks.
    #[error(transparent)]
    SubDag(#[from] SubDagError),
    /// The check was ended before it was done.
    #[error("the check was interrupted")]
    Interrupted,
}

/// Checks a commit of the node's own consensus with the functions that every peer checks it with, so that what passes here
/// passes there. Its timestamp and its place in the chain need the commit before it, and are for the caller to check.
///
/// # Errors
///
/// A rule that the commit, its blocks or its certifier blocks break.
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
