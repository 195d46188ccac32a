//! Keys of a test chain: derived from its seed, so that every holder of the seed can sign.

use soma_types::{AuthorityIndex, SigningKey};

/// What a key is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Protocol,
    Network,
    Sender,
}

/// The key of an authority or a sender; `version` counts replacements.
pub(crate) fn key(seed: u64, purpose: Purpose, owner: AuthorityIndex, version: u64) -> SigningKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = purpose as u8 + 1;
    bytes[9..13].copy_from_slice(&owner.to_le_bytes());
    bytes[13..21].copy_from_slice(&version.to_le_bytes());
    SigningKey::from_bytes(&bytes)
}
