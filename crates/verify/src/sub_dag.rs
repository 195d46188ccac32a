//! Checks of a commit together with its blocks: the rules between them, and the handover to the next epoch.
//!
//! A quorum's votes pin the commit and blocks before these checks, so no error is a peer's fault.

use crate::{EpochContext, QuorumError};
use soma_types::{
    AuthorityIndex, BlockRef, CertifiedCommit, Commit, CommitIndex, CommitteeError, EndOfEpoch, Epoch, Fault, Scope,
    TimestampMs, TrustedCommit, VerifiedBlock, limits,
};

/// The reason why a commit and its blocks do not fit together. Either a quorum certified the breach of a rule, or the
/// caller made a mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubDagError {
    /// The commit is of another epoch than the context.
    #[error("commit {index} is of epoch {found}, not {expected}")]
    OtherEpoch {
        /// The commit.
        index: CommitIndex,
        /// The context's epoch.
        expected: Epoch,
        /// The commit's epoch.
        found: Epoch,
    },
    /// The blocks are not the commit's blocks, or the leader is not the last block.
    #[error("the block at position {position} is not the one that commit {index} names")]
    NotItsBlocks {
        /// The commit.
        index: CommitIndex,
        /// The first position that differs, or the length of the shorter list if none differs.
        position: usize,
    },
    /// The blocks exceed [`limits::MAX_COMMIT_BLOCKS_BYTES`].
    #[error(
        "the blocks of commit {index} have {bytes} bytes, over the limit of {max}",
        max = limits::MAX_COMMIT_BLOCKS_BYTES
    )]
    TooLarge {
        /// The commit.
        index: CommitIndex,
        /// Bytes of all blocks.
        bytes: usize,
    },
    /// A block is older than one of its ancestors.
    #[error("block {block} of commit {index} is older than its ancestor {ancestor}")]
    BlockBeforeAncestor {
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// A block is not in the leader's history.
    #[error("block {block} of commit {index} is not in the history of its leader")]
    NotInHistory {
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
    },
    /// The commit's timestamp is not the later of the leader's and the previous commit's.
    #[error("the timestamp of commit {index} is {timestamp_ms} ms, and should be {expected_ms} ms")]
    WrongTimestamp {
        /// The commit.
        index: CommitIndex,
        /// Its timestamp.
        timestamp_ms: TimestampMs,
        /// The right timestamp.
        expected_ms: TimestampMs,
    },
    /// The commit follows the last commit of its epoch.
    #[error("commit {index} is of epoch {epoch}, which ended before it")]
    AfterEndOfEpoch {
        /// The commit.
        index: CommitIndex,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Two blocks hand over to different committees.
    #[error("block {block} of commit {index} hands over to another committee than a block before it")]
    CommitteesDiffer {
        /// The commit.
        index: CommitIndex,
        /// The later block.
        block: BlockRef,
    },
    /// The next committee has another epoch than the next.
    #[error("commit {index} ends epoch {epoch} with a committee for epoch {found}")]
    NotNextEpoch {
        /// The commit.
        index: CommitIndex,
        /// The epoch that ends.
        epoch: Epoch,
        /// The committee's epoch.
        found: Epoch,
    },
    /// The next committee is invalid.
    #[error("the next committee in commit {index}: {source}")]
    NextCommittee {
        /// The commit.
        index: CommitIndex,
        /// The reason.
        source: CommitteeError,
    },
    /// The signers of the next committee are not a quorum.
    #[error("the certificate of the next committee in commit {index}: {source}")]
    Certificate {
        /// The commit.
        index: CommitIndex,
        /// The reason.
        source: QuorumError,
    },
    /// A signature on the next committee is wrong.
    #[error("the signature of authority {authority} on the next committee in commit {index} is wrong")]
    CertificateSignature {
        /// The commit.
        index: CommitIndex,
        /// The authority of the signature.
        authority: AuthorityIndex,
    },
}

impl SubDagError {
    /// The kind of fault: never a peer's.
    pub fn fault(&self) -> Fault {
        Fault::Ours
    }
}

/// The result of [`verify_sub_dag`] for a valid commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDag {
    /// Timestamp of the commit's leader.
    pub leader_timestamp_ms: TimestampMs,
    /// The handover to the next epoch, if the commit is the last of its epoch. If several blocks carry one, this is the
    /// first. Only its certificate was checked; the others name the same committee.
    pub end_of_epoch: Option<EndOfEpoch>,
}

/// The verdict on consecutive commits with their blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDagsVerdict {
    /// Number of valid commits from the first on.
    pub verified: usize,
    /// Timestamp of the first commit's leader. The caller must check the first commit's own timestamp, because that
    /// needs the previous commit: see [`Commit::timestamp_after`].
    pub first_leader_timestamp_ms: TimestampMs,
    /// The handover to the next epoch, if the last valid commit ends its epoch.
    pub end_of_epoch: Option<EndOfEpoch>,
    /// The rule that the next commit breaks.
    pub error: Option<SubDagError>,
}

