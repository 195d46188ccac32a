//! Messages to Objects, and the results for askers.

use bytes::Bytes;
use soma_runtime::Reply;
use soma_types::{ObjectId, ObjectKind, PeerId, SnapshotInfo};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why an object was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Every connected peer that has objects lacks it.
    #[error("none of the {asked} peers that were asked has it")]
    NotFound {
        /// Peers that were asked.
        asked: u32,
    },
    /// The deadline has passed.
    #[error("it did not come in time; {asked} peers lack it")]
    Late {
        /// Peers that lack it.
        asked: u32,
    },
    /// It is what its id says, but no valid certificate.
    #[error("the certificate with this id is invalid: {reason}")]
    Invalid {
        /// The reason.
        reason: String,
    },
    /// The system has stopped.
    #[error("the system has stopped")]
    Stopped,
}

/// Objects with their results.
pub type ObjectResults = Vec<(ObjectId, Result<Bytes, FetchError>)>;

/// From the handle: get these objects.
#[derive(Debug)]
pub struct FetchObjects {
    /// What they are.
    pub kind: ObjectKind,
    /// The objects, none twice.
    pub ids: Vec<ObjectId>,
    /// When the asker gives up.
    pub within: Duration,
    /// The peer that sent the reference. It is asked first.
    pub first_from: Option<PeerId>,
    /// Where results go: each object once. It ends early if this actor is restarted, or has too much to do.
    pub results: mpsc::UnboundedSender<ObjectResults>,
    /// Cancelled when the asker is gone.
    pub dropped: CancellationToken,
}

/// From the handle: ask every connected peer which snapshots it has.
#[derive(Debug)]
pub struct ListSnapshots {
    /// The advertised snapshots, in the order of peers. A peer that does not answer is left out.
    pub reply: Reply<Vec<AdvertisedSnapshot>>,
}

/// A snapshot that a peer says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisedSnapshot {
    /// The snapshot.
    pub info: SnapshotInfo,
    /// The peer.
    pub peer: PeerId,
    /// Whether the peer is a validator of the present epoch.
    pub is_validator: bool,
}
