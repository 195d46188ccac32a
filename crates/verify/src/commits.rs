//! Checks of a range of commits: the commits form a chain, and a quorum voted for the last one. By the chain of
//! digests, the quorum certified all commits of the range.
//!
//! ```text
//!   decode, index, digest of the previous one   broken: the peer's fault, the whole response is refused
//!   votes for the last commit                   too few or wrong: the same
//!   epoch, blocks that a commit names           broken by a certified commit: no peer's fault; earlier commits pass
//! ```
//!
//! The verdict on a commit therefore does not depend on the other commits of a response.

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
    /// At least one commit, ascending. Ranges may arrive in any order, so the caller must compare the first commit's
    /// `previous_digest` with the previous commit. The commits are trusted only if it matches.
    pub commits: Vec<TrustedCommit>,
    /// Blocks of a quorum that vote for the last commit. Their form and their authors' signatures are checked, but not
    /// their transactions, which a vote does not need. Empty if `breach` is set: the votes are for a later commit.
    pub certifiers: Vec<VerifiedBlock>,
    /// The rule that the next commit breaks, although a quorum certified it.
    pub breach: Option<CommitsError>,
}

/// The reason why a range of commits is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitsError {
    /// The response has no commit.
    #[error("received no commits from {start} on")]
    Empty {
        /// First requested index.
        start: CommitIndex,
    },
    /// More commits than requested.
    #[error("received {count} commits for the range {start} to {max}")]
    TooMany {
        /// First requested index.
        start: CommitIndex,
        /// Last requested index.
        max: CommitIndex,
        /// Commits received.
        count: usize,
    },
    /// The bytes are not a commit.
    #[error("commit {index}: {source}")]
    Undecodable {
        /// The commit's expected index.
        index: CommitIndex,
        /// The reason.
        source: CodecError,
    },
    /// A commit has another index than its position in the range.
    #[error("commit {found} came in the place of {expected}")]
    WrongIndex {
        /// The commit's expected index.
        expected: CommitIndex,
        /// The commit's own index.
        found: CommitIndex,
    },
    /// The range is of another epoch than the context. Its check needs that epoch's committee.
    #[error("commit {index} is of epoch {found}, not {expected}")]
    OtherEpoch {
        /// The context's epoch.
        expected: Epoch,
        /// The first commit's epoch.
        found: Epoch,
        /// The first commit's index.
        index: CommitIndex,
    },
    /// The range crosses the end of an epoch.
    #[error("commit {index} is of epoch {found}, and the commits before it are of epoch {expected}")]
    MixedEpochs {
        /// The first commit's epoch.
        expected: Epoch,
        /// This commit's epoch.
        found: Epoch,
        /// The first commit of another epoch.
        index: CommitIndex,
    },
    /// A commit does not have the digest of the previous one.
    #[error("commit {index} does not have the digest of the commit before it")]
    BrokenChain {
        /// The later commit.
        index: CommitIndex,
    },
    /// A commit names no block, or more than [`limits::MAX_BLOCKS_PER_COMMIT`].
    #[error("commit {index} names {count} blocks, not 1 to {max}", max = limits::MAX_BLOCKS_PER_COMMIT)]
    BlockCount {
        /// The commit.
        index: CommitIndex,
        /// Number of named blocks.
        count: usize,
    },
    /// The blocks are not in the order of (round, author), or two have the same position.
    #[error("commit {index} names {block} out of order")]
    BlocksOutOfOrder {
        /// The commit.
        index: CommitIndex,
        /// The block that is out of order.
        block: BlockRef,
    },
    /// A block of another epoch, of round 0, or of an author outside the committee.
    #[error("commit {index} names {block}, which cannot be a block of its epoch")]
    ImpossibleBlock {
        /// The commit.
        index: CommitIndex,
        /// The block.
        block: BlockRef,
    },
    /// The last block is not the leader.
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
    /// The bytes of a certifier block are not a block.
    #[error("certifier block {position}: {source}")]
    UndecodableCertifier {
        /// The block's position, from 0.
        position: usize,
        /// The reason.
        source: CodecError,
    },
    /// A certifier block breaks a rule.
    #[error("certifier block {certifier}: {source}")]
    InvalidCertifier {
        /// The block.
        certifier: BlockRef,
        /// The rule.
        source: BlockError,
    },
    /// Two certifier blocks have the same author.
    #[error("certifier block {certifier} is the second of authority {author}")]
    RepeatedCertifier {
        /// The later block.
        certifier: BlockRef,
        /// Its author.
        author: AuthorityIndex,
    },
    /// A certifier block does not vote for the last commit.
    #[error("certifier block {certifier} does not vote for commit {commit}")]
    NoVote {
        /// The block.
        certifier: BlockRef,
        /// The last commit of the range.
        commit: CommitRef,
    },
    /// The votes are not a quorum.
    #[error("commit {commit} is not certified: {source}")]
    NotCertified {
        /// The last commit of the range.
        commit: CommitRef,
        /// The missing stake.
        source: QuorumError,
    },
    /// A commit that a quorum certified breaks a rule.
    #[error("a quorum certified a commit that breaks a rule: {0}")]
    Certified(Box<Self>),
}

impl CommitsError {
    /// Returns true if the certifier blocks do not certify the last commit.
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

    /// The kind of fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Certified(_) => Fault::Ours,
            Self::BrokenChain { .. }
            | Self::NotCertified { .. }
            | Self::InvalidCertifier { source: BlockError::BadSignature, .. } => Fault::ProvableLie,
            // This node may lack that epoch's committee, so nothing is proven either way.
            Self::OtherEpoch { .. } => Fault::Unproven,
            _ => Fault::Malformed,
        }
    }
}

/// Checks a response to "commits from `start` to `max`": consecutive commits of the context's epoch, each with the
/// digest of the previous one, and certifier blocks of a quorum that vote for the last commit.
///
/// Not checked: that the first commit follows from the previous one (see [`CheckedCommits::commits`]), and the blocks.
/// Both need data that this range does not contain.
///
/// # Errors
///
/// Fails if no commit of the response passes. [`CommitsError::fault`] returns the kind of fault.
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

/// Checks the chain of a response: at most the requested number, in order, each with the digest of the previous one.
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
    // The zip ends with the shorter list: by the check above, no commit is beyond `max`.
    for (index, bytes) in (start..=max).zip(encoded) {
        let commit = UnverifiedCommit::decode(bytes).map_err(|source| CommitsError::Undecodable { index, source })?;
        if commit.index != index {
            return Err(CommitsError::WrongIndex { expected: index, found: commit.index });
        }
        match commits.last() {
            // Without that epoch's committee no commit can be checked.
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

/// Checks the rules for a single commit.
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
        // Each member counts once, so the sum is at most the committee's total and does not overflow.
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
