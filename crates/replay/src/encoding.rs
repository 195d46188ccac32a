//! How values are written in a trace: bincode with varying integer width, for most numbers are small.

use crate::{bounded::Value, format::MAX_RECORD_BYTES};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes of a trace are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {what} of this version of the software: {reason}")]
pub struct DecodeError {
    /// What was expected.
    pub what: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// What stops a length in damaged bytes from asking for more memory than any record needs.
fn config() -> Configuration<LittleEndian, Varint, Limit<MAX_RECORD_BYTES>> {
    bincode::config::standard().with_limit::<MAX_RECORD_BYTES>()
}

/// The encoding of a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Fails only when a Serialize impl reports an error or does not know a length; those of cores and records do neither,
    // and writing to a Vec cannot fail.
    bincode::serde::encode_to_vec(value, config().with_no_limit()).expect("encoding into memory does not fail")
}

/// The value that `bytes` encode, all of them. Takes memory in proportion to them, whatever lengths they claim.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, DecodeError> {
    match bincode::serde::seed_decode_from_slice(Value::<T>::new(), bytes, config()) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(DecodeError { what, reason: format!("{} bytes too many", bytes.len() - read) }),
        Err(error) => Err(DecodeError { what, reason: error.to_string() }),
    }
}
