//! The archive of a node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soma_archive::{SEGMENT_BYTES, SEGMENT_COMMITS};
use soma_protocol::{archiver, state_sync::ArchiveUse};

/// The archive: history of the chain in object storage. docs/archive-format.md defines it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ArchiveConfig {
    /// A directory, relative to the configuration file's, or a URL: `s3://BUCKET/PATH`, `gs://`, `az://`, `https://`.
    /// Credentials come from the environment. The builder may give a storage instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Whether the node writes its commits to the archive. It prunes none that the archive lacks.
    pub write: bool,
    /// What the node reads from the archive: `when-needed`, what no peer can serve; `first`, all that the archive has,
    /// for a fast start; `never`, nothing.
    pub read: ArchiveRead,
    /// Bytes that the node writes in a second; 0: any number. Range: 0, or at least 65,536.
    pub max_bytes_per_second: u64,
}

/// What a node reads from its archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ArchiveRead {
    /// Commits that no peer can serve.
    #[default]
    WhenNeeded,
    /// All that the archive has. Peers serve the later commits.
    First,
    /// Nothing.
    Never,
}

impl ArchiveConfig {
    /// For the core of the Archiver.
    pub(crate) fn archiver(&self, place: &str) -> archiver::Config {
        archiver::Config {
            place: place.into(),
            writes: self.write,
            max_bytes_per_second: self.max_bytes_per_second,
            segment_commits: SEGMENT_COMMITS,
            segment_bytes: SEGMENT_BYTES as u64,
        }
    }
}

impl ArchiveRead {
    /// For the core of StateSync.
    pub(crate) fn core(self) -> ArchiveUse {
        match self {
            Self::WhenNeeded => ArchiveUse::WhenNeeded,
            Self::First => ArchiveUse::First,
            Self::Never => ArchiveUse::Never,
        }
    }
}
