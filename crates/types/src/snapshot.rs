//! Snapshots of an executor's state: a manifest, and chunks that it names by their digests.

use crate::{
    ChainId, CodecError, CommitRef, ObjectId, codec,
    limits::{MAX_OBJECT_BYTES, MAX_SNAPSHOT_CHUNKS, MAX_SNAPSHOT_MANIFEST_BYTES},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a snapshot is made of. Its id, the digest of its encoding, pins every byte of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// The chain.
    pub chain_id: ChainId,
    /// The last commit whose effects are in the state.
    pub commit: CommitRef,
    /// The form of the state, which only executors understand.
    pub format: u32,
    /// Bytes of the state.
    pub bytes: u64,
    /// Bytes of each chunk but the last, which has the rest.
    pub chunk_bytes: u64,
    /// The ids of the chunks, in order.
    #[serde(deserialize_with = "codec::list")]
    pub chunks: Vec<ObjectId>,
}

impl SnapshotManifest {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes an encoding of at most [`MAX_SNAPSHOT_MANIFEST_BYTES`], and checks the sizes in it.
    ///
    /// # Errors
    /// Fails if the bytes are not an encoded manifest, or the chunks do not have the bytes of the state.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let what = "snapshot manifest";
        let manifest: Self = codec::decode(bytes, what, MAX_SNAPSHOT_MANIFEST_BYTES)?;
        let wrong = |reason: String| Err(CodecError::Malformed { what, reason });
        if manifest.chunk_bytes == 0 || manifest.chunk_bytes > MAX_OBJECT_BYTES as u64 {
            return wrong(format!("a chunk has {} bytes: 1 to {MAX_OBJECT_BYTES} are allowed", manifest.chunk_bytes));
        }
        let (chunks, needed) = (manifest.chunks.len(), manifest.bytes.div_ceil(manifest.chunk_bytes));
        if chunks as u64 != needed || chunks > MAX_SNAPSHOT_CHUNKS {
            let bytes = manifest.bytes;
            return wrong(format!(
                "{chunks} chunks for {bytes} bytes: {needed} are needed, {MAX_SNAPSHOT_CHUNKS} allowed"
            ));
        }
        Ok(manifest)
    }

    /// The id of the manifest, and of the snapshot.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(&[&self.encode()])
    }

    /// What peers advertise of it.
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo { commit: self.commit, format: self.format, bytes: self.bytes, manifest: self.id() }
    }

    /// The bytes of the state that a chunk has. Empty for a chunk that does not exist.
    pub fn range(&self, chunk: usize) -> Range<u64> {
        let start = (chunk as u64).saturating_mul(self.chunk_bytes).min(self.bytes);
        start..start.saturating_add(self.chunk_bytes).min(self.bytes)
    }
}

/// A snapshot that a peer says it has. Nothing of it is proved but the id of what it will send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The last commit whose effects are in the state.
    pub commit: CommitRef,
    /// The form of the state.
    pub format: u32,
    /// Bytes of the state.
    pub bytes: u64,
    /// The id of the manifest.
    pub manifest: ObjectId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CommitDigest;

    fn manifest(bytes: u64, chunk_bytes: u64, chunks: usize) -> SnapshotManifest {
        let commit = CommitRef { index: 7, digest: CommitDigest([7; 32]) };
        let chunks = (0..chunks).map(|chunk| ObjectId([chunk as u8; 32])).collect();
        SnapshotManifest { chain_id: ChainId([1; 32]), commit, format: 1, bytes, chunk_bytes, chunks }
    }

    #[test]
    fn manifest_is_read_back_and_its_chunks_cover_the_state() {
        let manifest = manifest(25, 10, 3);
        assert_eq!(SnapshotManifest::decode(&manifest.encode()), Ok(manifest.clone()));
        let ranges: Vec<_> = (0..4).map(|chunk| manifest.range(chunk)).collect();
        assert_eq!(ranges, [0..10, 10..20, 20..25, 25..25]);
        assert_eq!(manifest.info().manifest, ObjectId::of(&[&manifest.encode()]));
        assert!(SnapshotManifest::decode(&self::manifest(0, 10, 0).encode()).is_ok(), "a state may be empty");
    }

    #[test]
    fn manifest_whose_sizes_do_not_fit_is_refused() {
        let most = MAX_OBJECT_BYTES as u64;
        let wrong = [(25, 10, 2), (25, 10, 4), (25, 0, 3), (0, 10, 1), (most + 1, most + 1, 1), (u64::MAX, 1, 3)];
        for (bytes, chunk_bytes, chunks) in wrong {
            let encoded = manifest(bytes, chunk_bytes, chunks).encode();
            assert!(SnapshotManifest::decode(&encoded).is_err(), "{bytes} bytes in {chunks} chunks of {chunk_bytes}");
        }
        let too_many = manifest(MAX_SNAPSHOT_CHUNKS as u64 + 1, 1, MAX_SNAPSHOT_CHUNKS + 1);
        assert!(SnapshotManifest::decode(&too_many.encode()).is_err());
        let most = manifest(MAX_SNAPSHOT_CHUNKS as u64, 1, MAX_SNAPSHOT_CHUNKS);
        assert!(most.encode().len() <= MAX_SNAPSHOT_MANIFEST_BYTES && SnapshotManifest::decode(&most.encode()).is_ok());
    }
}
