//! The root of trust: what a node must be given to join a chain.

use crate::{ChainId, CodecError, Commit, Committee, TimestampMs, TrustedCommit, codec, limits};
use serde::{Deserialize, Serialize};

/// Longest name of a chain, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The first committee and a name; its digest is the chain id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// A name for people; two chains of one name still differ in their id.
    #[serde(deserialize_with = "codec::text")]
    pub name: String,
    /// When the chain began.
    pub timestamp_ms: TimestampMs,
    /// Committee of epoch 0.
    pub committee: Committee,
}

impl Genesis {
    /// Digest of the genesis: names the chain in every signature.
    pub fn chain_id(&self) -> ChainId {
        ChainId::of(&[&self.encode()])
    }

    /// Commit 0.
    pub fn commit(&self) -> TrustedCommit {
        Commit::genesis(self.chain_id(), self.timestamp_ms, self.committee.authorities.len())
    }

    /// The bytes of a genesis file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a genesis file and checks its committee.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let genesis: Self = codec::decode(bytes, "genesis", limits::MAX_COMMITTEE_BYTES + 2 * MAX_NAME_BYTES)?;
        let refuse = |reason| Err(CodecError::Malformed { what: "genesis", reason });
        if genesis.name.len() > MAX_NAME_BYTES {
            return refuse(format!("the name has more than {MAX_NAME_BYTES} bytes"));
        }
        if genesis.committee.epoch != 0 {
            return refuse(format!("its committee is for epoch {}, not 0", genesis.committee.epoch));
        }
        match genesis.committee.validate() {
            Ok(()) => Ok(genesis),
            Err(error) => refuse(error.to_string()),
        }
    }
}
