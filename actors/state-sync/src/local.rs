//! Commits of the node's own consensus: believed, but not blindly. What could not be stored or served is refused.

use soma_protocol::state_sync::{LocalCommitError, Verified};
use soma_types::{CertifiedCommit, limits};
use soma_verify::EpochContext;

/// Sums up a commit of the node's own consensus, after checks that cost nothing: its blocks are those it names, and
/// its certifier blocks vote for it with a quorum of stake.
pub(crate) fn summarize(epoch: &EpochContext, certified: &CertifiedCommit) -> Result<Verified, LocalCommitError> {
    let CertifiedCommit { commit, blocks, certifiers } = certified;
    let index = commit.index;
    let malformed = |reason: String| Err(LocalCommitError::Malformed { index, reason });
    if !blocks.iter().map(|block| block.reference()).eq(commit.blocks.iter().copied()) {
        return malformed("the blocks are not those that the commit names, in its order".into());
    }
    let bytes: usize = blocks.iter().map(|block| block.bytes().len()).sum();
    if bytes > limits::MAX_COMMIT_BLOCKS_BYTES {
        return malformed(format!("{bytes} bytes of blocks are over the limit of {}", limits::MAX_COMMIT_BLOCKS_BYTES));
    }
    let committee = epoch.committee();
    let voters = certifiers
        .iter()
        .filter(|block| block.epoch == commit.epoch && block.commit_votes.contains(&commit.reference()));
    let stake = committee.stake_of(voters.map(|block| block.author));
    if stake < committee.quorum() {
        return Err(LocalCommitError::NotCertified { index, stake, quorum: committee.quorum() });
    }
    Ok(Verified {
        first: index,
        last: commit.reference(),
        previous: commit.previous_digest,
        first_timestamp_ms: commit.timestamp_ms,
        last_timestamp_ms: commit.timestamp_ms,
        epoch: commit.epoch,
        ends_epoch: certified.end_of_epoch().is_some(),
        bytes: certified.size() as u64,
        blocks: blocks.len() as u64,
    })
}
