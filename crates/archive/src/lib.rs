//! The history of a chain in object storage.
//!
//! ```text
//!   store --next_segment--> Segment --put if absent--> Archive (S3, GCS, Azure, HTTP, a directory)
//!   store <--apply-- link <--verify in parallel-- Segment <--get-- Archive
//! ```
//!
//! A segment has consecutive commits of one epoch with their blocks, and the votes for the last. It is immutable. The
//! committee of its epoch is enough to verify it. Its name has its range, so a listing is the index. Several writers of
//! one chain do no harm: the first object of a name stays, and overlapping ranges are valid.
//!
//! An archive also holds snapshots of the executor's state, each as a manifest and chunks.
//!
//! docs/archive-format.md defines names and bytes.

#![warn(clippy::missing_errors_doc)]
#![deny(missing_docs)]

#[cfg(feature = "storage")]
mod bucket;
mod cut;
mod error;
#[cfg(feature = "storage")]
mod push;
mod segment;
mod snapshots;
mod storage;
mod verify;
#[cfg(feature = "storage")]
mod walk;

#[cfg(feature = "storage")]
pub use bucket::Archive;
pub use cut::{SEGMENT_BYTES, SEGMENT_COMMITS, next_segment};
pub use error::ArchiveError;
#[cfg(feature = "storage")]
pub use push::{Pushed, push};

pub use segment::{FORMAT_VERSION, MAX_SEGMENT_BYTES, Segment, SegmentError};
pub use snapshots::{NoSnapshotName, SnapshotName, SnapshotPart};
pub use storage::{SegmentStorage, first_missing};
pub use verify::{CheckedSegment, Position, SegmentFault, Verification, check_segment};
#[cfg(feature = "storage")]
pub use walk::{Walked, pull, walk};
