//! Ed25519 keys and signatures as bytes, and the intent that every signature covers.

use crate::{
    ChainId,
    digest::{halves, hex_text, joined},
};
use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

pub use ed25519_dalek::SigningKey;

/// An ed25519 public key as 32 bytes, not yet checked to be a point of the curve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);
hex_text!(PublicKey, "public key");

/// Identifies a node on the network: its ed25519 public key, proven by its TLS certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);
hex_text!(PeerId, "peer id");

/// Bytes that are not a valid public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is not a valid ed25519 public key: not a canonical point of the curve, or of small order")]
pub struct KeyError {
    /// The bytes.
    pub key: PublicKey,
}

impl PublicKey {
    /// The key as a curve point.
    ///
    /// # Errors
    /// Fails if the bytes are not the canonical encoding of a point, or if the point has small order: a signature under
    /// such a key proves nothing.
    pub fn verifying_key(&self) -> Result<VerifyingKey, KeyError> {
        match VerifyingKey::from_bytes(&self.0) {
            Ok(key) if !key.is_weak() && key.to_edwards().compress().0 == self.0 => Ok(key),
            _ => Err(KeyError { key: *self }),
        }
    }
}

/// Encodings of the points of small order, with the non-canonical ones of two points ("negative zero").
/// [`PublicKey::check_encoding`] refuses them although their number is in range.
const SMALL_ORDER: [[u8; 32]; 10] = {
    const fn y(head: u8, middle: u8, tail: u8) -> [u8; 32] {
        let mut bytes = [middle; 32];
        bytes[0] = head;
        bytes[31] = tail;
        bytes
    }
    /// The y coordinate of the points of order 8, and its negative.
    const Y8: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    const MINUS_Y8: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const fn negative(mut bytes: [u8; 32]) -> [u8; 32] {
        bytes[31] |= 0x80;
        bytes
    }
    let (zero, one, minus_one) = (y(0, 0, 0), y(1, 0, 0), y(0xec, 0xff, 0x7f));
    [
        zero,
        negative(zero),
        one,
        negative(one),
        minus_one,
        negative(minus_one),
        Y8,
        negative(Y8),
        MINUS_Y8,
        negative(MINUS_Y8),
    ]
};

impl PublicKey {
    /// Checks the bytes alone: the encoding is canonical, and the point does not have small order. A verification with
    /// the key shows later whether it is a point at all. That is far cheaper if many signatures share a key.
    ///
    /// # Errors
    /// Fails if the encoding is not canonical, or encodes a point of small order.
    pub fn check_encoding(&self) -> Result<(), KeyError> {
        // y must be below the field's prime 2^255 - 19. In little-endian, larger values are ed..ff, then ff.., then 7f.
        let [head, middle @ .., tail] = &self.0;
        let too_large = *head >= 0xed && middle.iter().all(|byte| *byte == 0xff) && *tail & 0x7f == 0x7f;
        if too_large || SMALL_ORDER.contains(&self.0) { Err(KeyError { key: *self }) } else { Ok(()) }
    }
}

impl From<&SigningKey> for PublicKey {
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
}

impl From<PeerId> for PublicKey {
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

impl From<PublicKey> for PeerId {
    fn from(key: PublicKey) -> Self {
        Self(key.0)
    }
}

impl From<&SigningKey> for PeerId {
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
}

impl PeerId {
    /// First four bytes in hex, for logs and tables.
    pub fn short(&self) -> String {
        crate::digest::Short(&self.0).to_string()
    }
}

/// An ed25519 signature as 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Bytes of a signature. A signed value is its body, followed by the signature.
    pub const BYTES: usize = 64;
    /// Placeholder in unsigned values (genesis blocks).
    pub const ZERO: Self = Self([0; 64]);
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

// Serde does not support arrays of 64. Two halves encode to the same 64 bytes.
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.copy_from_slice(&self.0[..32]);
        high.copy_from_slice(&self.0[32..]);
        (halves(&low), halves(&high)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (low, high) = Deserialize::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&joined(low));
        bytes[32..].copy_from_slice(&joined(high));
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = de::value::Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let bytes = bytes.try_into().map_err(|_| de::Error::invalid_length(bytes.len(), &"64 bytes of signature"))?;
        Ok(Self(bytes))
    }
}

/// The purpose of a signature. A signature for one purpose is never valid for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// An author's signature on a block.
    Block = 0,
    /// A node's signature on its own info.
    NodeInfo = 1,
    /// A sender's signature on a transaction.
    Transaction = 2,
    /// An authority's signature on a sender-signed transaction.
    Certificate = 3,
    /// An authority's signature on the next epoch's committee.
    NextCommittee = 4,
    /// An author's signature on a message that spreads among nodes.
    Message = 5,
}

/// Version of the intent's layout: its second byte.
const INTENT_VERSION: u8 = 1;

/// Bytes of the message that a signature covers: scope, version, chain id, digest.
pub const INTENT_MESSAGE_BYTES: usize = 66;

/// The context of a signature: its purpose and its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The purpose of the signature.
    pub scope: Scope,
    /// The chain on which the signature is valid.
    pub chain: ChainId,
}

impl Intent {
    /// The message to sign for `digest`: scope (1 byte), version (1), chain id (32), digest (32).
    pub fn message(&self, digest: &[u8; 32]) -> [u8; INTENT_MESSAGE_BYTES] {
        let mut message = [0; INTENT_MESSAGE_BYTES];
        message[0] = self.scope as u8;
        message[1] = INTENT_VERSION;
        message[2..34].copy_from_slice(&self.chain.0);
        message[34..].copy_from_slice(digest);
        message
    }

    /// Signs `digest` in this context.
    pub fn sign(&self, key: &SigningKey, digest: &[u8; 32]) -> Signature {
        Signature(key.sign(&self.message(digest)).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `check_encoding` must refuse each key that [`PublicKey::verifying_key`] refuses, unless the key is not a point.
    fn agrees(key: PublicKey) {
        let is_point = VerifyingKey::from_bytes(&key.0).is_ok();
        assert_eq!(key.check_encoding().is_ok() && is_point, key.verifying_key().is_ok(), "{key}");
    }

    #[test]
    fn encoding_shows_small_order_and_non_canonical_keys() {
        for bytes in SMALL_ORDER {
            assert!(VerifyingKey::from_bytes(&bytes).is_ok_and(|key| key.is_weak()), "{bytes:?} is of small order");
            agrees(PublicKey(bytes));
        }
        // All numbers from the prime up to 2^255, with either sign: non-canonical encodings, or no points.
        for (head, sign) in (0xed..=0xff).flat_map(|head| [(head, 0x7f), (head, 0xff)]) {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (head, sign);
            assert!(PublicKey(bytes).check_encoding().is_err());
            agrees(PublicKey(bytes));
        }
    }

    proptest! {
        #[test]
        fn check_of_the_encoding_agrees_with_the_check_of_the_point(bytes: [u8; 32]) {
            agrees(PublicKey(bytes));
        }
    }
}
