//! How much of what is of no use a peer may send.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Messages and ids of no use that a peer may send at once. Copies that are on their way when this node asks for fewer are
/// honest: at 50,000 messages per second and a round trip of 300 ms they are 15,000.
const BURST: u64 = 20_000;

/// The same per second, in the long run: beyond what any honest peer needs.
const PER_SECOND: u64 = 2_000;

/// Bytes of payload of them at once.
const BURST_BYTES: u64 = 32 << 20;

/// Bytes of payload of them per second.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// What a peer has left of its allowance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Allowance {
    messages: u64,
    bytes: u64,
    at: Duration,
}

impl Allowance {
    pub(super) fn new(now: Duration) -> Self {
        Self { messages: BURST, bytes: BURST_BYTES, at: now }
    }

    /// Takes from the allowance. False if it is used up.
    pub(super) fn take(&mut self, now: Duration, messages: u64, bytes: u64) -> bool {
        // In steps, so that frequent calls lose no fractions.
        let elapsed = now.saturating_sub(self.at).as_millis() as u64;
        if elapsed >= 100 {
            self.messages = BURST.min(self.messages + PER_SECOND * elapsed / 1_000);
            self.bytes = BURST_BYTES.min(self.bytes.saturating_add((BYTES_PER_SECOND / 1_000).saturating_mul(elapsed)));
            self.at = now;
        }
        let enough = self.messages >= messages && self.bytes >= bytes;
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
        enough
    }
}
