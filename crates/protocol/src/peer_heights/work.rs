//! Work: what one peer is serving us, and how fast.
//!
//! ```text
//!   range 1  |-----------|                 bytes of 1 and 2
//!   range 2     |-----------------|        ----------------
//!   at work  |====================|         time at work
//! ```
//!
//! A peer's speed is what it has served in the time that it had something to serve, our checks of it included. How long
//! each range took says less: of several at once each takes longer, and the peer is no slower.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most time at work that is remembered: beyond, all that was counts half.
const RECENT: Duration = Duration::from_secs(4);

/// Less time is none that could be measured.
const LEAST: Duration = Duration::from_millis(1);

/// The ranges of one peer.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Work {
    /// Ranges that it is serving.
    pub(super) in_flight: usize,
    /// Bytes that the peer has served.
    bytes: u64,
    /// In which it was serving, as far as ranges have ended: before, there is nothing to compare it with.
    time: Duration,
    /// Until when it is counted.
    until: Duration,
}

impl Work {
    /// The peer gets one more range.
    pub(super) fn begin(&mut self, now: Duration) {
        if self.in_flight == 0 {
            self.until = now;
        }
        self.in_flight += 1;
    }

    /// One of its ranges has ended: with so many bytes, or so that it says nothing of the peer's speed. One that was
    /// asked of it over an earlier connection is none of them.
    pub(super) fn end(&mut self, now: Duration, served: Option<u64>) {
        if self.in_flight == 0 {
            return;
        }
        self.in_flight -= 1;
        let Some(bytes) = served else { return };
        while self.time > RECENT {
            (self.bytes, self.time) = (self.bytes / 2, self.time / 2);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.time += now.saturating_sub(self.until);
        self.until = now;
    }

    /// Bytes per second, at least 1. `None` before it has served anything.
    pub(super) fn speed(&self) -> Option<u64> {
        let speed = u128::from(self.bytes) * 1_000_000 / self.time.max(LEAST).as_micros();
        (self.bytes > 0).then(|| u64::try_from(speed).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Mebibytes per second.
    fn speed(work: &Work) -> Option<u64> {
        work.speed().map(|speed| speed / MIB)
    }

    #[test]
    fn peer_is_as_fast_with_several_ranges_at_once_as_one_after_the_other() {
        let (mut in_turn, mut at_once) = (Work::default(), Work::default());
        assert_eq!(speed(&in_turn), None);
        for second in 0..4 {
            in_turn.begin(ms(second * 1_000));
            in_turn.end(ms((second + 1) * 1_000), Some(8 * MIB));
            at_once.begin(ms(second * 10));
        }
        for _ in 0..4 {
            at_once.end(ms(4_000), Some(8 * MIB));
        }
        assert_eq!((speed(&in_turn), speed(&at_once)), (Some(8), Some(8)));
    }

    #[test]
    fn peer_gets_slower_only_by_what_it_failed_to_serve_itself() {
        let mut work = Work::default();
        work.begin(ms(0));
        work.end(ms(1_000), Some(8 * MIB));
        // It had nothing to serve, and then a range that failed on our side.
        work.begin(ms(60_000));
        work.end(ms(90_000), None);
        work.begin(ms(90_000));
        assert_eq!(speed(&work), Some(8));
        work.end(ms(93_000), Some(0));
        assert_eq!(speed(&work), Some(2));
    }

    #[test]
    fn range_of_an_earlier_connection_says_nothing_of_this_ones_speed() {
        let mut work = Work::default();
        work.end(ms(1_000), Some(8 * MIB));
        assert_eq!((work.in_flight, speed(&work)), (0, None));
    }

    #[test]
    fn what_a_peer_did_lately_counts_most() {
        let mut work = Work::default();
        for (second, mib) in (0..).zip([64; 20].into_iter().chain([8; 20])) {
            work.begin(ms(second * 1_000));
            work.end(ms((second + 1) * 1_000), Some(mib * MIB));
        }
        assert_eq!(speed(&work), Some(8));
    }
}
