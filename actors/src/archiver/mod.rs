//! Archiver: writes the node's history into an archive, and reads segments of it for StateSync.
//!
//! ```text
//!   StateSync --CommitsDurable--> core --Write--> store: next segment --> archive: put if absent
//!                                   '--Archived--> StoreWriter, which prunes nothing that the archive lacks
//!   StateSync --ListSegments, ReadSegment--> core --Run--> archive --> answered
//! ```
//!
//! It runs only in a node that has an archive.

pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use shell::Archiver;
