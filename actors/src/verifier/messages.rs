//! Messages that the Verifier takes: work for the CPU pool.

use bytes::Bytes;
use soma_network::wire::FetchedCommits;
use soma_protocol::state_sync::{LocalCommitError, RangeSummary};
use soma_runtime::Reply;
use soma_types::{
    BlockRef, CertifiedCommit, CommitIndex, Committee, EndedEpoch, MessageVerdict, PeerFailure, SignedMessage,
    SignedNodeInfo, TimestampMs, Topic, TrustedCommit, VerifiedBlock,
};
use soma_verify::{CheckedCommits, EpochContext};
use std::sync::Arc;

/// Why something did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is wrong, or could not be shown to be right.
    #[error("{}", .0.reason)]
    Failed(PeerFailure),
    /// The commits are of another epoch than the context.
    #[error("commit {index} is of epoch {found}")]
    OtherEpoch {
        /// The first one.
        index: CommitIndex,
        /// Its epoch.
        found: soma_types::Epoch,
    },
}

/// From a worker: check an answer's commits and the votes for the last.
#[derive(Debug)]
pub struct VerifyCommits {
    /// Of the epoch that they should be of.
    pub context: Arc<EpochContext>,
    /// First commit asked for.
    pub start: CommitIndex,
    /// Last commit asked for.
    pub end: CommitIndex,
    /// What came.
    pub fetched: FetchedCommits,
    /// The answer.
    pub reply: Reply<Result<CheckedCommits, Rejection>>,
}

/// From a worker: check blocks that certified commits name.
#[derive(Debug)]
pub struct VerifyBlocks {
    /// Of their epoch.
    pub context: Arc<EpochContext>,
    /// The request.
    pub refs: Vec<BlockRef>,
    /// What came, in this order.
    pub blocks: Vec<Bytes>,
    /// The answer.
    pub reply: Reply<BlocksAnswer>,
}

/// How blocks were judged.
#[derive(Debug)]
pub struct BlocksAnswer {
    /// The leading blocks that are verified.
    pub blocks: Vec<VerifiedBlock>,
    /// Why the block after them is not. `None` if there is no such block, or if it was left unchecked because those
    /// before it took long: ask again for the rest.
    pub rejection: Option<Rejection>,
}

/// Commits joined with their blocks, and a summary for StateSync.
#[derive(Debug)]
pub struct VerifiedRange {
    /// Summary.
    pub summary: RangeSummary,
    /// The commits.
    pub commits: Vec<CertifiedCommit>,
    /// The next epoch's committee, if the last commit ends its epoch.
    pub next_committee: Option<Committee>,
}

/// From a worker: check commits together with their blocks (order in time, reachability, handover).
#[derive(Debug)]
pub struct VerifySubDags {
    /// Of their epoch.
    pub context: Arc<EpochContext>,
    /// Consecutive commits, each with its verified blocks.
    pub commits: Vec<CertifiedCommit>,
    /// The answer.
    pub reply: Reply<SubDagsAnswer>,
}

/// How consecutive commits were judged.
#[derive(Debug)]
pub struct SubDagsAnswer {
    /// The leading commits that passed; `None` if the first did not.
    pub range: Option<VerifiedRange>,
    /// Why the commit after them did not pass.
    pub rejection: Option<Rejection>,
}

/// From StateSync: check a commit of the node's own consensus as every peer will.
#[derive(Debug)]
pub struct VerifyLocalCommit {
    /// Of its epoch.
    pub context: Arc<EpochContext>,
    /// The commit, with its blocks and those that certify it; one.
    pub commits: Arc<Vec<CertifiedCommit>>,
    /// The answer.
    pub reply: Reply<Result<RangeSummary, LocalCommitError>>,
}

/// From StateSync: check the proofs of consecutive epochs.
#[derive(Debug)]
pub struct VerifyEpochProofs {
    /// Of the first epoch.
    pub context: Arc<EpochContext>,
    /// The last commit of the epoch before, or the genesis commit.
    pub previous: TrustedCommit,
    /// The encoded proofs.
    pub proofs: Vec<Bytes>,
    /// The answer: every ended epoch, or the fault of the first wrong proof.
    pub reply: Reply<Result<Vec<EndedEpoch>, PeerFailure>>,
}

/// From Discovery: check node infos. Those that do not pass are left out and logged.
#[derive(Debug)]
pub struct VerifyNodeInfos {
    /// As received.
    pub infos: Vec<Bytes>,
    /// The time to check them against.
    pub now_ms: TimestampMs,
    /// Those that passed, in order.
    pub reply: Reply<Vec<SignedNodeInfo>>,
}

/// From Broadcast: check messages.
#[derive(Debug)]
pub struct VerifyMessages {
    /// Their topic.
    pub topic: Topic,
    /// Of the epochs whose messages are valid.
    pub contexts: Vec<Arc<EpochContext>>,
    /// The messages.
    pub messages: Vec<Arc<SignedMessage>>,
    /// Whether their signatures are checked.
    pub signatures: bool,
    /// A verdict for each message, in order.
    pub reply: Reply<Vec<MessageVerdict>>,
}

/// From Objects: check certificates with right digests.
#[derive(Debug)]
pub struct VerifyCertificates {
    /// Of the epochs with known committees.
    pub contexts: Vec<Arc<EpochContext>>,
    /// The encoded certificates.
    pub certificates: Vec<Bytes>,
    /// For each certificate, in order: the reason why it does not pass, if it does not.
    pub reply: Reply<Vec<Result<(), String>>>,
}
