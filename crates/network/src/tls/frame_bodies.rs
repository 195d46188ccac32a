//! Memory of the frames of `Broadcast` on connections that peers made.
//!
//! A frame is decoded when it has arrived in full, so a peer could make this node hold a part of one on every stream.
//! A connection therefore has few streams, and a large frame waits for room in the budget of unread responses before it
//! is gathered. Meanwhile its bytes wait in the window of its stream, and other topics are not held up.
//!
//! ```text
//!   DATA --> small frame ------------------> tonic's decoder
//!        \-> large frame --> waits for room --/
//! ```

use super::answers::{Held, Reader};
use crate::wire::limits::MAX_FRAME_BYTES;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body::{Body as HttpBody, Frame};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;

/// Streams of frames of one connection: one for each topic, and as many that are about to end.
pub(crate) const MAX_STREAMS: usize = 6;

/// Longest frame that waits for no room. [`CONNECTION_BYTES`](super::CONNECTION_BYTES) has room for one on each stream.
pub(crate) const SMALL_FRAME: usize = 16 << 10;

/// Bytes of a gRPC message's header: a flag and the length.
const HEADER: usize = 5;

/// The body of a request with frames.
pub(crate) struct FramesBody {
    body: Body,
    reader: Reader,
    header: [u8; HEADER],
    /// Bytes of the header that have arrived.
    filled: usize,
    /// Bytes of the current frame that have not arrived.
    left: usize,
    /// Bytes that have arrived and are not passed on.
    rest: Bytes,
    waits: Option<BoxFuture<'static, Held>>,
    /// The room of the current frame, if it is large.
    held: Option<Held>,
    _stream: Arc<OwnedSemaphorePermit>,
}

impl FramesBody {
    pub(crate) fn new(body: Body, reader: Reader, stream: Arc<OwnedSemaphorePermit>) -> Self {
        let (header, rest) = ([0; HEADER], Bytes::new());
        Self { body, reader, header, filled: 0, left: 0, rest, waits: None, held: None, _stream: stream }
    }

    /// Bytes of `rest` before the last byte of a large frame's header, or all. The decoder makes room for a frame when
    /// it has the header.
    fn passable(&mut self) -> usize {
        let mut at = 0;
        while at < self.rest.len() {
            if self.left > 0 {
                let passed = self.left.min(self.rest.len() - at);
                self.left -= passed;
                at += passed;
                if self.held.is_some() {
                    self.reader.progress(passed);
                }
                if self.left == 0 {
                    self.held = None;
                }
                continue;
            }
            self.header[self.filled] = self.rest[at];
            self.filled += 1;
            if self.filled == HEADER {
                self.filled = 0;
                let [_, a, b, c, d] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                // The decoder refuses a longer one by its header.
                if (SMALL_FRAME + 1..=MAX_FRAME_BYTES).contains(&self.left) {
                    self.waits = Some(self.reader.clone().reserve_frame(self.left).boxed());
                    // Then the last byte of the header is passed on with the frame.
                    self.left += 1;
                    return at;
                }
            }
            at += 1;
        }
        at
    }
}

impl HttpBody for FramesBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            if let Some(waits) = &mut self.waits {
                self.held = Some(ready!(waits.poll_unpin(context)));
                self.waits = None;
            }
            if self.rest.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.rest = data,
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    },
                    other => return Poll::Ready(other),
                }
            }
            let passable = self.passable();
            if passable > 0 {
                let data = self.rest.split_to(passable);
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

/// Keeps a stream's place until its response ends.
pub(crate) struct Kept {
    pub(crate) body: Body,
    pub(crate) _stream: Arc<OwnedSemaphorePermit>,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
