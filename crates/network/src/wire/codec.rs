//! From the bytes of a gRPC message to its generated type and back: protobuf, with a bound on what decoding makes of it.
//!
//! The length of a message is bounded by the transport. Of two bytes prost makes an empty entry of a list, which has
//! thirty times as many in memory: an answer of 12 MiB would take 400 MiB before anything could look at it. So the fields
//! are counted before the first is made.

use crate::wire::limits::MAX_MESSAGE_FIELDS;
use bytes::{Buf, Bytes};
use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not protobuf, or not of this message's form.
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
    /// More fields than any message has.
    #[error("failed to decode Protobuf message: more than {MAX_MESSAGE_FIELDS} fields")]
    TooManyFields,
}

/// Decodes a message; fields of type `bytes` are slices of it.
///
/// Takes memory in proportion to `bytes` and, beyond that, for [`MAX_MESSAGE_FIELDS`] fields.
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

/// Whether there are more fields than [`MAX_MESSAGE_FIELDS`], as far as the bytes are protobuf: prost stops where they
/// are not, or before.
fn has_too_many_fields(mut bytes: &[u8]) -> bool {
    for _ in 0..=MAX_MESSAGE_FIELDS {
        if skip_field(&mut bytes).is_none() {
            return false;
        }
    }
    true
}

/// Skips a field; the beginning and the end of a group count as one each.
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

/// What the generated client and server use.
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

/// Encodes into a buffer that is made as large as the message first: prost lets it grow, and copies what is there each time.
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

/// Decodes what has arrived.
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
        // As tonic's own decoder has it; `CallError` knows a malformed answer by its text.
        decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