/// Checks consecutive commits with [`verify_sub_dag`], and the rules between neighbours: timestamps, and that no commit
/// of an epoch follows its end.
pub fn verify_sub_dags(context: &EpochContext, commits: &[CertifiedCommit]) -> SubDagsVerdict {
    let mut verdict = SubDagsVerdict { verified: 0, first_leader_timestamp_ms: 0, end_of_epoch: None, error: None };
    let mut previous: Option<&TrustedCommit> = None;
    for CertifiedCommit { commit, blocks, .. } in commits {
        let (index, epoch) = (commit.index, commit.epoch);
        let checked = match &verdict.end_of_epoch {
            Some(_) => Err(SubDagError::AfterEndOfEpoch { index, epoch }),
            None => verify_sub_dag(context, commit, blocks),
        };
        let checked = checked.and_then(|sub_dag| {
            if let Some(previous) = previous {
                check_timestamp(commit, sub_dag.leader_timestamp_ms, previous.timestamp_ms)?;
            }
            Ok(sub_dag)
        });
        match checked {
            Ok(sub_dag) => {
                if previous.is_none() {
                    verdict.first_leader_timestamp_ms = sub_dag.leader_timestamp_ms;
                }
                verdict.end_of_epoch = sub_dag.end_of_epoch;
                verdict.verified += 1;
                previous = Some(commit);
            }
            Err(error) => {
                verdict.error = Some(error);
                break;
            }
        }
    }
    verdict
}

/// Checks a commit with its blocks, in the commit's order, as far as no other commit is needed. The commit must have
/// passed [`check_commits`](crate::check_commits), and the blocks [`check_blocks`](crate::check_blocks).
///
/// # Errors
///
/// Fails if the blocks are not the commit's, or if a quorum certified the breach of a rule.
pub fn verify_sub_dag(
    context: &EpochContext,
    commit: &TrustedCommit,
    blocks: &[VerifiedBlock],
) -> Result<SubDag, SubDagError> {
    let index = commit.index;
    if commit.epoch != context.epoch() {
        return Err(SubDagError::OtherEpoch { index, expected: context.epoch(), found: commit.epoch });
    }
    let leader = check_named(commit, blocks)?;
    let bytes = blocks.iter().map(|block| block.bytes().len()).sum();
    if bytes > limits::MAX_COMMIT_BLOCKS_BYTES {
        return Err(SubDagError::TooLarge { index, bytes });
    }
    check_history(commit, blocks)?;
    let end_of_epoch = check_end_of_epoch(context, index, blocks)?;
    Ok(SubDag { leader_timestamp_ms: leader.timestamp_ms, end_of_epoch })
}

/// Checks that the blocks are the commit's blocks and that the leader is the last one. Returns the leader.
fn check_named<'a>(commit: &TrustedCommit, blocks: &'a [VerifiedBlock]) -> Result<&'a VerifiedBlock, SubDagError> {
    let same = commit.blocks.iter().zip(blocks).take_while(|(named, block)| **named == block.reference()).count();
    let all = same == commit.blocks.len() && same == blocks.len();
    let leader = blocks.last().filter(|last| all && last.reference() == commit.leader);
    leader.ok_or(SubDagError::NotItsBlocks { index: commit.index, position: same })
}

/// Checks that every block is reachable from the leader through blocks of this commit, and that no block is older than
/// its ancestors here. So no block is younger than the leader.
///
/// One pass down from the leader is enough: in the order of (round, author), a block comes after its ancestors.
fn check_history(commit: &TrustedCommit, blocks: &[VerifiedBlock]) -> Result<(), SubDagError> {
    let index = commit.index;
    let mut reached = vec![false; blocks.len()];
    if let Some(leader) = reached.last_mut() {
        *leader = true;
    }
    for (position, block) in blocks.iter().enumerate().rev() {
        if !reached.get(position).is_some_and(|reached| *reached) {
            return Err(SubDagError::NotInHistory { index, block: block.reference() });
        }
        for ancestor in &block.ancestors {
            let place = (ancestor.round, ancestor.author);
            let Ok(found) = commit.blocks.binary_search_by_key(&place, |named| (named.round, named.author)) else {
                continue;
            };
            let (Some(other), Some(reached)) = (blocks.get(found), reached.get_mut(found)) else { continue };
            if other.reference() != *ancestor {
                continue;
            }
            if block.timestamp_ms < other.timestamp_ms {
                return Err(SubDagError::BlockBeforeAncestor { index, block: block.reference(), ancestor: *ancestor });
            }
            *reached = true;
        }
    }
    Ok(())
}

fn check_timestamp(
    commit: &TrustedCommit,
    leader_ms: TimestampMs,
    previous_ms: TimestampMs,
) -> Result<(), SubDagError> {
    let (timestamp_ms, expected_ms) = (commit.timestamp_ms, Commit::timestamp_after(leader_ms, previous_ms));
    if timestamp_ms != expected_ms {
        return Err(SubDagError::WrongTimestamp { index: commit.index, timestamp_ms, expected_ms });
    }
    Ok(())
}

/// The handover in the blocks of one commit, with its certificate checked.
pub(crate) fn check_end_of_epoch(
    context: &EpochContext,
    index: CommitIndex,
    blocks: &[VerifiedBlock],
) -> Result<Option<EndOfEpoch>, SubDagError> {
    let mut handovers =
        blocks.iter().filter_map(|block| block.end_of_epoch.as_ref().map(|end| (block.reference(), end)));
    let Some((_, end)) = handovers.next() else { return Ok(None) };
    if let Some((block, _)) = handovers.find(|(_, other)| other.next_committee != end.next_committee) {
        return Err(SubDagError::CommitteesDiffer { index, block });
    }
    let (epoch, found) = (context.epoch(), end.next_committee.epoch);
    if epoch.checked_add(1) != Some(found) {
        return Err(SubDagError::NotNextEpoch { index, epoch, found });
    }
    end.next_committee.validate().map_err(|source| SubDagError::NextCommittee { index, source })?;
    context.check_signers(&end.certificate).map_err(|source| SubDagError::Certificate { index, source })?;
    let digest = end.next_committee.digest();
    for vote in &end.certificate.signatures {
        if !context.is_signed_by(vote.authority, Scope::NextCommittee, &digest.0, &vote.signature) {
            return Err(SubDagError::CertificateSignature { index, authority: vote.authority });
        }
    }
    Ok(Some(end.clone()))
}
