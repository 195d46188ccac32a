//! What proves how an epoch ended, without the commits before.

use crate::{CodecError, Committee, TrustedCommit, codec, limits::MAX_EPOCH_PROOF_BYTES};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq};
use std::borrow::Cow;

/// The last commit of an epoch, with its certifier blocks and its handover. The bytes are as received, and nothing
/// about them is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochProof {
    /// The commit.
    #[serde(with = "received")]
    pub commit: Bytes,
    /// Blocks of distinct authors. Their votes for the commit are a quorum of the epoch's committee.
    #[serde(serialize_with = "serialize_blocks", deserialize_with = "deserialize_blocks")]
    pub certifiers: Vec<Bytes>,
    /// The block of the commit that names the next committee.
    #[serde(with = "received")]
    pub end_of_epoch: Bytes,
}

impl EpochProof {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes an encoding of at most [`MAX_EPOCH_PROOF_BYTES`].
    ///
    /// # Errors
    /// Fails if the bytes are too long, or not an encoded proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "proof of an epoch", MAX_EPOCH_PROOF_BYTES)
    }
}

/// The verified end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedEpoch {
    /// The proof, as received.
    pub proof: EpochProof,
    /// The last commit of the epoch. A quorum of the epoch's committee certified it.
    pub last_commit: TrustedCommit,
    /// The committee of the next epoch.
    pub next_committee: Committee,
}

mod received {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Copies from the input, because an owned string of bytes would be allocated at its claimed length.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        serde_bytes::deserialize::<Cow<'de, [u8]>, D>(deserializer).map(|bytes| Bytes::from(bytes.into_owned()))
    }
}

/// One entry of the list of blocks.
#[derive(Deserialize)]
struct Block(#[serde(deserialize_with = "received::deserialize")] Bytes);

fn serialize_blocks<S: Serializer>(blocks: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(blocks.len()))?;
    for block in blocks {
        list.serialize_element(serde_bytes::Bytes::new(block))?;
    }
    list.end()
}

fn deserialize_blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    codec::list::<D, Block>(deserializer).map(|blocks| blocks.into_iter().map(|block| block.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_has_one_encoding_and_no_claimed_length_is_trusted() {
        let proof = EpochProof {
            commit: Bytes::from_static(b"commit"),
            certifiers: vec![Bytes::from_static(b"a"), Bytes::new()],
            end_of_epoch: Bytes::from_static(b"end"),
        };
        let encoded = proof.encode();
        assert_eq!(EpochProof::decode(&encoded), Ok(proof));
        assert_eq!(encoded.len(), 8 + 6 + 8 + (8 + 1) + 8 + 8 + 3);
        for length in 0..encoded.len() {
            assert!(EpochProof::decode(&encoded[..length]).is_err(), "cut to {length} bytes");
        }
        let mut claims = encoded.clone();
        claims[14..22].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(EpochProof::decode(&claims).is_err());
        assert!(EpochProof::decode(&vec![0; MAX_EPOCH_PROOF_BYTES + 1]).is_err());
    }

    #[test]
    fn largest_proof_and_its_checkpoint_decode() {
        let lengths = 8 * 4;
        let certifier = Bytes::from(vec![7; MAX_EPOCH_PROOF_BYTES - lengths]);
        let proof = EpochProof { commit: Bytes::new(), certifiers: vec![certifier], end_of_epoch: Bytes::new() };
        let encoded = proof.encode();
        assert_eq!(encoded.len(), MAX_EPOCH_PROOF_BYTES);
        assert_eq!(EpochProof::decode(&encoded).as_ref(), Ok(&proof));
        let committee = Committee { epoch: 0, authorities: Vec::new() };
        let checkpoint = crate::Checkpoint { chain_id: crate::ChainId([0; 32]), committee, proof };
        assert_eq!(crate::Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
}
