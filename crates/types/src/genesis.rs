//! The genesis: a chain's root of trust, which every node needs to join the chain.

use crate::{ChainId, CodecError, Commit, Committee, CommitteeError, Epoch, TimestampMs, TrustedCommit, codec, limits};
use serde::{Deserialize, Serialize};

/// Longest name of a chain, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The first committee and the chain's name. The digest of the genesis is the chain id.
///
/// A value is always valid: [`new`](Self::new) and [`decode`](Self::decode) check name and committee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genesis {
    name: String,
    timestamp_ms: TimestampMs,
    committee: Committee,
}

/// A decoded genesis before the checks.
#[derive(Deserialize)]
struct EncodedGenesis {
    #[serde(deserialize_with = "codec::text")]
    name: String,
    timestamp_ms: TimestampMs,
    committee: Committee,
}

/// The reason why a genesis is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// The bytes are not a genesis.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The name is too long.
    #[error("the genesis' name has {bytes} bytes, over the limit of {MAX_NAME_BYTES}")]
    NameTooLong {
        /// Bytes of the name.
        bytes: usize,
    },
    /// The committee belongs to another epoch than the first.
    #[error("the genesis' committee is for epoch {found}, not 0")]
    NotFirstEpoch {
        /// The committee's epoch.
        found: Epoch,
    },
    /// The committee breaks a rule.
    #[error("the genesis' committee: {0}")]
    Committee(#[from] CommitteeError),
}

impl Genesis {
    /// Creates a genesis from a name for people (at most 64 bytes), the chain's start time and the committee of epoch
    /// 0. Two chains with the same name still have different ids.
    ///
    /// # Errors
    ///
    /// Fails if the name is too long, or if the committee is invalid or not of epoch 0.
    pub fn new(name: impl Into<String>, timestamp_ms: TimestampMs, committee: Committee) -> Result<Self, GenesisError> {
        let name = name.into();
        if name.len() > MAX_NAME_BYTES {
            return Err(GenesisError::NameTooLong { bytes: name.len() });
        }
        if committee.epoch != 0 {
            return Err(GenesisError::NotFirstEpoch { found: committee.epoch });
        }
        committee.validate()?;
        Ok(Self { name, timestamp_ms, committee })
    }

    /// The chain's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The chain's start time.
    pub fn timestamp_ms(&self) -> TimestampMs {
        self.timestamp_ms
    }

    /// The valid committee of epoch 0.
    pub fn committee(&self) -> &Committee {
        &self.committee
    }

    /// Digest of the genesis. It identifies the chain in every signature.
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

    /// Decodes a genesis file and checks it.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a genesis, or the genesis is invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let limit = limits::MAX_COMMITTEE_BYTES + 2 * MAX_NAME_BYTES;
        let EncodedGenesis { name, timestamp_ms, committee } = codec::decode(bytes, "genesis", limit)?;
        Self::new(name, timestamp_ms, committee)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, PublicKey, SigningKey};

    fn committee(stake: u64) -> Committee {
        let key = |seed: u8| PublicKey::from(&SigningKey::from_bytes(&[seed; 32]));
        let address = "/ip4/127.0.0.1/tcp/9000".parse().unwrap();
        let authority = Authority { stake, protocol_key: key(1), network_key: key(2), address };
        Committee { epoch: 0, authorities: vec![authority] }
    }

    #[test]
    fn invalid_genesis_cannot_be_made_or_decoded() {
        let no_stake = CommitteeError::NoStake { authority: 0 };
        assert_eq!(Genesis::new("a", 1, committee(0)), Err(GenesisError::Committee(no_stake.clone())));
        let other_epoch = Committee { epoch: 3, ..committee(1) };
        assert_eq!(Genesis::new("a", 1, other_epoch), Err(GenesisError::NotFirstEpoch { found: 3 }));
        assert_eq!(Genesis::new("a".repeat(65), 1, committee(1)), Err(GenesisError::NameTooLong { bytes: 65 }));

        let valid = Genesis::new("a".repeat(64), 1, committee(1)).unwrap();
        assert_eq!(Genesis::decode(&valid.encode()), Ok(valid.clone()));
        let invalid = Genesis { committee: committee(0), ..valid };
        assert_eq!(Genesis::decode(&invalid.encode()), Err(GenesisError::Committee(no_stake)));
    }
}
