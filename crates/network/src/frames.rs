//! How fast a peer sends HTTP/2 frames.
//!
//! h2 answers each PING and each SETTINGS before it reads on, so a flood of them takes no memory; but it answers for
//! ever, as fast as they come, and it logs some frames that make no sense. Here frames are counted as they are read, and too
//! many end the connection (CVE-2019-9512, CVE-2019-9513, CVE-2019-9515). So are frames of calls: what a peer may call is
//! decided for each call, but a refusal has a price, too. A server earns its frames with the requests that it is sent.

use std::time::Duration;
use tokio::time::Instant;

/// Bytes with which a client begins.
const PREFACE: usize = 24;

/// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
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

/// The flag of a PING that answers one.
const ACK: u8 = 1;

/// Frames about the connection (PING, SETTINGS, GOAWAY, PRIORITY, unknown ones): an honest peer sends a few in a minute.
const CONNECTION_FRAMES: Rate = Rate { per_second: 10, burst: 100 };

/// Answers to PINGs: this node sends one when a connection has been silent for 20 s. h2 logs those that answer none.
const PING_ACKS: Rate = Rate { per_second: 1, burst: 5 };

/// All other frames of a caller: two or three for each call. The fastest sync makes some 1,300 calls a second.
const CALL_FRAMES: Rate = Rate { per_second: 20_000, burst: 40_000 };

/// All other frames of a server, beside those that it earns.
const ANSWER_FRAMES: Rate = Rate { per_second: 100, burst: 1_000 };

/// Frames that a server earns with each request that it is sent: an answer has headers, trailers and a few small messages.
const EARNED_BY_REQUEST: u32 = 16;

/// Bytes from which DATA costs nothing: flow control bounds what may be sent of it.
const PAID_DATA: usize = 256;

/// Frames of DATA, however small, that are paid for with the HEADERS of a call: of a message, its rest, and its end.
const DATA_OF_CALL: u32 = 3;

/// The most of them that add up: those of all calls that a connection may have open.
const MAX_PAID_DATA: u32 = 64 * DATA_OF_CALL;

#[derive(Clone, Copy)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// A token bucket, kept as the time at which it is full again.
struct Bucket {
    rate: Rate,
    full_at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    fn each(&self) -> Duration {
        Duration::from_secs(1) / self.rate.per_second
    }

    /// Takes one, even where there is none left.
    fn take(&mut self, now: Instant) -> bool {
        self.full_at = self.full_at.max(now) + self.each();
        self.full_at <= now + self.each() * self.rate.burst
    }

    /// Puts so many back, up to as many again as the bucket holds.
    fn put(&mut self, now: Instant, tokens: u32) {
        let most = now.checked_sub(self.each() * self.rate.burst).unwrap_or(now);
        self.full_at = self.full_at.checked_sub(self.each() * tokens).unwrap_or(now).max(most);
    }
}

/// Finds the headers of frames in a stream of bytes.
struct Parser {
    /// Bytes of the preface or of a payload that are still to come.
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

    /// Takes bytes up to the end of the next header.
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

/// Counts the frames of the peer at the other end of a connection as they are read.
pub(crate) struct Frames {
    read: Parser,
    connection: Bucket,
    ping_acks: Bucket,
    calls: Bucket,
    /// Frames of DATA that calls have paid for.
    paid_data: u32,
    /// What this node writes, if it is the caller.
    written: Option<Parser>,
}

/// Too many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    /// Of a kind, or on an occasion, that no honest peer has any use for.
    #[error("the peer floods this connection with {0} frames")]
    Hostile(&'static str),
    /// Of calls, by a caller: perhaps it is only too fast.
    #[error("the peer makes more calls than this connection takes")]
    Calls,
}

impl Frames {
    /// Before the first byte of a connection that a peer has made.
    pub(crate) fn of_caller() -> Self {
        Self::new(PREFACE, CALL_FRAMES, None)
    }

    /// Before the first byte of a connection that this node has made.
    pub(crate) fn of_server() -> Self {
        Self::new(0, ANSWER_FRAMES, Some(Parser::new(PREFACE)))
    }

