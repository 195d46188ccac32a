//! Checks of a range of commits: that it is one, and that a quorum voted for its last commit, and by the chain of
//! digests for all before it.
//!
//! ```text
//!   decode, index, digest of the one before   broken: the peer's fault, nothing of the answer counts
//!   votes for the last commit                 too few or wrong: the same
//!   epoch, blocks that a commit names         broken by a certified commit: nobody's fault; those before it count
//! ```
//!
//! So whether a commit passes does not depend on those that come in one answer with it.

use crate::{BlockError, EpochContext, QuorumError, block_rules::check_block};
use bytes::Bytes;
use soma_types::{
    AuthorityIndex, BlockRef, CodecError, Commit, CommitIndex, CommitRef, Epoch, Fault, Scope, SignedBlock,
    TrustedCommit, UnverifiedCommit, VerifiedBlock, limits,
};
use std::collections::BTreeSet;

/// A range of commits that a quorum certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCommits {
    /// The commits, ascending, at least one. Trusted once the first one's `previous_digest` is also that of the
    /// commit before it, which is for the caller to compare: ranges may come in any order.
    pub commits: Vec<TrustedCommit>,
    /// Blocks of a quorum that vote for the last commit. Proved are their form and their authors' signatures; their
    /// transactions are not, as a vote needs none of them. None if `breach` is set: they vote for a later commit.
    pub certifiers: Vec<VerifiedBlock>,
    /// The rule that the commit after the last one breaks, although a quorum certified it.
    pub breach: Option<CommitsError>,
}

/// Why a range of commits is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitsError {
    /// Nothing in it.
    #[error("no commits came from {start} on")]
    Empty {
        /// First index asked for.
        start: CommitIndex,
    },
    /// More than asked for.
    #[error("{count} commits came where {start} to {max} were asked for")]
    TooMany {
        /// First index asked for.
        start: CommitIndex,
        /// Last index asked for.
        max: CommitIndex,
        /// Commits received.
        count: usize,
    },
    /// Bytes that are no commit.
    #[error("commit {index}: {source}")]
    Undecodable {
        /// Its place in the range.
        index: CommitIndex,
        /// Why they are none.
        source: CodecError,
    },
    /// A commit out of place.
    #[error("commit {found} came in the place of {expected}")]
    WrongIndex {
        /// Its place in the range.
        expected: CommitIndex,
        /// Its own index.
        found: CommitIndex,
    },
    /// The range is of another epoch than the context: it has to be checked with that epoch's committee.
    #[error("commit {index} is of epoch {found}, not {expected}")]
    OtherEpoch {
        /// The context's.
        expected: Epoch,
        /// The first commit's.
        found: Epoch,
        /// The first commit's index.
        index: CommitIndex,
    },
    /// The range goes over the end of an epoch.
    #[error("commit {index} is of epoch {found}, and those before it of {expected}")]
    MixedEpochs {
        /// The first commit's.
        expected: Epoch,
        /// This commit's.
        found: Epoch,
        /// The first commit of another epoch.
        index: CommitIndex,
    },
    /// A commit that does not follow from the one before it.
    #[error("commit {index} does not have the digest of the commit before it")]
    BrokenChain {
        /// The later one.
        index: CommitIndex,
    },
    /// None or more than [`limits::MAX_BLOCKS_PER_COMMIT`].
    #[error("commit {index} names {count} blocks, not 1 to {max}", max = limits::MAX_BLOCKS_PER_COMMIT)]
    BlockCount {
        /// The commit.
        index: CommitIndex,
        /// Blocks named.
        count: usize,
    },
    /// Blocks not in the order of (round, author), or one place twice.
    #[error("commit {index} names {block} out of order")]
    BlocksOutOfOrder {
        /// The commit.
        index: CommitIndex,
        /// The one out of order.
        block: BlockRef,
    },
    /// A block of another epoch, of round 0, or of an author outside the committee.
    #[error("commit {index} names {block}, which cannot be a block of its epoch")]
    ImpossibleBlock {
        /// The commit.
        index: CommitIndex,
        /// What it names.
        block: BlockRef,
    },
    /// The last block is another than the leader.
    #[error("the leader {leader} of commit {index} is not its last block")]
    LeaderNotLast {
        /// The commit.
        index: CommitIndex,
        /// Its leader.
        leader: BlockRef,
    },
    /// More certifier blocks than authorities.
    #[error("{count} certifier blocks of a committee of {size}")]
    TooManyCertifiers {
        /// Blocks received.
        count: usize,
        /// Members of the committee.
        size: usize,
    },
    /// Bytes that are no block.
    #[error("certifier block {position}: {source}")]
    UndecodableCertifier {
        /// Which, from 0.
        position: usize,
        /// Why they are none.
        source: CodecError,
    },
    /// A certifier block that breaks a rule.
    #[error("certifier block {certifier}: {source}")]
    InvalidCertifier {
        /// The block.
        certifier: BlockRef,
        /// The rule.
        source: BlockError,
    },
    /// Two certifier blocks of one author.
    #[error("certifier block {certifier} is the second of authority {author}")]
    RepeatedCertifier {
        /// The later block.
        certifier: BlockRef,
        /// Its author.
        author: AuthorityIndex,
    },
    /// A certifier block that does not vote for the last commit.
    #[error("certifier block {certifier} does not vote for commit {commit}")]
    NoVote {
        /// The block.
        certifier: BlockRef,
        /// The last commit of the range.
        commit: CommitRef,
    },
    /// Too few votes.
    #[error("commit {commit} is not certified: {source}")]
    NotCertified {
        /// The last commit of the range.
        commit: CommitRef,
        /// How much is missing.
        source: QuorumError,
    },
    /// A commit that a quorum certified breaks a rule.
    #[error("a quorum certified a commit that breaks a rule: {0}")]
    Certified(Box<Self>),
}

