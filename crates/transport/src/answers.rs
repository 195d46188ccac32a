//! Answers that wait to be read, and what becomes of those who do not read them.
//!
//! HTTP/2 lets a caller ask on many streams and take nothing: answers then wait here, whole, for as long as the
//! connection lives. So each connection has room for so many bytes, all have room for so many together, and each
//! answer has a time.
//!
//! ```text
//!   large call --> room of its connection --> its turn --> answered --> unread --> taken, reset or ended: freed
//!                  (waits)                    (waits)                     |
//!                                              too long, or all have too much and this connection has most: hung up
//! ```
//!
//! Of a stream of blocks, the message that HTTP/2 has not taken yet counts as unread. Behind it the service has one or
//! two more.
//!
//! The lock is of this listener's book-keeping alone: nobody waits while holding it.

use crate::ConnectionId;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use soma_wire::limits::{MAX_KNOWN_PEERS, MAX_RESPONSE_BYTES, MESSAGE_OVERHEAD_BYTES};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;

/// Bytes that one connection may have asked for in large answers and not read: five of the largest, so that one that
/// reads never waits for itself.
const UNREAD_PER_CONNECTION: usize = 64 << 20;

/// Bytes that all connections of a listener together may leave unread. Beyond, the one that has most is hung up.
const UNREAD_IN_ALL: usize = 256 << 20;

/// Large answers that are made at the same moment, each of up to [`MAX_RESPONSE_BYTES`].
const MADE_AT_ONCE: usize = 8;

/// How long one answer may take from its first byte to its last: five seconds beyond what any caller waits for one,
/// after which an honest one has reset the stream.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(35);

/// Bytes in one piece of an answer. HTTP/2 takes a piece when the one before has gone, so that a whole answer is not
/// on its way before a byte of it has been taken.
const PIECE: usize = 64 << 10;

/// The last piece. When HTTP/2 takes it, the peer has made room for all that came before; from then on the answer is
/// HTTP/2's alone, and nobody watches it any more.
const LAST_PIECE: usize = 1 << 10;

/// Room is counted in these.
const UNIT: usize = 1 << 10;

/// The most that an answer with known peers takes.
pub(crate) const KNOWN_PEERS_BYTES: usize =
    (MAX_KNOWN_PEERS + 1) * soma_types::limits::MAX_NODE_INFO_BYTES + MESSAGE_OVERHEAD_BYTES;

/// What may be left unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) per_connection: usize,
    pub(crate) in_all: usize,
    pub(crate) time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_connection: UNREAD_PER_CONNECTION, in_all: UNREAD_IN_ALL, time: ANSWER_TIME }
    }
}

/// What the readers of one listener have not read.
pub(crate) struct Answers {
    limits: Limits,
    turns: Arc<Semaphore>,
    unread: Mutex<BTreeMap<ConnectionId, Unread>>,
}

struct Unread {
    bytes: usize,
    hang_up: CancellationToken,
}

impl Answers {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, turns: Arc::new(Semaphore::new(MADE_AT_ONCE)), unread: Mutex::default() })
    }

    /// The one at the other end of a connection, which `hang_up` ends.
    pub(crate) fn reader(self: &Arc<Self>, connection: ConnectionId, hang_up: CancellationToken) -> Reader {
        let room = Arc::new(Semaphore::new(self.limits.per_connection.max(MAX_RESPONSE_BYTES) / UNIT));
        Reader { answers: self.clone(), connection, hang_up, room }
    }

    fn add(&self, reader: &Reader, bytes: usize) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = unread.entry(reader.connection);
        entry.or_insert_with(|| Unread { bytes: 0, hang_up: reader.hang_up.clone() }).bytes += bytes;
        while unread.values().map(|unread| unread.bytes).sum::<usize>() > self.limits.in_all {
            let most = unread.iter().max_by_key(|(_, unread)| unread.bytes).map(|(connection, _)| *connection);
            // What it holds is freed as HTTP/2 drops it, and counts no more.
            let Some(most) = most.and_then(|connection| unread.remove(&connection)) else { return };
            tracing::debug!(bytes = most.bytes, "hung up: too much is unread, and this connection has most of it");
            most.hang_up.cancel();
        }
    }

    fn remove(&self, connection: ConnectionId, bytes: usize) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that was hung up for what it had not read is not here any more.
        if let Some(entry) = unread.get_mut(&connection) {
            entry.bytes = entry.bytes.saturating_sub(bytes);
            if entry.bytes == 0 {
                unread.remove(&connection);
            }
        }
    }
}

