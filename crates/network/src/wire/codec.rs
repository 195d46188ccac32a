//! Protobuf encoding of gRPC messages, with a bound on the memory of decoded messages.
//!
//! The transport bounds the length of a message. prost decodes an empty list entry of two bytes to thirty times as many
//! in memory: a response of 12 MiB would take 400 MiB before any check. Decoding therefore counts the fields first.

use crate::wire::limits::MAX_MESSAGE_FIELDS;
use bytes::{Buf, Bytes};
use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The reason why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are not protobuf, or not this type of message.
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
    /// The message has more fields than any valid one.
    #[error("failed to decode Protobuf message: more than {MAX_MESSAGE_FIELDS} fields")]
    TooManyFields,
}

/// Decodes a message. Fields of type `bytes` are slices of the input.
///
/// Takes memory proportional to `bytes`, and in addition for up to [`MAX_MESSAGE_FIELDS`] fields.
///
/// # Errors
/// Fails if the bytes are not such a message, or have too many fields.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, MessageError> {
    if has_too_many_fields(&bytes) {
        return Err(MessageError::TooManyFields);
    }
    Ok(M::decode(bytes)?)
}

/// Encodes a message.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_to_vec()
}

/// Whether the bytes have more fields than [`MAX_MESSAGE_FIELDS`]. The count ends at the first byte that is not
/// protobuf, and prost stops there or earlier.
fn has_too_many_fields(mut bytes: &[u8]) -> bool {
    for _ in 0..=MAX_MESSAGE_FIELDS {
        if skip_field(&mut bytes).is_none() {
            return false;
        }
    }
    true
}

/// Skips a field. The beginning and the end of a group count as one field each.
fn skip_field(bytes: &mut &[u8]) -> Option<()> {
    let length = match varint(bytes)? & 7 {
        0 => {
            varint(bytes)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(bytes)?).ok()?,
        3 | 4 => 0,
        5 => 4,
        _ => return None,
    };
    *bytes = bytes.get(length..)?;
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for position in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The codec of the generated client and server.
#[derive(Clone, Debug)]
pub(crate) struct BoundedCodec<T, U> {
    types: PhantomData<(T, U)>,
}

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for BoundedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder { message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder { message: PhantomData }
    }
}

/// Reserves a buffer of the message's size first. prost would grow the buffer and copy its content each time.
#[derive(Clone, Debug)]
pub(crate) struct SizedEncoder<M> {
    message: PhantomData<M>,
}

impl<M: Message> Encoder for SizedEncoder<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Decodes a received message with a bound on its fields.
#[derive(Clone, Debug)]
pub(crate) struct BoundedDecoder<M> {
    message: PhantomData<M>,
}

impl<M: Message + Default> Decoder for BoundedDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        // A slice of the frame, not a copy.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        // Same status as tonic's own decoder: `CallError` recognizes a malformed response by its text.
        decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
