//! Errors of an archive. None has credentials in it.

use crate::{segment::SegmentError, snapshots::SnapshotPart, verify::SegmentFault};
use soma_store::StoreError;
use soma_types::{CommitIndex, Epoch, SegmentName};
use std::error::Error;

/// The reason why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The place of the archive is no URL of a known kind, or no directory.
    #[error("archive {place}: {reason}; give a directory, or a URL such as s3://BUCKET/PATH, gs://, az:// or https://")]
    Place {
        /// The place, without credentials.
        place: String,
        /// The reason.
        reason: String,
    },
    /// An operation of the object storage failed.
    #[error("archive {place}: cannot {doing}: {source}; {advice}")]
    Storage {
        /// The archive.
        place: String,
        /// The operation and its object.
        doing: String,
        /// The reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
        /// What to do.
        advice: &'static str,
    },
    /// An object is no whole segment.
    #[error(
        "archive {place}: object {name}: {source}; remove the object, and let a node with these commits write it again"
    )]
    Segment {
        /// The archive.
        place: String,
        /// The object.
        name: SegmentName,
        /// The reason.
        source: SegmentError,
    },
    /// An object holds something else than its name says.
    #[error("archive {place}: object {name} holds segment {found}; remove the object")]
    Foreign {
        /// The archive.
        place: String,
        /// The object.
        name: SegmentName,
        /// The name that its contents would have.
        found: Box<SegmentName>,
    },
    /// A segment breaks a rule of the chain.
    #[error("archive {place}: object {name}: {source}; everything before is valid")]
    Fault {
        /// The archive.
        place: String,
        /// The object.
        name: SegmentName,
        /// The rule.
        source: Box<SegmentFault>,
    },
    /// The archive lacks commits.
    #[error("archive {place}: no segment has commit {next} of epoch {epoch}, although later ones are there")]
    Gap {
        /// The archive.
        place: String,
        /// The epoch.
        epoch: Epoch,
        /// The missing commit.
        next: CommitIndex,
    },
    /// A listing has more objects than a chain can have.
    #[error("archive {place}: more than {limit} objects in epoch {epoch}")]
    TooMany {
        /// The archive.
        place: String,
        /// The epoch.
        epoch: Epoch,
        /// The limit.
        limit: usize,
    },
    /// A part of a snapshot is longer than such a part may be.
    #[error("archive {place}: object {part} is longer than {} bytes; remove it", part.max_bytes())]
    LongPart {
        /// The archive.
        place: String,
        /// The part.
        part: SnapshotPart,
    },
    /// The archive keeps no snapshots.
    #[error("archive {place}: {part} cannot be written: it keeps no snapshots")]
    NoSnapshots {
        /// The archive.
        place: String,
        /// The part.
        part: SnapshotPart,
    },
    /// The store of this node.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of this process was aborted.
    #[error("a task of the archive was aborted: {0}")]
    Aborted(String),
}

impl ArchiveError {
    /// Whether an object is at fault. Otherwise the archive cannot be used now, and may be later.
    pub fn is_of_object(&self) -> bool {
        matches!(self, Self::Segment { .. } | Self::Foreign { .. } | Self::Fault { .. } | Self::LongPart { .. })
    }
}