/// The one who is to read the answers of a connection.
#[derive(Clone)]
pub(crate) struct Reader {
    answers: Arc<Answers>,
    connection: ConnectionId,
    hang_up: CancellationToken,
    room: Arc<Semaphore>,
}

impl Reader {
    /// Waits until an answer of up to `most` bytes may be made.
    pub(crate) async fn expect(&self, most: usize) -> Option<Expected> {
        let units = u32::try_from(most.div_ceil(UNIT)).ok()?;
        // Nobody closes the semaphores.
        let room = self.room.clone().acquire_many_owned(units).await.ok()?;
        let turn = self.answers.turns.clone().acquire_owned().await.ok()?;
        Some(Expected { reader: self.clone(), room, _turn: turn })
    }

    /// Watches the body of an answer until it is taken.
    pub(crate) fn watch(&self, body: Body, held: Option<Arc<Held>>) -> Body {
        let taken = CancellationToken::new();
        let (time, hang_up, seen) = (self.answers.limits.time, self.hang_up.clone(), taken.clone());
        tokio::spawn(async move {
            if timeout(time, seen.cancelled()).await.is_err() {
                tracing::debug!("hung up: an answer was neither read nor given up in time");
                hang_up.cancel();
            }
        });
        let (rest, reader, _taken) = (Bytes::new(), self.clone(), taken.drop_guard());
        Body::new(AnswerBody { body, rest, counted: 0, reader, held, _taken })
    }
}

/// Leave to make one large answer.
pub(crate) struct Expected {
    reader: Reader,
    room: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Expected {
    /// The answer has `bytes`, and waits to be read until this is dropped.
    pub(crate) fn made(mut self, bytes: usize) -> Arc<Held> {
        let surplus = self.room.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(self.room.split(surplus));
        self.reader.answers.add(&self.reader, bytes);
        Arc::new(Held { reader: self.reader, bytes, _room: self.room })
    }
}

/// An answer that is not read yet. It travels with the response to where its body is watched.
pub(crate) struct Held {
    reader: Reader,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reader.answers.remove(self.reader.connection, self.bytes);
    }
}

/// An answer in pieces, whose end is noticed.
struct AnswerBody {
    body: Body,
    /// What HTTP/2 has not taken yet of the last message.
    rest: Bytes,
    /// What is counted of it: nothing where the whole answer is counted.
    counted: usize,
    reader: Reader,
    held: Option<Arc<Held>>,
    _taken: DropGuard,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl AnswerBody {
    /// The last message has so many bytes, the one before is gone.
    fn count(&mut self, bytes: usize) {
        let Reader { answers, connection, .. } = &self.reader;
        if self.counted > 0 {
            answers.remove(*connection, self.counted);
        }
        // Small ones are many, and matter to nobody.
        self.counted = if self.held.is_none() && bytes > LAST_PIECE { bytes } else { 0 };
        if self.counted > 0 {
            answers.add(&self.reader, self.counted);
        }
    }

    fn piece(&mut self) -> Bytes {
        if self.rest.len() > LAST_PIECE {
            let len = (self.rest.len() - LAST_PIECE).min(PIECE);
            return self.rest.split_to(len);
        }
        // A copy: a part would keep the whole alive.
        Bytes::copy_from_slice(&std::mem::take(&mut self.rest))
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if self.rest.is_empty() {
            self.count(0);
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.count(data.len());
                        self.rest = data;
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}
