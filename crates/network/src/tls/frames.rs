//! Rate limits on the HTTP/2 frames of a peer.
//!
//! h2 answers each PING and each SETTINGS before it reads on. A flood of them takes no memory, but h2 answers as fast
//! as they come, without limit, and it logs some invalid frames. This module counts frames as they are read, and too
//! many end the connection (CVE-2019-9512, CVE-2019-9513, CVE-2019-9515). It also counts the frames of calls: admission
//! decides about each call, but a refusal has a cost too. A server earns its frames with the requests of this node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of the client's connection preface.
const PREFACE: usize = 24;

/// Bytes of a frame's header: length, type, flags and stream (RFC 9113, section 4.1).
const HEADER: usize = 9;

/// Types of frames (RFC 9113, section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// The flag of a PING that acknowledges one.
const ACK: u8 = 1;

/// Frames about the connection (PING, SETTINGS, GOAWAY, PRIORITY, unknown ones). An honest peer sends a few per minute.
const CONNECTION_FRAMES: Rate = Rate { per_second: 10, burst: 100 };

/// Acknowledgements of PINGs. This node sends a PING after 20 s of silence. h2 logs unsolicited acknowledgements.
const PING_ACKS: Rate = Rate { per_second: 1, burst: 5 };

/// All other frames of a caller: two or three per call. The fastest sync makes about 1,300 calls per second.
const CALL_FRAMES: Rate = Rate { per_second: 20_000, burst: 40_000 };

/// All other frames of a server, in addition to the frames that it earns.
const ANSWER_FRAMES: Rate = Rate { per_second: 100, burst: 1_000 };

/// DATA and WINDOW_UPDATE of a server while this node has a stream of `Broadcast` on the connection: as many as a caller
/// may send. The stream gives the server nothing else to earn them with.
const BROADCAST_FRAMES: Rate = CALL_FRAMES;

/// Frames that a server earns per request: a response has headers, trailers and a few small messages.
const EARNED_BY_REQUEST: u32 = 16;

/// Minimum size of a free DATA frame: flow control bounds larger ones.
pub(crate) const PAID_DATA: usize = 256;

/// DATA frames of any size that the HEADERS of a call pay for: a message, its rest, and its end.
const DATA_OF_CALL: u32 = 3;

/// Maximum credit of paid DATA frames: the frames of all open calls of a connection.
const MAX_PAID_DATA: u32 = 64 * DATA_OF_CALL;

/// A rate, and how many may come at once.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A token bucket, stored as the time at which it is full again.
pub(crate) struct Bucket {
    rate: Rate,
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    fn each(&self) -> Duration {
        Duration::from_secs(1) / self.rate.per_second
    }

    /// Takes a token, even if none is left. Returns whether one was left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.full_at = self.full_at.max(now) + self.each();
        self.full_at <= now + self.each() * self.rate.burst
    }

    /// Returns tokens. The bucket may hold up to twice its burst.
    fn put(&mut self, now: Instant, tokens: u32) {
        let most = now.checked_sub(self.each() * self.rate.burst).unwrap_or(now);
        self.full_at = self.full_at.checked_sub(self.each() * tokens).unwrap_or(now).max(most);
    }
}

/// Finds frame headers in a stream of bytes.
struct Parser {
    /// Remaining bytes of the preface or of a payload.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
}

struct Header {
    kind: u8,
    flags: u8,
    len: usize,
}

impl Parser {
    fn new(skip: usize) -> Self {
        Self { skip, header: [0; HEADER], filled: 0 }
    }

    /// Consumes bytes up to the end of the next header.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let rest = &bytes[skipped..];
        let taken = (HEADER - self.filled).min(rest.len());
        self.header[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
        self.filled += taken;
        *bytes = &rest[taken..];
        if self.filled < HEADER {
            return None;
        }
        self.filled = 0;
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Header { kind, flags, len: self.skip })
    }
}

/// The streams of `Broadcast` that this node has open on a connection to a server.
#[derive(Default)]
pub(crate) struct OpenStreams(AtomicUsize);

