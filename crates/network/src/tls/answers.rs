//! Back-pressure on responses: limits on unread bytes, and the end of connections that do not read.
//!
//! In HTTP/2 a caller can open many streams and read nothing. Whole responses then wait here while the connection
//! lives. Each response therefore reserves room before it is made, all responses share one budget, and each has a
//! deadline. A connection that leaves responses unread and reads almost nothing is ended long before the deadline.
//!
//! ```text
//!   call --> room and turn --> made --> unread --> sent, reset or ended: freed
//!            (waits)                      |
//!                 no progress, too slow while others wait, or deadline: hung up
//! ```
//!
//! Strangers leave a quarter of the budget to known peers. A connection gets more room only while it holds less than
//! what is free. So one greedy connection gets half, two get a third each, and a newcomer always finds room.
//!
//! A stream of blocks makes one message at a time, and the next when HTTP/2 has taken the previous one. A message
//! counts until its last byte has left for the socket.
//!
//! Frames of `Broadcast` share the budget ([`frame_bodies`](super::frame_bodies)). They have no deadline, and alone they
//! never end a connection: a peer may leave a topic unread for as long as others do not need the room.
//!
//! The lock guards only this listener's accounting, and no task waits while it holds the lock.

mod limits;

pub(crate) use limits::Limits;

use crate::wire::limits::{MAX_KNOWN_PEERS, MESSAGE_OVERHEAD_BYTES};
use crate::{ConnectionId, ends::Ends, standing::Standing};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use soma_types::limits::MAX_BLOCK_BYTES;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;

/// Strangers leave one part in this many of the budget to known peers.
const PART_OF_KNOWN: usize = 4;

/// Large responses that are made at the same time. Each has at most 12 MiB.
pub(crate) const MADE_AT_ONCE: usize = 4;

/// Minimum room for a response with commits. A connection waits for this much. If less than the requested size is free,
/// the response has fewer commits.
pub(crate) const LEAST_ROOM: usize = 1 << 20;

/// Room for a message with blocks, reserved before its length is known.
pub(crate) const BLOCKS_ROOM: usize = MAX_BLOCK_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Minimum read rate, in bytes per second, of a connection with unread responses.
const MIN_READ_RATE: usize = 8 << 10;

/// The window of the minimum read rate, in which a connection must read at least one piece.
const STALL_WINDOW: Duration = Duration::from_secs(8);

/// Time without progress after which a connection counts as stalled. Stalled connections are ended first when others
/// wait for room.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Connections that need longer than this for the rest, at their read rate so far, are ended next.
const SLOW_REST: Duration = Duration::from_secs(5);

/// Interval of checks for free room, or for a connection to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes per piece of a response. HTTP/2 takes a piece when the previous one has been sent, so a response is never in
/// flight as a whole before its first byte is taken.
const PIECE: usize = 64 << 10;

/// The same for frames of `Broadcast`. An urgent topic waits for a piece of each other stream.
const FRAME_PIECE: usize = 16 << 10;

/// Longest response that is not counted: small responses are frequent and negligible.
const SMALL: usize = 1 << 10;

/// Maximum size of a response with known peers.
pub(crate) const KNOWN_PEERS_BYTES: usize =
    (MAX_KNOWN_PEERS + 1) * soma_types::limits::MAX_NODE_INFO_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Unread responses of all connections of one listener.
pub(crate) struct Answers {
    limits: Limits,
    turns: Arc<Semaphore>,
    unread: Mutex<Connections>,
    freed: Notify,
}

/// Unread bytes of each connection.
type Connections = BTreeMap<ConnectionId, Unread>;

/// What bytes belong to.
#[derive(Clone, Copy)]
enum Kind {
    Answer,
    Frame,
}

struct Unread {
    /// Bytes of responses.
    answers: usize,
    /// Bytes of frames of `Broadcast`, in both directions.
    frames: usize,
    /// When the first of these responses was made.
    since: Instant,
    /// Bytes sent since then.
    sent: usize,
    /// Bytes sent since the last check of progress.
    lately: usize,
    /// When bytes were last sent, or the first of these responses was made.
    sent_at: Instant,
    standing: Standing,
    ends: Ends,
    /// Ends the task that watches the progress.
    _gone: DropGuard,
}

