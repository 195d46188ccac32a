//! How far a validator has got, in a file that the parent process reads.

use serde::{Deserialize, Serialize};
use soma_p2p::types::{Epoch, Round};
use std::{fs, io, path::Path};

/// The file's name in the data directory.
const FILE: &str = "consensus.json";

/// How a validator takes part, since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The process.
    pub(crate) pid: u32,
    /// The epoch in which it makes blocks.
    pub(crate) epoch: Epoch,
    /// The round of its last block.
    pub(crate) round: Round,
    /// Blocks that this process made and that are in commits.
    pub(crate) committed_blocks: u64,
}

impl Progress {
    /// Writes the file, in one step. It need not survive a crash.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let (new, path) = (data_dir.join(format!("{FILE}.new")), data_dir.join(FILE));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    /// Reads the file; `None` if no validator has written it.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_dir.join(FILE)).ok()?).ok()
    }
}
