//! What a validator's consensus is told, and what it asks for.

use bytes::Bytes;
use soma_p2p::{
    CertifiedCommit, CommitIndex, CommitRef, CommittedSubDag, EpochContext, SigningKey, VerifiedBlock,
    types::{AuthorityIndex, TimestampMs},
};
use std::sync::Arc;

/// Rounds below the last committed leader that a validator remembers. Older blocks are in no commit any more.
pub(crate) const GC_ROUNDS: u32 = 50;

/// Longest wait for the block of a leader.
pub(crate) const LEADER_TIMEOUT_MS: u64 = 200;

/// How a validator takes part.
#[derive(Clone)]
pub(crate) struct Config {
    /// Its index in the committee of every epoch.
    pub(crate) own: AuthorityIndex,
    /// Its protocol key.
    pub(crate) key: SigningKey,
    /// Commits in an epoch, at least. The pipeline adds a few.
    pub(crate) commits_per_epoch: u32,
    /// Shortest time between two blocks of this validator. There is at most one commit for each.
    pub(crate) pace_ms: u64,
}

/// Where the chain stands when a validator starts.
pub(crate) struct Start {
    /// The epoch of the next commit.
    pub(crate) context: Arc<EpochContext>,
    /// First commit of that epoch.
    pub(crate) first: CommitIndex,
    /// Last durable commit.
    pub(crate) tip: CommitRef,
    /// Its timestamp.
    pub(crate) timestamp_ms: TimestampMs,
    /// The last commits of the epoch up to `tip`, at most [`GC_ROUNDS`] of them.
    pub(crate) recent: Vec<CommittedSubDag>,
    /// What the validator persisted in the epoch, in this order.
    pub(crate) logged: Vec<VerifiedBlock>,
}

/// What can happen to a validator.
pub(crate) enum Input {
    /// A message that [`validate`](super::validate) has accepted.
    Message {
        /// Its author.
        author: AuthorityIndex,
        /// Its content.
        payload: Bytes,
    },
    /// The node has stored a commit, its own or one of its peers. In order, each once, from the start on.
    Committed(CommittedSubDag),
    /// The time of [`Machine::next_wake`](super::Machine::next_wake) has come.
    Wake,
}

/// What a validator asks for, in this order.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Make these blocks durable before anything that follows. The last one is the validator's own.
    Persist(Vec<VerifiedBlock>),
    /// Publish a message to all validators.
    Publish(Bytes),
    /// Hand a commit to the node.
    Commit(Box<CertifiedCommit>),
    /// The chain has another commit than this validator made: more than a third of the stake is faulty, or there is a
    /// bug. The validator must stop, and does nothing more.
    Failed(String),
}
