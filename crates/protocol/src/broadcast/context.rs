//! What every topic needs to handle an input.

use super::{
    committee::Committee,
    interface::{Config, Effect, StreamKey},
};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

pub(super) struct Context<'a> {
    pub(super) now: Duration,
    pub(super) config: &'a Config,
    pub(super) committee: &'a mut Committee,
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) effects: &'a mut Vec<Effect>,
    /// Streams that end after this input.
    pub(super) closing: &'a mut Vec<Closing>,
    /// Of the last check.
    pub(super) last_check: &'a mut u64,
}

/// A stream that this node ends.
pub(super) struct Closing {
    pub(super) stream: StreamKey,
    pub(super) why: Why,
}

/// Why this node ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its queue is too long.
    Slow,
    /// The peer sends too much that is of no use. Whether that is certainly the peer's mistake.
    Useless { reported: bool },
    /// There are too many streams.
    TooMany,
}
