//! Names of snapshots and of their parts.

use soma_types::{
    CommitIndex, ObjectId,
    limits::{MAX_OBJECT_BYTES, MAX_SNAPSHOT_MANIFEST_BYTES},
};
use std::{fmt, str::FromStr};

/// A snapshot in a storage, ordered by its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// The last executed commit, as the name says.
    pub commit: CommitIndex,
    /// The id of its manifest, which proves every byte of the snapshot.
    pub manifest: ObjectId,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// The manifest.
    Manifest(SnapshotName),
    /// The chunk with this id. Several snapshots may have it.
    Chunk(ObjectId),
}

impl SnapshotPart {
    /// The id of its bytes.
    pub fn id(self) -> ObjectId {
        match self {
            Self::Manifest(name) => name.manifest,
            Self::Chunk(id) => id,
        }
    }

    /// Bytes that such a part has at most.
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Manifest(_) => MAX_SNAPSHOT_MANIFEST_BYTES,
            Self::Chunk(_) => MAX_OBJECT_BYTES,
        }
    }
}

/// `COMMIT-MANIFEST`, with 10 digits.
impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{}", self.commit, self.manifest)
    }
}

/// `snapshots/COMMIT-MANIFEST` or `chunks/ID`.
impl fmt::Display for SnapshotPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(name) => write!(f, "snapshots/{name}"),
            Self::Chunk(id) => write!(f, "chunks/{id}"),
        }
    }
}

/// The text is no name of a snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of a snapshot")]
pub struct NoSnapshotName;

impl FromStr for SnapshotName {
    type Err = NoSnapshotName;

    fn from_str(text: &str) -> Result<Self, NoSnapshotName> {
        let (commit, manifest) = text.split_once('-').ok_or(NoSnapshotName)?;
        let commit = commit.parse().map_err(|_| NoSnapshotName)?;
        let name = Self { commit, manifest: manifest.parse().map_err(|_| NoSnapshotName)? };
        // There is one way to write it.
        if name.to_string() == text { Ok(name) } else { Err(NoSnapshotName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_in_no_other_form() {
        let name = SnapshotName { commit: 500, manifest: ObjectId([0xa0; 32]) };
        let text = format!("0000000500-{}", "a0".repeat(32));
        assert_eq!(name.to_string(), text);
        assert_eq!(text.parse(), Ok(name));
        for wrong in ["", "500", &text[1..], &text.to_uppercase(), &format!("{text}0"), "0000000500-"] {
            assert_eq!(wrong.parse::<SnapshotName>(), Err(NoSnapshotName), "{wrong}");
        }
        assert_eq!(SnapshotPart::Manifest(name).to_string(), format!("snapshots/{text}"));
        assert_eq!(SnapshotPart::Chunk(name.manifest).to_string(), format!("chunks/{}", "a0".repeat(32)));
    }
}
