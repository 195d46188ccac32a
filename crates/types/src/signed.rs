//! A value with its author's signature, as one byte string: the encoded body followed by 64 bytes of signature.

use crate::{ChainId, CodecError, Intent, Scope, Signature, SigningKey, codec};
use bytes::Bytes;
use serde::Serialize;
use std::ops::Deref;

/// A body that its author signs.
pub trait Signable: Serialize + Sized {
    /// What the signature is for.
    const SCOPE: Scope;
    /// The type's name in errors.
    const WHAT: &'static str;
    /// Greatest length in bytes of the body with its signature.
    const MAX_BYTES: usize;

    /// Decodes the body; long parts of it may be slices of `body`.
    fn decode_body(body: &Bytes) -> Result<Self, CodecError>;

    /// Digest of the encoded body: what is signed.
    fn body_digest(body: &[u8]) -> [u8; 32];
}

/// A signed value, decoded, with the bytes that it came in.
///
/// Proves form only: whether `signature` is its author's is for `soma-verify` to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    value: T,
    body_digest: [u8; 32],
    signature: Signature,
    bytes: Bytes,
}

impl<T: Signable> Signed<T> {
    /// Signs `value` for `chain`.
    pub fn sign(value: T, chain: ChainId, key: &SigningKey) -> Self {
        let body = codec::encode(&value);
        let signature = Intent { scope: T::SCOPE, chain }.sign(key, &T::body_digest(&body));
        Self::assemble(value, body, signature)
    }

    /// Puts `signature` behind `value` without a look at it: for genesis blocks, and for tests that forge.
    pub fn with_signature(value: T, signature: Signature) -> Self {
        let body = codec::encode(&value);
        Self::assemble(value, body, signature)
    }

    fn assemble(value: T, mut body: Vec<u8>, signature: Signature) -> Self {
        let body_digest = T::body_digest(&body);
        body.extend_from_slice(&signature.0);
        Self { value, body_digest, signature, bytes: body.into() }
    }

    /// Decodes and hashes received bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        if bytes.len() > T::MAX_BYTES {
            return Err(CodecError::TooLarge { what: T::WHAT, size: bytes.len(), limit: T::MAX_BYTES });
        }
        let too_short = || CodecError::Malformed {
            what: T::WHAT,
            reason: format!("{} bytes are too few to hold a signature", bytes.len()),
        };
        let body_len = bytes.len().checked_sub(Signature::BYTES).ok_or_else(too_short)?;
        let body = bytes.slice(..body_len);
        let value = T::decode_body(&body)?;
        let signature = Signature::try_from(&bytes[body_len..]).map_err(|_| too_short())?;
        Ok(Self { value, body_digest: T::body_digest(&body), signature, bytes })
    }

    /// What the author signed.
    pub fn body_digest(&self) -> &[u8; 32] {
        &self.body_digest
    }

    /// The author's signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The bytes as received: body and signature.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The value, without the bytes it came in.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
