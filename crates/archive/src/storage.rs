//! What keeps segments.

use crate::{
    error::ArchiveError,
    segment::Segment,
    snapshots::{SnapshotName, SnapshotPart},
};
use async_trait::async_trait;
use bytes::Bytes;
use soma_store::StoreError;
use soma_types::{ChainId, CommitIndex, Epoch, SegmentName, SegmentRoute};

/// Keeps segments under their names. `Archive` (feature `storage`) is the one for object storage; a node may bring
/// another.
///
/// Every method may be called concurrently, and again after a failure.
#[async_trait]
pub trait SegmentStorage: Send + Sync + 'static {
    /// The place, for logs and errors. Without credentials.
    fn place(&self) -> &str;

    /// The segments of an epoch with the sizes of their objects, in the order of their ranges. Objects with other names
    /// are left out.
    ///
    /// # Errors
    /// Fails if the storage cannot be listed.
    async fn segments(&self, chain: ChainId, epoch: Epoch) -> Result<Vec<(SegmentName, u64)>, ArchiveError>;

    /// Writes a segment, unless an object of its name is there. Returns whether it was written.
    ///
    /// # Errors
    /// Fails if the storage cannot be written.
    async fn put(&self, segment: &Segment) -> Result<bool, ArchiveError>;

    /// Reads a segment. Its form, its checksum and its name are checked.
    ///
    /// # Errors
    /// Fails if the storage cannot be read, or if the object is no whole segment of that name.
    async fn get(&self, name: &SegmentName) -> Result<Segment, ArchiveError>;

    /// Snapshots of the executor's state, the latest first. A storage keeps none unless it says so.
    ///
    /// # Errors
    /// Fails if the storage cannot be listed.
    async fn snapshots(&self, _: ChainId) -> Result<Vec<SnapshotName>, ArchiveError> {
        Ok(Vec::new())
    }

    /// Writes a part of a snapshot, unless it is there. Returns whether it was written. The manifest comes last.
    ///
    /// # Errors
    /// Fails if the storage cannot be written, or keeps no snapshots.
    async fn put_part(&self, _: ChainId, part: SnapshotPart, _: Bytes) -> Result<bool, ArchiveError> {
        Err(ArchiveError::NoSnapshots { place: self.place().into(), part })
    }

    /// Reads a part of a snapshot. `None` if it is not there. The caller checks the bytes against the id.
    ///
    /// # Errors
    /// Fails if the storage cannot be read, or if the object is longer than such a part may be.
    async fn get_part(&self, _: ChainId, _: SnapshotPart) -> Result<Option<Bytes>, ArchiveError> {
        Ok(None)
    }
}

/// Finds the first commit from `next` on that no segment has. `epoch_of` tells the epoch of a stored commit, and `None`
/// behind the last one. Lists each epoch once.
///
/// # Errors
/// Fails if the storage cannot be listed, or if the store cannot be read.
pub async fn first_missing<F>(
    storage: &dyn SegmentStorage,
    chain: ChainId,
    mut next: CommitIndex,
    epoch_of: impl Fn(CommitIndex) -> F,
) -> Result<CommitIndex, ArchiveError>
where
    F: Future<Output = Result<Option<Epoch>, StoreError>>,
{
    let mut listed = None;
    while let Some(epoch) = epoch_of(next).await?
        && listed != Some(epoch)
    {
        let segments = storage.segments(chain, epoch).await?;
        listed = Some(epoch);
        let route = SegmentRoute::new(segments.into_iter().map(|(name, _)| name), next);
        if let Some(last) = route.names.last() {
            next = last.last.saturating_add(1);
        }
    }
    Ok(next)
}
