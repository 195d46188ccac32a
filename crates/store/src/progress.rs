//! How far pruning has got.

use crate::{
    Record, StoreError,
    layout::{META_LATE_FROM, META_PRUNED, Table},
    tables::Tables,
};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, Round, codec};

/// Maximum length of a stored [`Progress`]: one pinned batch has at most 5 bytes.
const MAX_PROGRESS_BYTES: usize = 64 + 5 * MAX_PINNED;

/// Batches that later ones pin at the same time. A few are usual. With more, removal waits for the later ones.
pub(crate) const MAX_PINNED: usize = 10_000;

/// The removed part of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// All commits below this one, and their votes, are removed.
    pub(crate) next: CommitIndex,
    /// All segments of batches below this one are removed, except of the `pinned` ones.
    pub(crate) batch: CommitIndex,
    /// No round before this one has an entry.
    pub(crate) round: (Epoch, Round),
    /// Batches with blocks that commits from `next` on name.
    pub(crate) pinned: Vec<CommitIndex>,
}

impl Progress {
    pub(crate) fn read<T: Tables>(tables: &T) -> Result<Self, StoreError> {
        let Some(bytes) = tables.get(Table::Meta, META_PRUNED)? else {
            return Ok(Self { next: 1, ..Self::default() });
        };
        codec::decode(&bytes, "progress of pruning", MAX_PROGRESS_BYTES)
            .map_err(|error| Record::Pruned.corrupt(tables.place(), error))
    }

    /// Whether the segments of `batch` are removed.
    pub(crate) fn has_removed(&self, batch: CommitIndex) -> bool {
        batch < self.batch && self.pinned.binary_search(&batch).is_err()
    }
}

/// The first batch from which on [`Table::Late`] is complete; `None` if no batch was written since it exists.
pub(crate) fn late_from<T: Tables>(tables: &T) -> Result<Option<CommitIndex>, StoreError> {
    let Some(bytes) = tables.get(Table::Meta, META_LATE_FROM)? else { return Ok(None) };
    let decoded = codec::decode(&bytes, "commit index", 4);
    decoded.map(Some).map_err(|error| Record::Pruned.corrupt(tables.place(), error))
}