    fn new(preface: usize, calls: Rate, written: Option<Parser>) -> Self {
        let now = Instant::now();
        Self {
            read: Parser::new(preface),
            connection: Bucket::new(CONNECTION_FRAMES, now),
            ping_acks: Bucket::new(PING_ACKS, now),
            calls: Bucket::new(calls, now),
            paid_data: 0,
            written,
        }
    }

    /// The next bytes that were read, as they come: how many frames began in them, those that cost nothing left out.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<u32, Flood> {
        let now = Instant::now();
        let mut frames = 0;
        while let Some(header) = self.read.next(&mut bytes) {
            frames += u32::from(self.count(&header, now)?);
        }
        Ok(frames)
    }

    /// The next bytes that were written.
    pub(crate) fn wrote(&mut self, mut bytes: &[u8]) {
        let Some(written) = &mut self.written else { return };
        while let Some(header) = written.next(&mut bytes) {
            if header.kind == kind::HEADERS {
                self.calls.put(Instant::now(), EARNED_BY_REQUEST);
            }
        }
    }

    /// Whether the frame costs anything.
    fn count(&mut self, header: &Header, now: Instant) -> Result<bool, Flood> {
        let is_server = self.written.is_some();
        if header.kind == kind::HEADERS {
            // Of those that send none, nothing adds up.
            self.paid_data = self.paid_data.min(MAX_PAID_DATA) + DATA_OF_CALL;
        }
        let (bucket, flood) = match header.kind {
            kind::DATA if header.len >= PAID_DATA => return Ok(false),
            kind::DATA if !is_server && self.paid_data > 0 => {
                self.paid_data -= 1;
                return Ok(false);
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
    async fn a_flood_is_noticed_however_its_bytes_are_cut() {
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
    async fn a_peer_that_pings_now_and_then_and_calls_fast_goes_on_for_ever() {
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
    async fn calls_and_resets_without_end_are_a_flood_too() {
        let mut frames = begun();
        let pair = [frame(1, 300), frame(3, 4)].concat();
        let sent = (0..100_000).take_while(|_| frames.read(&pair).is_ok()).count();
        assert_eq!(sent, CALL_FRAMES.burst as usize / 2);
    }

    /// How many of these frames a peer gets through, and what is said of the next.
    fn taken(frames: &mut Frames, frame: &[u8]) -> (u32, Flood) {
        for number in 0..200_000 {
            if let Err(flood) = frames.read(frame) {
                return (number, flood);
            }
        }
        panic!("no end");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_pings_that_nobody_sent_end_both_kinds_of_connections_after_a_few() {
        let ack = flagged(kind::PING, ACK, 8);
        assert_eq!(taken(&mut begun(), &ack), (PING_ACKS.burst, Flood::Hostile("PING ACK")));
        assert_eq!(taken(&mut Frames::of_server(), &ack), (PING_ACKS.burst, Flood::Hostile("PING ACK")));
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_frame_without_end_ends_a_connection_to_a_server() {
        for kind in 0..=255 {
            let (sent, flood) = taken(&mut Frames::of_server(), &frame(kind, 8));
            assert!(sent <= ANSWER_FRAMES.burst && matches!(flood, Flood::Hostile(_)), "kind {kind}: {sent}, {flood}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_answers_what_it_is_asked_goes_on_for_ever() {
        let mut frames = Frames::of_server();
        frames.wrote(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..20_000 {
            frames.wrote(&[frame(kind::HEADERS, 300), frame(kind::DATA, 100)].concat());
            // Headers, a small message, room for the next request, a large message and trailers.
            let answer = [(1, 80), (0, 20), (8, 4), (8, 4), (0, 16_384), (0, 16_384), (1, 40)];
            for (kind, len) in answer {
                frames.read(&frame(kind, len)).unwrap();
            }
        }
        // What it did not use up does not add up.
        let (sent, _) = taken(&mut frames, &frame(kind::RST_STREAM, 4));
        assert!(sent <= 2 * ANSWER_FRAMES.burst, "{sent}");
    }
}
