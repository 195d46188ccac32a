//! Snapshots in the archive: writing one, and reading what no peer has.

use crate::{
    handle::Handle,
    snapshots::{Lacking, SnapshotError, SnapshotFetch},
};
use bytes::Bytes;
use soma_archive::{ArchiveError, SegmentStorage, SnapshotName, SnapshotPart};
use soma_store::ObjectSource;
use soma_types::{ObjectId, ObjectKind, SnapshotManifest, limits::MAX_SNAPSHOT_MANIFEST_BYTES};
use std::{collections::BTreeSet, sync::Arc};

impl Handle {
    /// Writes a snapshot into the archive, from the node's own source of objects. What is there stays. The manifest is
    /// written last, so that a snapshot in the archive is complete. A call that failed can be made again.
    ///
    /// # Errors
    ///
    /// The archive does not have the whole snapshot. [`SnapshotError`] says why.
    pub async fn archive_snapshot(&self, id: ObjectId) -> Result<(), SnapshotError> {
        let shared = &self.shared;
        let archive = shared.archive.as_ref().ok_or(SnapshotError::Lacks("archive"))?;
        let source = shared.objects.as_ref().ok_or(SnapshotError::Lacks("source of objects"))?;
        let encoded = self.read_own(source, ObjectKind::SNAPSHOT_MANIFEST, id, MAX_SNAPSHOT_MANIFEST_BYTES).await?;
        let wrong = |error: soma_types::CodecError| SnapshotError::NoManifest { id, reason: error.to_string() };
        let manifest = SnapshotManifest::decode(&encoded).map_err(wrong)?;
        let mut written = BTreeSet::new();
        for chunk in manifest.chunks.iter().filter(|chunk| written.insert(**chunk)) {
            let bytes =
                self.read_own(source, ObjectKind::SNAPSHOT_CHUNK, *chunk, manifest.chunk_bytes as usize).await?;
            archive.put_part(self.chain_id(), SnapshotPart::Chunk(*chunk), bytes).await?;
        }
        let name = SnapshotName { commit: manifest.commit.index, manifest: id };
        archive.put_part(self.chain_id(), SnapshotPart::Manifest(name), encoded).await?;
        Ok(())
    }

    /// Reads a whole object of the node's own source. Its bytes are checked: what is damaged must not be kept for ever.
    async fn read_own(
        &self,
        source: &Arc<dyn ObjectSource>,
        kind: ObjectKind,
        id: ObjectId,
        most: usize,
    ) -> Result<Bytes, SnapshotError> {
        let source = source.clone();
        let read = move || {
            let object = source.read(kind, &id, 0, most)?;
            Ok::<_, std::io::Error>(object.map(|object| object.bytes).filter(|bytes| ObjectId::of(&[bytes]) == id))
        };
        let read = self.shared.offload.run(read).await;
        let bytes = read.map_err(|exit| std::io::Error::other(format!("the source of objects {exit}")))??;
        bytes.ok_or(SnapshotError::NotHere(id))
    }
}

impl SnapshotFetch<'_> {
    fn archive(&self) -> Option<&Arc<dyn SegmentStorage>> {
        self.handle.shared.archive.as_ref()
    }

    pub(crate) fn has_archive(&self) -> bool {
        self.archive().is_some()
    }

    /// Snapshots in the archive. None while it cannot be read.
    pub(crate) async fn archived(&self) -> Vec<SnapshotName> {
        let Some(archive) = self.archive() else { return Vec::new() };
        archive.snapshots(self.handle.chain_id()).await.unwrap_or_else(|error| {
            warn(&error);
            Vec::new()
        })
    }

    /// A manifest in the archive, if it is there, and is what its name says.
    pub(crate) async fn archived_manifest(&self, name: SnapshotName) -> Option<Arc<SnapshotManifest>> {
        let bytes = self.read_archived(SnapshotPart::Manifest(name)).await?;
        self.decode(name.manifest, &bytes).ok()
    }

    /// Hands chunks of the archive to the sink, until one is not there or the time is over. Returns how many.
    pub(crate) async fn take_archived(
        &self,
        manifest: &Arc<SnapshotManifest>,
        lacking: &mut Lacking,
    ) -> Result<usize, SnapshotError> {
        let mut taken = 0;
        while !self.is_over()
            && let Some(id) = lacking.keys().next().copied()
        {
            let Some(bytes) = self.read_archived(SnapshotPart::Chunk(id)).await else { break };
            self.place(manifest, lacking.remove(&id), bytes).await?;
            taken += 1;
        }
        Ok(taken)
    }

    /// A part in the archive with the bytes that its id names.
    async fn read_archived(&self, part: SnapshotPart) -> Option<Bytes> {
        let read = self.archive()?.get_part(self.handle.chain_id(), part).await;
        let bytes = read.unwrap_or_else(|error| {
            warn(&error);
            None
        })?;
        let hashed = bytes.clone();
        let id = self.handle.shared.offload.run(move || ObjectId::of(&[&hashed])).await.ok()?;
        if id != part.id() {
            tracing::warn!(%part, "an object of the archive has other bytes than its name says; remove it");
            return None;
        }
        Some(bytes)
    }
}

fn warn(error: &ArchiveError) {
    tracing::warn!(%error, "no snapshot from the archive");
}
