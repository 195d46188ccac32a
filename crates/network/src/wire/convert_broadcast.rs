//! Conversion between frames of `Broadcast` and generated messages. Every received frame is converted and checked here.

use crate::wire::{
    CallError, Frame, FrameStream, Hello,
    broadcast::{Limit, check_author, check_counts},
    error::malformed,
    proto::{self, broadcast_author::Author as Kind},
};
use bytes::Bytes;
use futures::StreamExt;
use soma_types::{Author, Message, MessageId, PeerId, Signature, SignedMessage, Topic, limits::MAX_MESSAGE_BYTES};

/// The version of the frames. A hello has the latest version that its side speaks, and both use the lower one.
pub const VERSION: u32 = 1;

/// A payload that is at least this part of its frame is a slice of it. A smaller one is copied: otherwise one message
/// that is kept would keep a whole frame in memory.
const SLICED_PART: usize = 4;

/// Bytes of an id.
const ID_BYTES: usize = 32;

impl From<Hello> for proto::BroadcastFrame {
    fn from(hello: Hello) -> Self {
        let Hello { topic, max_message_bytes } = hello;
        let hello = proto::BroadcastHello { version: VERSION, topic: topic.number().into(), max_message_bytes };
        Self { hello: Some(hello), ..Self::default() }
    }
}

impl TryFrom<proto::BroadcastFrame> for Hello {
    type Error = CallError;

    fn try_from(frame: proto::BroadcastFrame) -> Result<Self, CallError> {
        let proto::BroadcastFrame { hello, .. } = &frame;
        let Some(hello) = *hello else { return Err(malformed("the first frame has no hello".into())) };
        if frame != (proto::BroadcastFrame { hello: Some(hello), ..Default::default() }) {
            return Err(malformed("the first frame has more than a hello".into()));
        }
        if hello.version == 0 {
            return Err(malformed("version 0 of Broadcast: the first one is 1".into()));
        }
        let topic = u8::try_from(hello.topic).ok().and_then(Topic::from_number);
        let topic = topic.ok_or_else(|| malformed(format!("topic {} is unknown", hello.topic)))?;
        Hello { topic, max_message_bytes: hello.max_message_bytes }.checked()
    }
}

impl From<Frame> for proto::BroadcastFrame {
    fn from(frame: Frame) -> Self {
        // Slices of one buffer, so all signatures take one allocation.
        let signatures: Vec<_> = frame.messages.iter().map(|message| message.signature().0).collect();
        let mut signatures = Bytes::from(signatures.into_flattened());
        let messages = frame.messages.into_iter().map(|signed| {
            let Message { epoch, author, payload, .. } = signed.into_message();
            let signature = signatures.split_to(Signature::BYTES);
            proto::BroadcastMessage { epoch, author: Some(author.into()), payload, signature }
        });
        Self {
            hello: None,
            messages: messages.collect(),
            have: joined(&frame.have),
            want: joined(&frame.want),
            do_not_send: joined(&frame.do_not_send),
            graft: frame.graft.into_iter().map(Into::into).collect(),
            prune: frame.prune.into_iter().map(Into::into).collect(),
        }
    }
}

impl Frame {
    /// Converts and checks a received frame. `own` is this side's hello.
    ///
    /// # Errors
    /// Fails if the frame is empty, exceeds a limit, or has a field of the wrong form.
    pub fn received(frame: proto::BroadcastFrame, own: Hello) -> Result<Self, CallError> {
        if frame.hello.is_some() {
            return Err(malformed("a second hello".into()));
        }
        let lists = [&frame.have, &frame.want, &frame.do_not_send].map(|list| list.len().div_ceil(ID_BYTES));
        check_counts(frame.messages.len(), lists, [frame.graft.len(), frame.prune.len()])?;
        let bytes: usize = frame.messages.iter().map(|message| message.payload.len()).sum();
        // Before anything is copied or hashed.
        if bytes > MAX_MESSAGE_BYTES {
            return Err(malformed(format!("{bytes} bytes of messages: at most {MAX_MESSAGE_BYTES} are allowed")));
        }
        let messages: Result<_, _> = frame.messages.into_iter().map(|it| message(it, own.topic, bytes)).collect();
        Self {
            messages: SignedMessage::new_each(messages?),
            have: ids(&frame.have)?,
            want: ids(&frame.want)?,
            do_not_send: ids(&frame.do_not_send)?,
            graft: frame.graft.into_iter().map(author).collect::<Result<_, _>>()?,
            prune: frame.prune.into_iter().map(author).collect::<Result<_, _>>()?,
        }
        .checked(own)
    }
}

/// A message of a frame with this many bytes of payloads.
fn message(
    message: proto::BroadcastMessage,
    topic: Topic,
    bytes_of_frame: usize,
) -> Result<(Message, Signature), CallError> {
    let proto::BroadcastMessage { epoch, author: from, payload, signature } = message;
    let signature = <[u8; Signature::BYTES]>::try_from(&*signature)
        .map_err(|_| malformed(format!("a signature has {} bytes, not {}", Signature::BYTES, signature.len())))?;
    let author = author(from.ok_or_else(|| malformed("a message without an author".into()))?)?;
    let is_large = payload.len() * SLICED_PART >= bytes_of_frame;
    let payload = if is_large { payload } else { Bytes::copy_from_slice(&payload) };
    Ok((Message { topic, epoch, author, payload }, Signature(signature)))
}

impl From<Author> for proto::BroadcastAuthor {
    fn from(author: Author) -> Self {
        let author = match author {
            Author::Authority(index) => Kind::Authority(index),
            Author::Peer(peer) => Kind::Peer(Bytes::copy_from_slice(&peer.0)),
        };
        Self { author: Some(author) }
    }
}

fn author(author: proto::BroadcastAuthor) -> Result<Author, CallError> {
    let author = match author.author {
        Some(Kind::Authority(index)) => Author::Authority(index),
        Some(Kind::Peer(peer)) => {
            let wrong = |_| malformed(format!("a peer id has 32 bytes, not {}", peer.len()));
            Author::Peer(PeerId(<[u8; 32]>::try_from(&*peer).map_err(wrong)?))
        }
        None => return Err(malformed("an author that is neither an authority nor a peer".into())),
    };
    check_author(&author)?;
    Ok(author)
}

fn joined(ids: &[MessageId]) -> Bytes {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    Bytes::from(ids.into_flattened())
}

fn ids(bytes: &[u8]) -> Result<Vec<MessageId>, CallError> {
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(malformed(format!("a list of ids has {} bytes, which is no multiple of {ID_BYTES}", bytes.len())));
    }
    Ok(ids.iter().copied().map(MessageId).collect())
}

/// Frames from the network, converted and checked.
pub(crate) fn received(frames: tonic::Streaming<proto::BroadcastFrame>, limit: Limit) -> FrameStream {
    frames.map(move |frame| Frame::received(frame?, limit.hello())).boxed()
}

/// The first frame from the network.
///
/// # Errors
/// Fails if there is none, or it is no hello.
pub(crate) async fn first_frame(frames: &mut tonic::Streaming<proto::BroadcastFrame>) -> Result<Hello, CallError> {
    let first = frames.message().await?.ok_or_else(|| malformed("a stream without a hello".into()))?;
    Hello::try_from(first)
}
