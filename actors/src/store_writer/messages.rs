//! Messages that the StoreWriter takes.

use bytes::Bytes;
use soma_runtime::Reply;
pub use soma_store::PeerList;
use soma_store::{StoreError, Watermarks};
use soma_types::{CertifiedCommit, CommitIndex, EndedEpoch, PeerId};
use std::sync::Arc;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much waits to be written.
    #[error("too many writes wait: the disk does not keep up")]
    Busy,
    /// The write ended without the store's word; it counts as not done until the store is read again.
    #[error("the write did not end: it {0}")]
    Aborted(String),
}

/// From StateSync: write these commits in one durable batch.
#[derive(Debug)]
pub struct Apply {
    /// In order. Shared, because the sender keeps them until they are durable.
    pub commits: Vec<Arc<Vec<CertifiedCommit>>>,
    /// The next commit of the slowest executor, if there is one: nothing from there on is pruned.
    pub executor: Option<CommitIndex>,
    /// The new watermarks once durable.
    pub reply: Reply<Result<Watermarks, WriteError>>,
}

/// From StateSync: skip these epochs in one durable step.
#[derive(Debug)]
pub struct SkipEpochs {
    /// Consecutive epochs.
    pub ended: Vec<EndedEpoch>,
    /// The new watermarks once durable.
    pub reply: Reply<Result<Watermarks, WriteError>>,
}

/// From the Archiver: the archive has all commits before this one.
#[derive(Debug)]
pub struct Archived {
    /// The first commit that the archive lacks: nothing from there on is pruned.
    pub next: CommitIndex,
}

/// From StateSync: write these commits below the lowest one, in one durable batch.
#[derive(Debug)]
pub struct Prepend {
    /// In order. Shared, because the sender keeps them until they are durable.
    pub commits: Arc<Vec<CertifiedCommit>>,
    /// The new watermarks once durable.
    pub reply: Reply<Result<Watermarks, WriteError>>,
}

/// From Discovery and PeerHeights: update the stored peers.
#[derive(Debug)]
pub struct UpdatePeers {
    /// Which list.
    pub list: PeerList,
    /// New or newer entries.
    pub put: Vec<(PeerId, Bytes)>,
    /// Forgotten peers.
    pub remove: Vec<PeerId>,
}
