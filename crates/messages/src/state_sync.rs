//! Messages that StateSync takes.

use crate::Reply;
use soma_protocol::state_sync::LocalCommitError;
use soma_types::{CertifiedCommit, CommitIndex};

/// From PeerHeights: the highest commit that some peer claims; also sent when peers became able to serve.
#[derive(Debug)]
pub struct Target(pub CommitIndex);

/// From the node's consensus: its next commit.
#[derive(Debug)]
pub struct LocalCommit {
    /// The commit with blocks and votes.
    pub commit: CertifiedCommit,
    /// Sent when it is durable, or refused.
    pub reply: Reply<Result<(), LocalCommitError>>,
}
