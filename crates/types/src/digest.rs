//! 32-byte BLAKE3 digests. Each kind has its own type and derive-key context, so digests of different kinds are never
//! equal, even for the same bytes.

mod side_by_side;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use std::{fmt, sync::LazyLock};

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $context:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// BLAKE3 derive-key context of this kind.
            pub const CONTEXT: &'static str = $context;

            /// Digest of the concatenation of `parts`.
            pub fn of(parts: &[&[u8]]) -> Self {
                let mut hasher = blake3::Hasher::new_from_context_key(Self::context_key());
                for part in parts {
                    hasher.update(part);
                }
                Self(*hasher.finalize().as_bytes())
            }

            /// Digest of each message, in order. For many messages of a few KiB it is several times as fast as
            /// [`of`](Self::of).
            pub fn of_each(messages: &[&[u8]]) -> Vec<Self> {
                side_by_side::derive_key_each(Self::context_key(), messages).into_iter().map(Self).collect()
            }

            /// The key of the context, derived only once.
            pub(crate) fn context_key() -> &'static ContextKey {
                static KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context($context));
                &KEY
            }

            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        crate::digest::hex_text!($name, "digest");
    };
}

/// Hex text for a 32-byte newtype: `Display` and `FromStr` in full, `Debug` only the first four bytes. Human-readable
/// formats (JSON) get the hex text; the canonical codec gets 32 bytes.
macro_rules! hex_text {
    ($name:ident, $what:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                crate::digest::halves(&self.0).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    return String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom);
                }
                <(u128, u128)>::deserialize(deserializer).map(|halves| Self(crate::digest::joined(halves)))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", crate::digest::Short(&self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|error| format!("{text:?} is not a {} of 64 hex digits: {error}", $what))?;
                Ok(Self(bytes))
            }
        }
    };
}
pub(crate) use hex_text;

/// 32 bytes as two numbers. The canonical codec is little-endian with fixed width, so it writes the same bytes. Serde
/// handles two numbers in two steps instead of 32.
pub(crate) fn halves(bytes: &[u8; 32]) -> (u128, u128) {
    let (mut low, mut high) = ([0; 16], [0; 16]);
    low.copy_from_slice(&bytes[..16]);
    high.copy_from_slice(&bytes[16..]);
    (u128::from_le_bytes(low), u128::from_le_bytes(high))
}

/// Inverse of [`halves`].
pub(crate) fn joined((low, high): (u128, u128)) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&low.to_le_bytes());
    bytes[16..].copy_from_slice(&high.to_le_bytes());
    bytes
}

/// The first four bytes in hex, for logs.
pub(crate) struct Short<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

digest!(
    /// The digest that an author signs: the encoded block without its signature.
    BlockBodyDigest,
    "soma-p2p 2026 v1 block body"
);
digest!(
    /// Identifies a signed block: covers its body digest and its signature.
    BlockDigest,
    "soma-p2p 2026 v1 block"
);
digest!(
    /// Identifies a commit: covers its encoding.
    CommitDigest,
    "soma-p2p 2026 v1 commit"
);
digest!(
    /// Identifies a committee: covers its encoding with the epoch.
    CommitteeDigest,
    "soma-p2p 2026 v1 committee"
);
digest!(
    /// Identifies a message that spreads among nodes: covers topic, epoch, author and payload. Its author signs it.
    MessageId,
    "soma-p2p 2026 v1 message"
);
digest!(
    /// The digest that a node signs for its node info.
    NodeInfoDigest,
    "soma-p2p 2026 v1 node info"
);
digest!(
    /// The digest that a sender signs: the encoded transaction.
    TransactionDigest,
    "soma-p2p 2026 v1 transaction"
);
digest!(
    /// The digest that authorities sign to certify a transaction: epoch, transaction and the sender's signature.
    CertificateDigest,
    "soma-p2p 2026 v1 certificate"
);
digest!(
    /// Identifies a chain: the digest of its genesis. Part of every signature's intent.
    ChainId,
    "soma-p2p 2026 v1 genesis"
);
digest!(
    /// The checksum of a segment of an archive.
    SegmentDigest,
    "soma-p2p 2026 v1 archive segment"
);
digest!(
    /// Replaces bytes that a trace does not record.
    ContentDigest,
    "soma-p2p 2026 v1 content"
);
digest!(
    /// Names an object: covers its bytes.
    ObjectId,
    "soma-p2p 2026 v1 object"
);
