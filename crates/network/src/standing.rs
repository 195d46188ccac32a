//! Known peers and strangers.
//!
//! A peer is known while its connection is favoured: it is trusted, or was useful lately. All other peers are
//! strangers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Whether the peer of a connection is known. All clones belong to the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    since: Instant,
    /// The connection is favoured until this many milliseconds after `since`.
    favoured_ms: Arc<AtomicU64>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { since: Instant::now(), favoured_ms: Arc::default() }
    }
}

impl Standing {
    /// Marks the peer as known for this time, or longer if it already was.
    pub(crate) fn favour(&self, time: Duration) {
        let until = self.since.elapsed().saturating_add(time).as_millis();
        self.favoured_ms.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    #[cfg(feature = "tls")]
    pub(crate) fn is_stranger(&self) -> bool {
        self.since.elapsed().as_millis() >= u128::from(self.favoured_ms.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn peer_is_known_until_its_last_favour_ends() {
        let standing = Standing::default();
        assert!(standing.is_stranger());
        standing.favour(Duration::from_secs(60));
        standing.favour(Duration::from_secs(1));
        advance(Duration::from_secs(59)).await;
        assert!(!standing.is_stranger());
        advance(Duration::from_secs(2)).await;
        assert!(standing.is_stranger());
        standing.favour(Duration::MAX);
        advance(Duration::from_secs(1 << 30)).await;
        assert!(!standing.is_stranger());
    }
}
