//! The canonical codec: bincode 2, little-endian, fixed-width integers, no maps.
//!
//! Every value has one encoding by construction: integers have one width, lengths are `u64`, `Option` and enum
//! tags admit only their own values, and text is UTF-8. What remains is trailing bytes, which [`decode`] refuses.
//! A property test (`tests/canonical.rs`) holds the claim for arbitrary input.
//!
//! Decoding takes memory in proportion to the bytes that are there, whatever lengths they claim: text and bytes are
//! taken from where they lie, and lists grow with the elements that come (`text`, `bytes`, `list`). A test of
//! `crates/testkit/tests/allocation.rs` measures it.

use serde::{
    Deserializer, Serialize,
    de::{self, Deserialize},
};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// The most that any one decode may claim, in bytes. Inputs are bounded by their own limits long before; this is
/// what stops a length prefix from asking for more memory than any valid value has.
const DECODE_LIMIT: usize = 4 << 20;

fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<DECODE_LIMIT>,
> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<DECODE_LIMIT>()
}

/// Why bytes are not the encoding of a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not an encoding of this type at all.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// bincode's reason.
        reason: String,
    },
    /// A valid encoding with something behind it.
    #[error("{what} is followed by {extra} bytes that do not belong to it")]
    TrailingBytes {
        /// The type that was expected.
        what: &'static str,
        /// How many bytes follow.
        extra: usize,
    },
    /// Longer than this type may be.
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

/// The one encoding of `value`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Encoding fails only when a Serialize impl reports an error or a length is unknown; the types of this crate
    // do neither, and writing to a Vec cannot fail.
    bincode::serde::encode_to_vec(value, config().with_no_limit()).expect("encoding into memory does not fail")
}

/// The value that `bytes` encode, all of them.
///
/// `limit` is the greatest length in bytes that a valid `T` has; it is checked before anything is read.
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

/// Memory that a list has before its first element has been read. Serde's own lists begin with up to 1 MiB when a length
/// claims as much.
const FIRST_BYTES: usize = 4 << 10;

/// A list that does not believe the length in front of it: for every `Vec` in a type that is decoded.
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

/// Text that is copied from where it lies. An owned one would be as long as its length claims before it is read.
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

/// Bytes that are copied from where they lie, as [`text`].
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    serde_bytes::deserialize::<Cow<'de, [u8]>, D>(deserializer).map(Cow::into_owned)
}
