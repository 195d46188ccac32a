//! The canonical codec: bincode 2, little-endian, fixed-width integers, no maps.
//!
//! Every value has one encoding by construction: integers have one width, lengths are `u64`, `Option` and enum tags
//! admit only their own values, and text is UTF-8. [`decode`] also refuses trailing bytes. A property test
//! (`tests/canonical.rs`) checks the claim for arbitrary input.
//!
//! Decoding takes memory proportional to the input's size, not to the lengths that the input claims. Text and bytes are
//! borrowed from the input, and lists grow with their elements (`text`, `bytes`, `list`). A test in
//! `crates/testkit/tests/allocation.rs` measures this.

use serde::{
    Deserializer, Serialize,
    de::{self, Deserialize},
};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// Maximum number of bytes that one decode may claim. The types' own limits on their input are smaller. This limit
/// stops a length prefix from allocating more memory than any valid value has.
const DECODE_LIMIT: usize = 16 << 20;

fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<DECODE_LIMIT>,
> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<DECODE_LIMIT>()
}

/// The reason why bytes are not the encoding of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not an encoding of the type.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// bincode's reason.
        reason: String,
    },
    /// A valid encoding is followed by more bytes.
    #[error("{what} is followed by {extra} trailing bytes")]
    TrailingBytes {
        /// The type that was expected.
        what: &'static str,
        /// Number of trailing bytes.
        extra: usize,
    },
    /// The bytes exceed the type's limit.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The type that was expected.
        what: &'static str,
        /// Bytes received.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// The canonical encoding of `value`.
///
/// # Panics
/// Panics if the `Serialize` implementation reports an error or omits a length. The types of this crate do neither.
#[expect(clippy::expect_used, reason = "encoding into memory has no error")]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing to a Vec cannot fail, and the types of this crate neither report errors nor omit lengths.
    bincode::serde::encode_to_vec(value, config().with_no_limit()).expect("encoding into memory does not fail")
}

/// Decodes all of `bytes`.
///
/// `limit` is the greatest length in bytes of a valid `T`. It is checked before anything is read.
///
/// # Errors
/// Fails if the bytes exceed the limit, are not an encoding of `T`, or have trailing bytes.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str, limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { what, size: bytes.len(), limit });
    }
    let (value, read) = bincode::serde::borrow_decode_from_slice(bytes, config())
        .map_err(|error| CodecError::Malformed { what, reason: error.to_string() })?;
    if read != bytes.len() {
        return Err(CodecError::TrailingBytes { what, extra: bytes.len() - read });
    }
    Ok(value)
}

/// Maximum memory of a list before its first element is read. Serde's own lists allocate up to 1 MiB for a claimed
/// length.
const FIRST_BYTES: usize = 4 << 10;

/// Decodes a list without trusting its length prefix. Every `Vec` in a decoded type must use it.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for List<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let first = FIRST_BYTES / size_of::<T>().max(1);
            let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(first));
            while let Some(element) = elements.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List(PhantomData))
}

/// Copies text from the input. An owned text would be allocated at its claimed length before it is read.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    deserializer.deserialize_str(Text)
}

/// Copies bytes from the input, like [`text`].
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    serde_bytes::deserialize::<Cow<'de, [u8]>, D>(deserializer).map(Cow::into_owned)
}