impl Unread {
    fn new(reader: &Reader, gone: CancellationToken) -> Self {
        let now = Instant::now();
        let (standing, ends) = (reader.standing.clone(), reader.ends.clone());
        let _gone = gone.drop_guard();
        Self { answers: 0, frames: 0, since: now, sent: 0, lately: 0, sent_at: now, standing, ends, _gone }
    }

    fn bytes(&self) -> usize {
        self.answers + self.frames
    }

    fn of(&mut self, kind: Kind) -> &mut usize {
        if let Kind::Frame = kind { &mut self.frames } else { &mut self.answers }
    }

    fn is_ended(&self) -> bool {
        self.ends.hang_up.is_cancelled()
    }

    fn is_stalled(&self, now: Instant) -> bool {
        now.duration_since(self.sent_at) >= STALLED_AFTER
    }

    /// Expected time for the rest, at the peer's read rate so far. Zero for a connection that has just begun.
    fn rest(&self, now: Instant) -> Duration {
        let time = now.duration_since(self.since);
        if time < STALLED_AFTER {
            return Duration::ZERO;
        }
        time.mul_f64(self.bytes() as f64 / self.sent.max(1) as f64)
    }

    fn hang_up(&self, why: &str) {
        tracing::debug!(bytes = self.bytes(), sent = self.sent, "hung up: {why}");
        self.ends.hang_up.cancel();
    }
}

/// The connection to end when others wait for room. Strangers come first, and no known peer is ended for a stranger.
/// Then stalled connections come first, then the slowest if it needs too long. An honest peer reads, so it is safe
/// however much it requests. The waiting connection is excluded: it already has its share.
fn first_to_go<'a>(unread: &'a Connections, waits: &Reader, now: Instant) -> Option<&'a Unread> {
    let slow = |unread: &&Unread| unread.is_stalled(now) || unread.rest(now) > SLOW_REST;
    let order = |unread: &&Unread| {
        (unread.standing.is_stranger(), unread.is_stalled(now), unread.rest(now), Reverse(unread.since))
    };
    let for_stranger = waits.standing.is_stranger();
    let others = unread.iter().filter(|(connection, _)| **connection != waits.connection).map(|(_, unread)| unread);
    let others = others.filter(|unread| !unread.is_ended() && (!for_stranger || unread.standing.is_stranger()));
    others.filter(slow).max_by_key(order)
}