impl CommitsError {
    /// Whether the blocks that are to certify the last commit do not.
    pub fn is_about_votes(&self) -> bool {
        matches!(
            self,
            Self::TooManyCertifiers { .. }
                | Self::UndecodableCertifier { .. }
                | Self::InvalidCertifier { .. }
                | Self::RepeatedCertifier { .. }
                | Self::NoVote { .. }
                | Self::NotCertified { .. }
        )
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Certified(_) => Fault::Ours,
            Self::BrokenChain { .. }
            | Self::NotCertified { .. }
            | Self::InvalidCertifier { source: BlockError::BadSignature, .. } => Fault::ProvableLie,
            // We may lack that epoch's committee: nothing is proved either way.
            Self::OtherEpoch { .. } => Fault::Unproven,
            _ => Fault::Malformed,
        }
    }
}

/// Checks an answer to "commits from `start` up to `max`": consecutive commits of the context's epoch, each naming
/// the digest of the one before, and certifier blocks of a quorum that vote for the last.
///
/// Not checked, because it needs what this range does not hold: that the first commit follows from the one before it
/// ([`CheckedCommits::commits`]), and everything about the blocks.
///
/// # Errors
///
/// Nothing of the answer counts. [`CommitsError::fault`] tells whether its peer is to blame.
pub fn check_commits(
    context: &EpochContext,
    start: CommitIndex,
    max: CommitIndex,
    commits: Vec<Bytes>,
    certifiers: Vec<Bytes>,
) -> Result<CheckedCommits, CommitsError> {
    let chain = check_chain(context, start, max, commits)?;
    let Some(last) = chain.last().map(UnverifiedCommit::reference) else { return Err(CommitsError::Empty { start }) };
    let certifiers = check_certifiers(context, last, certifiers)?;
    let breach = chain.iter().enumerate().find_map(|(position, commit)| {
        check_commit(context, commit).err().map(|error| (position, CommitsError::Certified(Box::new(error))))
    });
    let trusted = |commits: Vec<UnverifiedCommit>| commits.into_iter().map(TrustedCommit::assume_trusted).collect();
    match breach {
        None => Ok(CheckedCommits { commits: trusted(chain), certifiers, breach: None }),
        Some((0, breach)) => Err(breach),
        Some((good, breach)) => {
            let commits = trusted(chain.into_iter().take(good).collect());
            Ok(CheckedCommits { commits, certifiers: Vec::new(), breach: Some(breach) })
        }
    }
}

