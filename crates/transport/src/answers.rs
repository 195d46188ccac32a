//! Answers that wait to be read, and what becomes of those who do not read them.
//!
//! HTTP/2 lets a caller ask on many streams and take nothing: answers then wait here, whole, for as long as the
//! connection lives. So each connection has room for so many bytes, all have room for so many together, and each
//! answer has a time. A connection that leaves answers unread and takes next to nothing of them is ended long before.
//!
//! ```text
//!   large call --> room of its connection --> its turn --> answered --> unread --> taken, reset or ended: freed
//!                  (waits)                    (waits)                     |
//!                                              no progress, too long, or all have too much: hung up
//! ```
//!
//! Of a stream of blocks, the message that HTTP/2 has not taken yet counts as unread. Behind it the service has one or
//! two more.
//!
//! The lock is of this listener's book-keeping alone: nobody waits while holding it.

use crate::{ConnectionId, watched_io::Ends};
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
    time::{Instant, sleep, timeout},
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

/// Bytes in a second that a connection has to take while it leaves answers unread.
const MIN_READ_RATE: usize = 8 << 10;

/// Time over which that is measured: it has to take one piece at least.
const STALL_WINDOW: Duration = Duration::from_secs(8);

/// Time without a piece taken after which a connection is the first to go when all together leave too much unread.
const STALLED_AFTER: Duration = Duration::from_secs(1);

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
    /// Bytes that were taken since progress was last looked at.
    taken: usize,
    /// When something was last taken, or the first of these answers was made.
    taken_at: Instant,
    ends: Ends,
    /// Ends the watch over its progress.
    _gone: DropGuard,
}

impl Unread {
    fn is_stalled(&self, now: Instant) -> bool {
        now.duration_since(self.taken_at) >= STALLED_AFTER
    }
}

impl Answers {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, turns: Arc::new(Semaphore::new(MADE_AT_ONCE)), unread: Mutex::default() })
    }

    /// The one at the other end of a connection, which ends so.
    pub(crate) fn reader(self: &Arc<Self>, connection: ConnectionId, ends: Ends) -> Reader {
        let room = Arc::new(Semaphore::new(self.limits.per_connection.max(MAX_RESPONSE_BYTES) / UNIT));
        Reader { answers: self.clone(), connection, ends, room }
    }

    fn add(self: &Arc<Self>, reader: &Reader, bytes: usize) {
        let now = Instant::now();
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = unread.entry(reader.connection).or_insert_with(|| {
            let gone = CancellationToken::new();
            tokio::spawn(self.clone().watch_progress(reader.connection, gone.clone()));
            Unread { bytes: 0, taken: 0, taken_at: now, ends: reader.ends.clone(), _gone: gone.drop_guard() }
        });
        entry.bytes += bytes;
        while unread.values().map(|unread| unread.bytes).sum::<usize>() > self.limits.in_all {
            // An honest peer reads, however much it has asked for.
            let first = unread.iter().max_by_key(|(_, unread)| (unread.is_stalled(now), unread.bytes));
            // What it holds is freed as HTTP/2 drops it, and counts no more.
            let first = first.map(|(connection, _)| *connection);
            let Some(first) = first.and_then(|connection| unread.remove(&connection)) else { return };
            tracing::debug!(bytes = first.bytes, "hung up: too much is unread, and this connection is first to go");
            if first.is_stalled(now) {
                first.ends.stalled.cancel();
            }
            first.ends.hang_up.cancel();
        }
    }

    /// Ends the connection if it takes next to nothing while it leaves answers unread; until its entry is `gone`.
    async fn watch_progress(self: Arc<Self>, connection: ConnectionId, gone: CancellationToken) {
        while gone.run_until_cancelled(sleep(STALL_WINDOW)).await.is_some() {
            let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have gone meanwhile, and another have come.
            let Some(entry) = unread.get_mut(&connection).filter(|_| !gone.is_cancelled()) else { return };
            let taken = std::mem::take(&mut entry.taken);
            if taken < MIN_READ_RATE * STALL_WINDOW.as_secs() as usize {
                tracing::debug!(bytes = entry.bytes, taken, "hung up: answers are left unread");
                entry.ends.stalled.cancel();
                entry.ends.hang_up.cancel();
                unread.remove(&connection);
                return;
            }
        }
    }

    /// HTTP/2 has taken so many bytes.
    fn took(&self, connection: ConnectionId, bytes: usize) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = unread.get_mut(&connection) {
            (entry.taken, entry.taken_at) = (entry.taken + bytes, Instant::now());
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
    ends: Ends,
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
        let (time, hang_up, seen) = (self.answers.limits.time, self.ends.hang_up.clone(), taken.clone());
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
        let piece = self.piece();
        self.reader.answers.took(self.reader.connection, piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const MIB: usize = 1 << 20;

    /// A connection on which an answer of so many bytes waits to be read.
    async fn unread(answers: &Arc<Answers>, number: u64, bytes: usize) -> (Ends, Arc<Held>) {
        let ends = Ends::default();
        let reader = answers.reader(ConnectionId(number), ends.clone());
        let held = reader.expect(bytes).await.unwrap().made(bytes);
        (ends, held)
    }

    /// Lets time pass, and with it what waits for it.
    async fn pass(time: Duration) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        advance(time).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_takes_nothing_is_ended_and_one_that_takes_a_piece_in_time_is_not() {
        let answers = Answers::new(Limits::default());
        let (silent, _unread) = unread(&answers, 1, MIB).await;
        let (slow, _slowly_read) = unread(&answers, 2, MIB).await;
        for _ in 0..10 {
            pass(STALL_WINDOW / 2).await;
            answers.took(ConnectionId(2), PIECE);
        }
        assert!(silent.hang_up.is_cancelled() && silent.stalled.is_cancelled());
        assert!(!slow.hang_up.is_cancelled() && !slow.stalled.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn connection_whose_answers_are_read_is_not_watched_any_more() {
        let answers = Answers::new(Limits::default());
        for _ in 0..3 {
            let (ends, held) = unread(&answers, 1, MIB).await;
            pass(STALL_WINDOW / 2).await;
            drop(held);
            pass(STALL_WINDOW).await;
            assert!(!ends.hang_up.is_cancelled());
        }
        assert!(answers.unread.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_go_is_one_that_reads_nothing_and_not_one_that_has_asked_for_most() {
        let answers = Answers::new(Limits { in_all: 10 * MIB, ..Limits::default() });
        let (silent, _unread) = unread(&answers, 1, MIB).await;
        let (busy, _read) = unread(&answers, 2, 8 * MIB).await;
        pass(STALLED_AFTER).await;
        answers.took(ConnectionId(2), PIECE);
        let (newcomer, _unread) = unread(&answers, 3, 2 * MIB).await;
        assert!(silent.hang_up.is_cancelled() && silent.stalled.is_cancelled());
        assert!(!busy.hang_up.is_cancelled() && !newcomer.hang_up.is_cancelled());
        // Among those that read the one with most goes, which is nothing against its peer.
        let (_, _unread) = unread(&answers, 4, 2 * MIB).await;
        assert!(busy.hang_up.is_cancelled() && !busy.stalled.is_cancelled());
    }
}
