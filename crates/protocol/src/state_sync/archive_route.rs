//! What StateSync learns of an archive, and whether it uses one.

use serde::{Deserialize, Serialize};
use soma_types::SegmentName;

/// Segments of one listing that are kept.
pub const MAX_ROUTE: usize = 64;

/// Whether the node fetches from an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveUse {
    /// It has none, or only writes to it.
    #[default]
    Never,
    /// Commits that no peer can serve.
    WhenNeeded,
    /// All commits that the archive has. Peers serve the later ones.
    First,
}

/// The segments of an archive that lead on from a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRoute {
    /// The segments in order with the sizes of their objects, at most [`MAX_ROUTE`].
    pub segments: Vec<(SegmentName, u64)>,
    /// Whether the epoch has later segments behind a gap.
    pub has_gap: bool,
}
