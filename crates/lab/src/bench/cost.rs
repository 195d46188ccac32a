//! The measured cost of one part of the limit.

use std::time::Duration;

/// What one part took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// CPU seconds of all threads that had a part in it.
    pub(super) cpu_s: f64,
    /// From the first byte to the last.
    pub(super) wall: Duration,
}
