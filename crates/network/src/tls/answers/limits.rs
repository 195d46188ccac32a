//! Limits that tests change.

use std::time::Duration;

/// Default budget of unread bytes of all connections of a listener.
const UNREAD_IN_ALL: usize = 128 << 20;

/// Deadline of a response from its first byte to its last: five seconds more than any caller waits. An honest caller
/// has reset the stream by then.
const ANSWER_TIME: Duration = Duration::from_secs(35);

/// Limits on unread responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) in_all: usize,
    pub(crate) time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_all: UNREAD_IN_ALL, time: ANSWER_TIME }
    }
}
