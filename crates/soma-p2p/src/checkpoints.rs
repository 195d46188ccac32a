//! Checkpoints of a store, of a stopped node or of one that runs.

use crate::handle::Handle;
use soma_store::{Store, StoreError, make_checkpoint};
use soma_types::{Checkpoint, Epoch};

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The epoch has not ended.
    #[error("no checkpoint yet: the store is in epoch {current}")]
    NotEnded {
        /// The epoch of the store.
        current: Epoch,
    },
    /// The store began later.
    #[error("the store has no proof of epoch {epoch}, or not its committee; try a later epoch")]
    NoProof {
        /// The epoch.
        epoch: Epoch,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has stopped.
    #[error("the node has stopped, or the read of its store was cut off; export the checkpoint from its store")]
    Stopped,
}

/// The checkpoint of an ended epoch of a store, by default of the last one.
///
/// # Errors
///
/// The epoch has not ended, the store has no proof of its end, or the store cannot be read.
pub fn export_checkpoint(store: &dyn Store, epoch: Option<Epoch>) -> Result<Checkpoint, CheckpointError> {
    let current = store.latest_epoch()?;
    let epoch = match epoch.or(current.checked_sub(1)) {
        Some(epoch) if epoch < current => epoch,
        _ => return Err(CheckpointError::NotEnded { current }),
    };
    make_checkpoint(store, epoch)?.ok_or(CheckpointError::NoProof { epoch })
}

impl Handle {
    /// The checkpoint of an ended epoch, by default of the last one, at which another node can
    /// [begin](crate::Start::Checkpoint).
    ///
    /// # Errors
    ///
    /// As [`export_checkpoint`], or the system has stopped.
    pub async fn checkpoint(&self, epoch: Option<Epoch>) -> Result<Checkpoint, CheckpointError> {
        let store = self.shared.store.borrow().clone().ok_or(CheckpointError::Stopped)?;
        let exported = self.shared.offload.run(move || export_checkpoint(&*store, epoch)).await;
        exported.unwrap_or(Err(CheckpointError::Stopped))
    }
}
