//! Messages that the Archiver takes.

use soma_archive::Segment;
use soma_protocol::state_sync::ArchiveRoute;
use soma_runtime::Reply;
use soma_types::{CommitIndex, Epoch, SegmentName};

/// From StateSync: further commits are durable.
#[derive(Debug)]
pub struct CommitsDurable {
    /// The last one.
    pub highest: CommitIndex,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// The last commit of an epoch, if one is among them.
    pub ended: Option<CommitIndex>,
}

/// From StateSync: find the segments of an epoch that lead on from a commit.
#[derive(Debug)]
pub struct ListSegments {
    /// The epoch.
    pub epoch: Epoch,
    /// The commit.
    pub next: CommitIndex,
    /// Segments to leave out.
    pub avoid: Vec<SegmentName>,
    /// The segments.
    pub reply: Reply<Result<ArchiveRoute, ReadError>>,
}

/// From a SyncWorker: read a segment.
#[derive(Debug)]
pub struct ReadSegment {
    /// The segment.
    pub name: SegmentName,
    /// The segment. Only its form is checked.
    pub reply: Reply<Result<Segment, ReadError>>,
}

/// Why a read of the archive failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The object is damaged, or not what its name says.
    #[error("{0}")]
    Object(String),
    /// The archive cannot be read now.
    #[error("{0}")]
    Unavailable(String),
}
