//! Where a node may begin without the past, in the form of a file.

use crate::{ChainId, CodecError, Committee, EpochProof, codec, limits::MAX_CHECKPOINT_BYTES};
use serde::{Deserialize, Serialize};

/// An ended epoch, with the committee that its proof is checked with. Its user trusts the committee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The chain.
    pub chain_id: ChainId,
    /// The committee of the ended epoch.
    pub committee: Committee,
    /// How the epoch ended.
    pub proof: EpochProof,
}

impl Checkpoint {
    /// The canonical encoding: the contents of a file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes an encoding of at most [`MAX_CHECKPOINT_BYTES`].
    ///
    /// # Errors
    /// Fails if the bytes are too long, or not an encoded checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "checkpoint", MAX_CHECKPOINT_BYTES)
    }
}