impl Answers {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(MADE_AT_ONCE));
        Arc::new(Self { limits, turns, unread: Mutex::default(), freed: Notify::new() })
    }

    /// The reader at the other end of a connection.
    pub(crate) fn reader(self: &Arc<Self>, connection: ConnectionId, ends: Ends, standing: Standing) -> Reader {
        Reader { answers: self.clone(), connection, ends, standing }
    }

    /// Unread and reserved bytes of all connections.
    pub(crate) fn bytes(&self) -> usize {
        self.unread().values().map(|unread| unread.bytes()).sum()
    }

    fn unread(&self) -> MutexGuard<'_, Connections> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for a response of `least` to `most` bytes, if there is enough.
    fn take_room(self: &Arc<Self>, reader: &Reader, kind: Kind, least: usize, most: usize) -> Option<usize> {
        let mut unread = self.unread();
        let all: usize = unread.values().map(|unread| unread.bytes()).sum();
        let mut free = self.limits.in_all.saturating_sub(all);
        if reader.standing.is_stranger() {
            let strangers = unread.values().filter(|unread| unread.standing.is_stranger());
            let theirs: usize = strangers.map(|unread| unread.bytes()).sum();
            free = free.min((self.limits.in_all - self.limits.in_all / PART_OF_KNOWN).saturating_sub(theirs));
        }
        let own = unread.get(&reader.connection).map_or(0, |unread| unread.bytes());
        let room = free.saturating_sub(own).min(most);
        if room < least {
            let now = Instant::now();
            // Wait for the memory of connections that are already hung up before another is ended.
            let freed: usize = unread.values().filter(|unread| unread.is_ended()).map(|unread| unread.bytes()).sum();
            if freed < least
                && let Some(first) = first_to_go(&unread, reader, now)
            {
                // Frames that are left unread are no fault: the peer may be busy with them.
                if first.is_stalled(now) && first.answers > 0 {
                    first.ends.stalled.cancel();
                }
                first.hang_up("other connections wait for its memory");
            }
            return None;
        }
        self.charge(&mut unread, reader, kind, room);
        Some(room)
    }

    fn charge(self: &Arc<Self>, unread: &mut Connections, reader: &Reader, kind: Kind, bytes: usize) {
        let entry = unread.entry(reader.connection).or_insert_with(|| {
            let gone = CancellationToken::new();
            tokio::spawn(self.clone().watch_progress(reader.connection, gone.clone()));
            Unread::new(reader, gone)
        });
        *entry.of(kind) += bytes;
    }

    /// Ends the connection if it reads almost nothing while responses are unread. Stops when its entry is `gone`.
    async fn watch_progress(self: Arc<Self>, connection: ConnectionId, gone: CancellationToken) {
        while gone.run_until_cancelled(sleep(STALL_WINDOW)).await.is_some() {
            let mut unread = self.unread();
            // The entry may be gone, and a new one may have its id.
            let Some(entry) = unread.get_mut(&connection).filter(|_| !gone.is_cancelled()) else { return };
            let lately = std::mem::take(&mut entry.lately);
            if entry.answers > 0 && lately < MIN_READ_RATE * STALL_WINDOW.as_secs() as usize {
                entry.ends.stalled.cancel();
                entry.hang_up("responses are left unread");
                return;
            }
        }
    }

    /// Counts bytes that have left for the socket.
    fn sent(&self, connection: ConnectionId, bytes: usize) {
        if let Some(entry) = self.unread().get_mut(&connection) {
            entry.sent += bytes;
            entry.lately += bytes;
            entry.sent_at = Instant::now();
        }
    }

    fn free(&self, connection: ConnectionId, kind: Kind, bytes: usize) {
        let mut unread = self.unread();
        if let Some(entry) = unread.get_mut(&connection) {
            let of_kind = entry.of(kind);
            *of_kind = of_kind.saturating_sub(bytes);
            if entry.bytes() == 0 {
                unread.remove(&connection);
            }
        }
        drop(unread);
        self.freed.notify_waiters();
    }
}

/// The reader of a connection's responses.
#[derive(Clone)]
pub(crate) struct Reader {
    answers: Arc<Answers>,
    connection: ConnectionId,
    ends: Ends,
    standing: Standing,
}

impl Reader {
    /// Waits for room and a turn to make a large response of `least` to `most` bytes.
    pub(crate) async fn reserve_large(&self, least: usize, most: usize) -> Option<Reservation> {
        let room = self.reserve(least, most).await;
        // The semaphore is never closed.
        let turn = self.answers.turns.clone().acquire_owned().await.ok()?;
        Some(Reservation { _turn: Some(turn), ..room })
    }

    /// Waits for room for a response of `least` to `most` bytes.
    pub(crate) async fn reserve(&self, least: usize, most: usize) -> Reservation {
        Reservation { room: self.wait_for_room(Kind::Answer, least, most).await, _turn: None }
    }

    /// Waits for room for a frame of this length, which is about to arrive.
    pub(crate) async fn reserve_frame(self, bytes: usize) -> Held {
        self.wait_for_room(Kind::Frame, bytes, bytes).await
    }

    /// Counts bytes of a frame that have arrived.
    pub(crate) fn progress(&self, bytes: usize) {
        self.answers.sent(self.connection, bytes);
    }

    async fn wait_for_room(&self, kind: Kind, least: usize, most: usize) -> Held {
        loop {
            let mut freed = pin!(self.answers.freed.notified());
            freed.as_mut().enable();
            if let Some(bytes) = self.answers.take_room(self, kind, least, most) {
                return Held { reader: self.clone(), kind, bytes };
            }
            // Check again after an interval too: each check may end a connection that blocks the room.
            let _ = timeout(LOOK_EVERY, freed).await;
        }
    }