/// What holds between the commits of an answer: as many as asked, in order, each with the digest of the one before.
fn check_chain(
    context: &EpochContext,
    start: CommitIndex,
    max: CommitIndex,
    encoded: Vec<Bytes>,
) -> Result<Vec<UnverifiedCommit>, CommitsError> {
    let asked = (u64::from(max) + 1).saturating_sub(u64::from(start));
    let count = encoded.len();
    if count as u64 > asked {
        return Err(CommitsError::TooMany { start, max, count });
    }
    let mut commits: Vec<UnverifiedCommit> = Vec::with_capacity(count);
    // Not beyond `max`, by the check above: the zip ends with the shorter.
    for (index, bytes) in (start..=max).zip(encoded) {
        let commit = UnverifiedCommit::decode(bytes).map_err(|source| CommitsError::Undecodable { index, source })?;
        if commit.index != index {
            return Err(CommitsError::WrongIndex { expected: index, found: commit.index });
        }
        match commits.last() {
            // Without that epoch's committee nothing can be told of any of them.
            None if commit.epoch != context.epoch() => {
                return Err(CommitsError::OtherEpoch { expected: context.epoch(), found: commit.epoch, index });
            }
            Some(previous) if commit.previous_digest != previous.reference().digest => {
                return Err(CommitsError::BrokenChain { index });
            }
            _ => {}
        }
        commits.push(commit);
    }
    Ok(commits)
}

/// What each commit must hold by itself.
fn check_commit(context: &EpochContext, commit: &Commit) -> Result<(), CommitsError> {
    if commit.epoch != context.epoch() {
        let (expected, found) = (context.epoch(), commit.epoch);
        return Err(CommitsError::MixedEpochs { expected, found, index: commit.index });
    }
    check_named_blocks(context, commit)
}

fn check_named_blocks(context: &EpochContext, commit: &Commit) -> Result<(), CommitsError> {
    let index = commit.index;
    let count = commit.blocks.len();
    if count == 0 || count > limits::MAX_BLOCKS_PER_COMMIT {
        return Err(CommitsError::BlockCount { index, count });
    }
    let mut previous = None;
    for &block in &commit.blocks {
        if block.epoch != commit.epoch || block.round == 0 || context.stake(block.author).is_none() {
            return Err(CommitsError::ImpossibleBlock { index, block });
        }
        let place = Some((block.round, block.author));
        if previous >= place {
            return Err(CommitsError::BlocksOutOfOrder { index, block });
        }
        previous = place;
    }
    if commit.blocks.last() != Some(&commit.leader) {
        return Err(CommitsError::LeaderNotLast { index, leader: commit.leader });
    }
    Ok(())
}

fn check_certifiers(
    context: &EpochContext,
    commit: CommitRef,
    encoded: Vec<Bytes>,
) -> Result<Vec<VerifiedBlock>, CommitsError> {
    if encoded.len() > context.size() {
        return Err(CommitsError::TooManyCertifiers { count: encoded.len(), size: context.size() });
    }
    let mut authors = BTreeSet::new();
    let mut stake = 0;
    let mut certifiers = Vec::with_capacity(encoded.len());
    for (position, bytes) in encoded.into_iter().enumerate() {
        let block =
            SignedBlock::decode(bytes).map_err(|source| CommitsError::UndecodableCertifier { position, source })?;
        let certifier = block.reference();
        check_block(context, &block).map_err(|source| CommitsError::InvalidCertifier { certifier, source })?;
        if !authors.insert(block.author) {
            return Err(CommitsError::RepeatedCertifier { certifier, author: block.author });
        }
        if !block.commit_votes.contains(&commit) {
            return Err(CommitsError::NoVote { certifier, commit });
        }
        // Each member counts once: the sum is at most the committee's total, which fits.
        stake += context.stake(block.author).unwrap_or(0);
        certifiers.push(block);
    }
    context.check_quorum(stake).map_err(|source| CommitsError::NotCertified { commit, source })?;
    for block in &certifiers {
        if !context.is_signed_by(block.author, Scope::Block, block.body_digest(), block.signature()) {
            return Err(CommitsError::InvalidCertifier {
                certifier: block.reference(),
                source: BlockError::BadSignature,
            });
        }
    }
    Ok(certifiers.into_iter().map(VerifiedBlock::assume_verified).collect())
}
