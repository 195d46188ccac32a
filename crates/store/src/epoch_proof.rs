//! What proves how an epoch ended, without the commits before.

use crate::{CorruptReason, Record, Store, StoreError, serve_commits};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soma_types::{CodecError, CommitIndex, codec};

/// Maximum length of an encoded proof: a commit, the votes of a quorum with large blocks, and one block.
const MAX_PROOF_BYTES: usize = 16 << 20;

/// The last commit of an epoch, with its certifier blocks and its handover. The bytes are as received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochProof {
    /// The commit.
    pub commit: Bytes,
    /// Blocks of distinct authors. Their votes for the commit are a quorum of the epoch's committee.
    pub certifiers: Vec<Bytes>,
    /// The block of the commit that names the next committee.
    pub end_of_epoch: Bytes,
}

impl EpochProof {
    /// Makes the proof of the epoch that ended with commit `last`, from the commit, its votes and its blocks. `None` if
    /// the stored votes are no quorum, or the commit is not stored.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    pub fn from_chain(store: &dyn Store, last: CommitIndex) -> Result<Option<Self>, StoreError> {
        let Some(sub_dag) = store.sub_dag(last)? else { return Ok(None) };
        let Ok(served) = serve_commits(store, last, last, MAX_PROOF_BYTES)? else { return Ok(None) };
        let end = sub_dag.blocks.iter().find(|block| block.end_of_epoch.is_some());
        let missing = || Record::Commit(last).corrupt(store.place(), CorruptReason::NoEndOfEpoch);
        let end_of_epoch = end.ok_or_else(missing)?.bytes().clone();
        let commit = served.commits.into_iter().next();
        Ok(commit.map(|commit| Self { commit, certifiers: served.certifiers, end_of_epoch }))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "proof of an epoch", MAX_PROOF_BYTES)
    }
}