impl OpenStreams {
    /// Counts a stream until the result is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenStream {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    fn are_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A stream that is open.
pub(crate) struct OpenStream(Arc<OpenStreams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the frames of the peer of a connection as they are read.
pub(crate) struct Frames {
    read: Parser,
    connection: Bucket,
    ping_acks: Bucket,
    calls: Bucket,
    /// DATA frames that calls have paid for.
    paid_data: u32,
    /// The frames that this node writes, if it is the caller.
    written: Option<Parser>,
    /// The caller's streams of `Broadcast`.
    streams: Arc<OpenStreams>,
    /// The frames of these streams.
    broadcast: Bucket,
}

/// The peer sent too many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    /// Frames of a kind or number that no honest peer sends.
    #[error("the peer floods this connection with {0} frames")]
    Hostile(&'static str),
    /// Frames of calls. The caller may only be too fast.
    #[error("the peer makes more calls than this connection takes")]
    Calls,
}

impl Frames {
    /// The counter of a connection that a peer made, before its first byte.
    pub(crate) fn of_caller() -> Self {
        Self::new(PREFACE, CALL_FRAMES, None, Arc::default())
    }

    /// The counter of a connection that this node made, before its first byte.
    pub(crate) fn of_server(streams: Arc<OpenStreams>) -> Self {
        Self::new(0, ANSWER_FRAMES, Some(Parser::new(PREFACE)), streams)
    }

    fn new(preface: usize, calls: Rate, written: Option<Parser>, streams: Arc<OpenStreams>) -> Self {
        let now = Instant::now();
        Self {
            read: Parser::new(preface),
            connection: Bucket::new(CONNECTION_FRAMES, now),
            ping_acks: Bucket::new(PING_ACKS, now),
            calls: Bucket::new(calls, now),
            paid_data: 0,
            written,
            streams,
            broadcast: Bucket::new(BROADCAST_FRAMES, now),
        }
    }

    /// Counts the frames that begin in the next read bytes. Returns their number without the free ones.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<u32, Flood> {
        let now = Instant::now();
        let mut frames = 0;
        while let Some(header) = self.read.next(&mut bytes) {
            frames += u32::from(self.count(&header, now)?);
        }
        Ok(frames)
    }

    /// Counts the requests in the next written bytes.
    pub(crate) fn wrote(&mut self, mut bytes: &[u8]) {
        let Some(written) = &mut self.written else { return };
        while let Some(header) = written.next(&mut bytes) {
            if header.kind == kind::HEADERS {
                self.calls.put(Instant::now(), EARNED_BY_REQUEST);
            }
        }
    }

    /// Counts one frame. Returns whether it costs anything.
    fn count(&mut self, header: &Header, now: Instant) -> Result<bool, Flood> {
        let is_server = self.written.is_some();
        if header.kind == kind::HEADERS {
            // Unused credit does not add up without limit.
            self.paid_data = self.paid_data.min(MAX_PAID_DATA) + DATA_OF_CALL;
        }
        let (bucket, flood) = match header.kind {
            kind::DATA if header.len >= PAID_DATA => return Ok(false),
            kind::DATA if !is_server && self.paid_data > 0 => {
                self.paid_data -= 1;
                return Ok(false);
            }
            kind::DATA | kind::WINDOW_UPDATE if is_server && self.streams.are_any() => {
                (&mut self.broadcast, Flood::Calls)
            }
            kind::DATA | kind::HEADERS | kind::RST_STREAM | kind::WINDOW_UPDATE | kind::CONTINUATION if is_server => {
                (&mut self.calls, Flood::Hostile("answer"))
            }
            kind::DATA | kind::HEADERS | kind::RST_STREAM | kind::WINDOW_UPDATE | kind::CONTINUATION => {
                (&mut self.calls, Flood::Calls)
            }
            kind::PING if header.flags & ACK != 0 => (&mut self.ping_acks, Flood::Hostile("PING ACK")),
            _ => (&mut self.connection, Flood::Hostile("connection")),
        };
        if bucket.take(now) { Ok(true) } else { Err(flood) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        flagged(kind, 0, len)
    }

    fn flagged(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let [_, a, b, c] = (len as u32).to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 0];
        frame.resize(HEADER + len, 0xff);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::of_caller();
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn flood_is_noticed_for_any_split_of_its_bytes() {
        let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for number in 0..CONNECTION_FRAMES.burst as usize {
            flood.extend(frame(6, 8));
            flood.extend(frame(0, number * 7));
        }
        for cut in [1, 2, 8, 9, 10, 100, 16_384] {
            let mut frames = Frames::of_caller();
            for bytes in flood.chunks(cut) {
                assert!(frames.read(bytes).is_ok());
            }
            assert_eq!(frames.read(&frame(6, 8)), Err(Flood::Hostile("connection")), "cut in {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_pings_sometimes_and_calls_fast_is_never_ended() {
        let mut frames = begun();
        for _ in 0..200 {
            advance(Duration::from_secs(1)).await;
            frames.read(&frame(6, 8)).unwrap();
            frames.read(&frame(4, 6)).unwrap();
            for _ in 0..2_000 {
                frames.read(&frame(1, 300)).unwrap();
                frames.read(&frame(0, 100)).unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endless_calls_and_resets_are_a_flood() {
        let mut frames = begun();
        let pair = [frame(1, 300), frame(3, 4)].concat();
        let sent = (0..100_000).take_while(|_| frames.read(&pair).is_ok()).count();
        assert_eq!(sent, CALL_FRAMES.burst as usize / 2);
    }

    /// Number of these frames until the connection ends, and the reason.
    fn taken(frames: &mut Frames, frame: &[u8]) -> (u32, Flood) {
        for number in 0..200_000 {
            if let Err(flood) = frames.read(frame) {
                return (number, flood);
            }
        }
        panic!("no end");
    }

    #[tokio::test(start_paused = true)]
    async fn unsolicited_ping_acks_end_both_kinds_of_connections_after_a_few() {
        let ack = flagged(kind::PING, ACK, 8);
        assert_eq!(taken(&mut begun(), &ack), (PING_ACKS.burst, Flood::Hostile("PING ACK")));
        assert_eq!(taken(&mut Frames::of_server(Arc::default()), &ack), (PING_ACKS.burst, Flood::Hostile("PING ACK")));
    }

    #[tokio::test(start_paused = true)]
    async fn endless_frames_of_any_kind_end_a_connection_to_a_server() {
        for kind in 0..=255 {
            let (sent, flood) = taken(&mut Frames::of_server(Arc::default()), &frame(kind, 8));
            assert!(sent <= ANSWER_FRAMES.burst && matches!(flood, Flood::Hostile(_)), "kind {kind}: {sent}, {flood}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_only_answers_requests_is_never_ended() {
        let mut frames = Frames::of_server(Arc::default());
        frames.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..20_000 {
            frames.wrote(&[frame(kind::HEADERS, 300), frame(kind::DATA, 100)].concat());
            // Headers, a small message, room for the next request, a large message and trailers.
            let answer = [(1, 80), (0, 20), (8, 4), (8, 4), (0, 16_384), (0, 16_384), (1, 40)];
            for (kind, len) in answer {
                frames.read(&frame(kind, len)).unwrap();
            }
        }
        // Unused credit does not add up.
        let (sent, _) = taken(&mut frames, &frame(kind::RST_STREAM, 4));
        assert!(sent <= 2 * ANSWER_FRAMES.burst, "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn server_may_send_small_frames_while_a_stream_of_broadcast_is_open() {
        let streams = Arc::<OpenStreams>::default();
        let mut frames = Frames::of_server(streams.clone());
        let stream = streams.open();
        for _ in 0..100 {
            advance(Duration::from_secs(1)).await;
            for _ in 0..BROADCAST_FRAMES.per_second / 2 {
                frames.read(&frame(kind::DATA, 100)).unwrap();
                frames.read(&frame(kind::WINDOW_UPDATE, 4)).unwrap();
            }
        }
        advance(Duration::from_secs(10)).await;
        assert_eq!(taken(&mut frames, &frame(kind::DATA, 0)), (BROADCAST_FRAMES.burst, Flood::Calls));
        let (sent, flood) = taken(&mut frames, &frame(kind::RST_STREAM, 4));
        assert!(sent <= ANSWER_FRAMES.burst && matches!(flood, Flood::Hostile(_)), "{sent}, {flood}");
        drop(stream);
        let mut frames = Frames::of_server(streams);
        assert_eq!(taken(&mut frames, &frame(kind::DATA, 0)), (ANSWER_FRAMES.burst, Flood::Hostile("answer")));
    }
}
