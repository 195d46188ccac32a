//! A signed value as one byte string: the encoded body, followed by the author's signature of 64 bytes.

use crate::{ChainId, CodecError, Intent, Scope, Signature, SigningKey, codec};
use bytes::Bytes;
use serde::Serialize;
use std::ops::Deref;

/// The body of a signed value.
pub trait Signable: Serialize + Sized {
    /// The purpose of the signature.
    const SCOPE: Scope;
    /// The type's name in errors.
    const WHAT: &'static str;
    /// Greatest length in bytes of the body with its signature.
    const MAX_BYTES: usize;

    /// Decodes the body. Long parts may be slices of `body`.
    ///
    /// # Errors
    /// Fails if the bytes are not the body of such a value.
    fn decode_body(body: &Bytes) -> Result<Self, CodecError>;

    /// Digest of the encoded body, which the author signs.
    fn body_digest(body: &[u8]) -> [u8; 32];
}

/// A decoded signed value with its bytes.
///
/// It proves only the form: `soma-verify` checks the signature.
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

    /// Appends `signature` to `value` without a check. For genesis blocks, and for tests that forge blocks.
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
    ///
    /// # Errors
    /// Fails if the bytes are longer than the type's limit, shorter than a signature, or have an invalid body.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        Self::decode_with(bytes, T::body_digest)
    }

    /// Decodes received bytes. `body_digest` computes or returns the digest of the body.
    pub(crate) fn decode_with(bytes: Bytes, body_digest: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Self, CodecError> {
        if bytes.len() > T::MAX_BYTES {
            return Err(CodecError::TooLarge { what: T::WHAT, size: bytes.len(), limit: T::MAX_BYTES });
        }
        let (body, signature) = bytes.split_last_chunk().ok_or_else(|| Self::too_short(bytes.len()))?;
        let (body, signature) = (bytes.slice_ref(body), Signature(*signature));
        let value = T::decode_body(&body)?;
        Ok(Self { value, body_digest: body_digest(&body), signature, bytes })
    }

    pub(crate) fn too_short(len: usize) -> CodecError {
        CodecError::Malformed { what: T::WHAT, reason: format!("{len} bytes are too few to hold a signature") }
    }

    /// The digest that the author signed.
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

    /// The value, without its bytes.
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