    /// Watches the body of a response until it is taken.
    pub(crate) fn watch(&self, body: Body, made: Option<Made>) -> Body {
        let taken = CancellationToken::new();
        let (time, hang_up, seen) = (self.answers.limits.time, self.ends.hang_up.clone(), taken.clone());
        tokio::spawn(async move {
            if timeout(time, seen.cancelled()).await.is_err() {
                tracing::debug!("hung up: a response was neither read nor cancelled in time");
                hang_up.cancel();
            }
        });
        let (kind, rest, reader, _taken) = (Kind::Answer, Bytes::new(), self.clone(), Some(taken.drop_guard()));
        Body::new(AnswerBody { body, rest, reader, kind, piece: PIECE, held: None, made, _taken })
    }

    /// Counts the frames in the body of a response until they are sent.
    pub(crate) fn count_frames(&self, body: Body) -> Body {
        let (kind, rest, reader) = (Kind::Frame, Bytes::new(), self.clone());
        Body::new(AnswerBody { body, rest, reader, kind, piece: FRAME_PIECE, held: None, made: None, _taken: None })
    }

    /// Counts bytes that were not reserved.
    fn hold(&self, kind: Kind, bytes: usize) -> Held {
        self.answers.charge(&mut self.answers.unread(), self, kind, bytes);
        Held { reader: self.clone(), kind, bytes }
    }
}

/// Permission to make one response.
pub(crate) struct Reservation {
    room: Held,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Maximum bytes of the response.
    pub(crate) fn bytes(&self) -> usize {
        self.room.bytes
    }

    /// Declares the response's size. It counts as unread until the result is dropped.
    fn made(mut self, bytes: usize) -> Held {
        if bytes <= self.room.bytes {
            let surplus = self.room.bytes - bytes;
            self.room.bytes = bytes;
            self.room.reader.answers.free(self.room.reader.connection, Kind::Answer, surplus);
            self.room
        } else {
            // The response is longer than reserved.
            self.room.reader.hold(Kind::Answer, bytes)
        }
    }
}

/// Bytes of a message that have not left for the socket, or of a frame that has not arrived in full.
pub(crate) struct Held {
    reader: Reader,
    kind: Kind,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reader.answers.free(self.reader.connection, self.kind, self.bytes);
    }
}

/// The accounting of the next message. It travels with the response to the wrapper that watches the body.
#[derive(Clone, Default)]
pub(crate) struct Made(Arc<Mutex<Option<Held>>>);

impl Made {
    /// Sets the size of the next message.
    pub(crate) fn message(&self, reserved: Reservation, bytes: usize) {
        let held = reserved.made(bytes);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    fn take(&self) -> Option<Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A part of a message. HTTP/2 drops it when it has left for the socket. The last piece frees the memory of the whole
/// message.
struct Piece {
    bytes: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Reader { answers, connection, .. } = &self.held.reader;
        answers.sent(*connection, self.bytes.len());
    }
}

/// A response body in pieces, which counts its messages until they are sent.
struct AnswerBody {
    body: Body,
    /// The part of the current message that HTTP/2 has not taken.
    rest: Bytes,
    reader: Reader,
    kind: Kind,
    /// Bytes of a piece.
    piece: usize,
    /// Accounting of the current message.
    held: Option<Arc<Held>>,
    /// Accounting of the next message.
    made: Option<Made>,
    /// Ends the deadline of the response.
    _taken: Option<DropGuard>,
}

impl AnswerBody {
    /// Starts the next message.
    fn begin(&mut self, message: Bytes) {
        let held = self.made.as_ref().and_then(Made::take);
        let counted = || (message.len() > SMALL).then(|| self.reader.hold(self.kind, message.len()));
        self.held = held.or_else(counted).map(Arc::new);
        self.rest = message;
    }

    fn piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(self.piece));
        let held = if self.rest.is_empty() { self.held.take() } else { self.held.clone() };
        match held {
            Some(held) => Bytes::from_owner(Piece { bytes, held }),
            None => bytes,
        }
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
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(message) => self.begin(message),
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

#[cfg(test)]
mod tests;
