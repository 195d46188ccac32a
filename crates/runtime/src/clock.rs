//! The one place that asks what time it is.

use soma_protocol::Now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Gives cores their [`Now`]: the runtime's monotonic clock, which simulation may pause, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// In simulation the wall clock is virtual, too: this much at the start.
    virtual_start_ms: Option<u64>,
}

// The ban in clippy.toml keeps time out of everything else.
#[allow(clippy::disallowed_methods)]
impl Clock {
    /// Starts now, with the machine's wall clock.
    pub fn system() -> Self {
        Self { started: Instant::now(), virtual_start_ms: None }
    }

    /// Starts now, with a wall clock that runs with the runtime's: on a paused runtime, in virtual time.
    pub fn simulated(start_ms: u64) -> Self {
        Self { started: Instant::now(), virtual_start_ms: Some(start_ms) }
    }

    /// Time since it was started.
    pub fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    /// The present time.
    pub fn now(&self) -> Now {
        let monotonic = self.started.elapsed();
        let unix = match self.virtual_start_ms {
            Some(start) => Duration::from_millis(start) + monotonic,
            // A clock before 1970 is as good as any other wrong one: peers will say that it is off.
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        Now { monotonic, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }
}
