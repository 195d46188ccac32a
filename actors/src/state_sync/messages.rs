//! Messages that StateSync takes.

use soma_protocol::{
    peer_heights,
    state_sync::{self, LocalCommitError, RangeKey},
};
use soma_runtime::Reply;
use soma_types::{CertifiedCommit, VerifiedBlock};

/// From PeerHeights: what peers claim; also sent when they became able to serve.
#[derive(Debug)]
pub struct Target(pub peer_heights::Target);

/// From the node's consensus: its next commit.
#[derive(Debug)]
pub struct LocalCommit {
    /// The commit with blocks and votes.
    pub commit: CertifiedCommit,
    /// Sent when it is durable, or refused.
    pub reply: Reply<Result<(), LocalCommitError>>,
}

/// From Connections and Discovery when they start: what is the current committee? Changes follow in any case.
#[derive(Debug)]
pub struct SubscribeCommittee {
    /// Name of the actor to tell.
    pub subscriber: &'static str,
}

/// From a SyncWorker: blocks of its range that have been verified. They are not fetched again if it dies.
#[derive(Debug)]
pub struct CacheUpdate {
    /// The worker's range.
    pub key: RangeKey,
    /// The blocks; their bytes are those that the worker holds.
    pub blocks: Vec<VerifiedBlock>,
}

/// From a SyncWorker: its peer has brought something.
#[derive(Debug)]
pub struct FetchProgress {
    /// The worker.
    pub key: RangeKey,
    /// Whether that was all.
    pub downloaded: bool,
}

/// From the reader of an executor's stream: how far the executor has got. Sent now and then, and when the stream ends.
#[derive(Debug)]
pub struct ExecutorProgress {
    /// Which of the readers of this node.
    pub reader: u64,
    /// How far, or how the stream ended.
    pub at: state_sync::ExecutorAt,
}
