//! Checks of segments: the same rules as for answers of peers.

use crate::segment::Segment;
use bytes::Bytes;
use soma_store::{CorruptReason, Record, Store, StoreError};
use soma_types::{
    BlockRef, CertifiedCommit, Commit, CommitIndex, CommitRef, Epoch, Genesis, TimestampMs, TrustedCommit,
};
use soma_verify::{
    BlocksError, BlocksVerdict, CheckedBlocks, CheckedCommits, Checks, CommitsError, EpochContext, SubDagError,
    TransactionVerifier, check_blocks, check_commits, verify_sub_dags,
};
use std::sync::Arc;

/// How much of a block that a quorum has certified is checked.
#[derive(Clone)]
pub enum Verification {
    /// Digest, form, and every signature of the block and its transactions.
    Full(Arc<dyn TransactionVerifier>),
    /// Digest and form.
    Certified,
}

impl Verification {
    fn checks(&self) -> Checks<'_> {
        match self {
            Self::Full(transactions) => Checks::Full(&**transactions),
            Self::Certified => Checks::Certified,
        }
    }
}

/// The rule that a segment breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentFault {
    /// A commit is invalid, or the votes do not certify the last one.
    #[error(transparent)]
    Commits(#[from] CommitsError),
    /// A block is not the one that a commit names, or is invalid.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A commit and its blocks do not fit.
    #[error(transparent)]
    SubDag(#[from] SubDagError),
    /// The first commit names another predecessor.
    #[error("commit {index} does not follow commit {}, which is verified: two chains", previous.index)]
    Fork {
        /// The commit.
        index: CommitIndex,
        /// The commit that it should follow.
        previous: CommitRef,
    },
    /// The commits are not of the epoch that is due.
    #[error("commit {index} is of epoch {found}, and epoch {expected} is due")]
    OtherEpoch {
        /// The commit.
        index: CommitIndex,
        /// The epoch that is due.
        expected: Epoch,
        /// The epoch of the commit.
        found: Epoch,
    },
    /// The timestamp of the first commit is wrong.
    #[error("commit {index} is of {found_ms} ms, and should be of {expected_ms} ms")]
    Timestamp {
        /// The commit.
        index: CommitIndex,
        /// The right timestamp.
        expected_ms: TimestampMs,
        /// The timestamp of the commit.
        found_ms: TimestampMs,
    },
}

/// The valid leading commits of a segment. They still have to follow the commit before.
pub struct CheckedSegment {
    commits: Vec<CertifiedCommit>,
    first_leader_timestamp_ms: TimestampMs,
    /// The rule that the next commit breaks.
    pub fault: Option<SegmentFault>,
}

/// Checks all rules that need no other segment. `context` is of the segment's epoch.
///
/// # Errors
/// Fails if the segment does not hold what certified commits name. Certified data that breaks a rule ends the check:
/// see [`CheckedSegment::fault`].
pub fn check_segment(
    context: &EpochContext,
    verification: &Verification,
    segment: Segment,
) -> Result<CheckedSegment, SegmentFault> {
    let (first, last) = (segment.first, segment.last());
    let CheckedCommits { commits, certifiers, breach } =
        check_commits(context, first, last, segment.commits, segment.certifiers)?;
    let refs: Vec<BlockRef> = commits.iter().flat_map(|commit| commit.blocks.iter().copied()).collect();
    let mut blocks: Vec<Bytes> = segment.blocks;
    if breach.is_some() {
        // The rest belongs to commits behind the breach.
        blocks.truncate(refs.len());
    }
    let checked = check_blocks(context, verification.checks(), &refs, blocks, &mut ())?;
    let verdict = CheckedBlocks::verify_all(vec![checked]).pop();
    let BlocksVerdict { blocks, error } = verdict.unwrap_or(BlocksVerdict { blocks: Vec::new(), error: None });
    let mut fault = breach.map(SegmentFault::from);
    if let Some(error) = error {
        fault = Some(error.into());
    }
    let mut blocks = blocks.into_iter();
    let mut joined: Vec<CertifiedCommit> = Vec::with_capacity(commits.len());
    for commit in commits {
        let of_commit: Vec<_> = blocks.by_ref().take(commit.blocks.len()).collect();
        if of_commit.len() < commit.blocks.len() {
            break;
        }
        joined.push(CertifiedCommit { commit, blocks: of_commit, certifiers: Vec::new() });
    }
    let verdict = verify_sub_dags(context, &joined);
    joined.truncate(verdict.verified);
    if let Some(error) = verdict.error {
        fault = Some(error.into());
    }
    if let Some(last) = joined.last_mut().filter(|joined| joined.commit.index == last) {
        last.certifiers = certifiers;
    }
    let first_leader_timestamp_ms = verdict.first_leader_timestamp_ms;
    Ok(CheckedSegment { commits: joined, first_leader_timestamp_ms, fault })
}

/// The end of a verified chain: what the next segment must follow.
#[derive(Clone, Debug)]
pub struct Position {
    /// The last commit.
    pub commit: CommitRef,
    timestamp_ms: TimestampMs,
    /// Of the epoch of the next commit.
    context: Arc<EpochContext>,
}

impl Position {
    /// Before the first commit of a chain.
    ///
    /// # Errors
    /// Fails if the committee of the genesis is invalid, which no decoded genesis has.
    pub fn genesis(genesis: &Genesis) -> Result<Self, soma_types::CommitteeError> {
        let context = EpochContext::new(genesis.chain_id(), genesis.committee().clone())?;
        let commit = genesis.commit();
        Ok(Self { commit: commit.reference(), timestamp_ms: commit.timestamp_ms, context: Arc::new(context) })
    }

    /// Behind the last commit of a store.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    pub fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let missing =
            |record| move || StoreError::Corrupt { place: store.place(), record, reason: CorruptReason::Missing };
        let commit = store.watermarks()?.highest_synced;
        let stored: TrustedCommit = store.commit(commit.index)?.ok_or_else(missing(Record::Commit(commit.index)))?;
        let has_ended = store.last_commit_of_epoch(stored.epoch)? == Some(commit.index);
        let epoch = stored.epoch + Epoch::from(has_ended);
        let committee = store.committee(epoch)?.ok_or_else(missing(Record::Committee(epoch)))?;
        // Checked before it was stored: what fails now was changed on disk.
        let context = EpochContext::new(store.chain_id(), committee);
        let context = Arc::new(context.map_err(|_| missing(Record::Committee(epoch))())?);
        Ok(Self { commit, timestamp_ms: stored.timestamp_ms, context })
    }

    /// The committee of the next commit.
    pub fn context(&self) -> &Arc<EpochContext> {
        &self.context
    }

    /// The epoch of the next commit.
    pub fn epoch(&self) -> Epoch {
        self.context.epoch()
    }

    /// Moves behind the commits of a checked segment, and returns those that are new. Commits up to this position are
    /// left out: segments may overlap.
    ///
    /// # Errors
    /// Fails if the commits do not follow this position. It is unchanged then.
    pub fn advance(&mut self, checked: CheckedSegment) -> Result<Vec<CertifiedCommit>, SegmentFault> {
        let CheckedSegment { mut commits, first_leader_timestamp_ms, .. } = checked;
        let known = commits.partition_point(|certified| certified.commit.index <= self.commit.index);
        let is_whole = known == 0;
        if let Some(same) = known.checked_sub(1).and_then(|last| commits.get(last)) {
            let same = same.commit.reference();
            if same != self.commit {
                return Err(SegmentFault::Fork { index: same.index, previous: self.commit });
            }
        }
        commits.drain(..known);
        let Some(first) = commits.first().map(|first| &first.commit) else { return Ok(commits) };
        let index = first.index;
        if first.previous_digest != self.commit.digest {
            return Err(SegmentFault::Fork { index, previous: self.commit });
        }
        if first.epoch != self.epoch() {
            return Err(SegmentFault::OtherEpoch { index, expected: self.epoch(), found: first.epoch });
        }
        // Behind the first commit of a segment, timestamps are checked with it.
        let expected_ms = Commit::timestamp_after(first_leader_timestamp_ms, self.timestamp_ms);
        if is_whole && first.timestamp_ms != expected_ms {
            return Err(SegmentFault::Timestamp { index, expected_ms, found_ms: first.timestamp_ms });
        }
        if let Some(last) = commits.last() {
            (self.commit, self.timestamp_ms) = (last.commit.reference(), last.commit.timestamp_ms);
            if let Some(end) = last.end_of_epoch() {
                let next = EpochContext::new(self.context.chain(), end.next_committee.clone());
                // The check of the sub-dag has shown that the committee is valid.
                let index = last.commit.index;
                self.context = Arc::new(next.map_err(|source| SubDagError::NextCommittee { index, source })?);
            }
        }
        Ok(commits)
    }
}
