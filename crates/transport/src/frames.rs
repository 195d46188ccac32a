//! How fast a peer sends HTTP/2 frames.
//!
//! h2 answers each PING and each SETTINGS before it reads on, so a flood of them takes no memory; but it answers for
//! ever, as fast as they come. Here they are counted as they are read, and too many end the connection (CVE-2019-9512,
//! CVE-2019-9513, CVE-2019-9515). So are frames of calls: what a peer may call is decided for each call, but a
//! refusal has a price, too.

use std::time::Duration;
use tokio::time::Instant;

/// Bytes with which a client begins.
const PREFACE: usize = 24;

/// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
const HEADER: usize = 9;

/// Frames about the connection (PING, SETTINGS, PRIORITY, unknown ones): an honest peer sends a few in a minute.
const CONNECTION_FRAMES: Rate = Rate { per_second: 10, burst: 100 };

/// All other frames: two or three for each call. The fastest sync makes some 1,300 calls a second.
const CALL_FRAMES: Rate = Rate { per_second: 20_000, burst: 40_000 };

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

    /// Takes one, even where there is none left.
    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / self.rate.per_second;
        self.full_at = self.full_at.max(now) + each;
        self.full_at <= now + each * self.rate.burst
    }
}

/// Counts the frames of one connection as they are read.
pub(crate) struct Frames {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    connection: Bucket,
    calls: Bucket,
}

/// Too many frames.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer floods this connection with {0} frames")]
pub(crate) struct Flood(&'static str);

impl Frames {
    /// Before the first byte of a connection.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            filled: 0,
            connection: Bucket::new(CONNECTION_FRAMES, now),
            calls: Bucket::new(CALL_FRAMES, now),
        }
    }

    /// The next bytes, as they come.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        let now = Instant::now();
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.count(kind, now)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: u8, now: Instant) -> Result<(), Flood> {
        // RFC 9113, section 6: DATA, HEADERS, RST_STREAM, WINDOW_UPDATE and CONTINUATION belong to calls.
        let (bucket, name) = match kind {
            0 | 1 | 3 | 8 | 9 => (&mut self.calls, "call"),
            _ => (&mut self.connection, "connection"),
        };
        if bucket.take(now) { Ok(()) } else { Err(Flood(name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let [_, a, b, c] = (len as u32).to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 0];
        frame.resize(HEADER + len, 0xff);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
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
            let mut frames = Frames::new();
            for bytes in flood.chunks(cut) {
                assert_eq!(frames.read(bytes), Ok(()));
            }
            assert_eq!(frames.read(&frame(6, 8)), Err(Flood("connection")), "cut in {cut}");
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
}
