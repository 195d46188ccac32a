//! The encoding of values in a trace: bincode with variable-length integers, because most numbers are small.

use crate::bounded::Value;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// The longest payload: far longer than the largest core's state (Discovery with a full address book).
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// Bytes of a trace that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {what} of this version of the software: {reason}")]
pub struct DecodeError {
    /// The kind of value that was expected.
    pub what: &'static str,
    /// The decoder's reason.
    pub reason: String,
}

/// The limit stops a length in damaged bytes from allocating more memory than any record needs.
fn config() -> Configuration<LittleEndian, Varint, Limit<MAX_RECORD_BYTES>> {
    bincode::config::standard().with_limit::<MAX_RECORD_BYTES>()
}

/// The encoding of a value.
#[expect(clippy::expect_used, reason = "encoding into memory has no error")]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Serialize fails only by its own error or for a sequence of unknown length. Cores and records have neither, and
    // writing to a Vec cannot fail.
    bincode::serde::encode_to_vec(value, config().with_no_limit()).expect("encoding into memory does not fail")
}

/// Decodes all of `bytes`, in memory proportional to their size.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, DecodeError> {
    match bincode::serde::seed_decode_from_slice(Value::<T>::new(), bytes, config()) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(DecodeError { what, reason: format!("{} bytes too many", bytes.len() - read) }),
        Err(error) => Err(DecodeError { what, reason: error.to_string() }),
    }
}
