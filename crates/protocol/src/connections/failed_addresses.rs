//! Addresses that failed, and for how long they are left alone.

use crate::{Backoff, core::Now};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Address, PeerId};
use std::{collections::BTreeMap, time::Duration};

/// First pause after a failed dial.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause after failed dials.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A link that ended sooner was no success: its address failed once more.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// Maximum remembered addresses. Beyond it, the address whose pause ends first is forgotten.
const MAX_REMEMBERED: usize = 4_096;

/// Keyed by address and by the peer that is said to be there: a peer with one dead address is still reached at another,
/// and nobody who claims the address of another has that one left alone.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct FailedAddresses(BTreeMap<(PeerId, Address), Pause>);

#[derive(Serialize, Deserialize)]
struct Pause {
    /// In a row.
    failures: u32,
    until: Duration,
}

impl FailedAddresses {
    /// How long the address is still to be left alone, if it is.
    pub(super) fn wait(&self, now: Now, peer: PeerId, address: &Address) -> Option<Duration> {
        let pause = self.0.get(&(peer, address.clone()))?;
        pause.until.checked_sub(now.monotonic).filter(|wait| !wait.is_zero())
    }

    /// A dial failed: up to the doubled pause, at least half of it.
    pub(super) fn failed(&mut self, now: Now, peer: PeerId, address: Address, rng: &mut ChaCha8Rng) {
        let place = (peer, address);
        let failures = self.0.get(&place).map_or(0, |pause| pause.failures);
        let pause = Backoff { min: PAUSE_MIN, max: PAUSE_MAX }.wait(failures);
        let pause = pause.mul_f64(rng.random_range(0.5..=1.0));
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&place) {
            self.forget_first();
        }
        self.0.insert(place, Pause { failures: failures.saturating_add(1), until: now.monotonic + pause });
    }

    /// A link ended. After a long life it is as if the address had never failed before: the shortest pause, so that
    /// not all who have lost a peer dial it in the same instant. Who accepts and hangs up at once is dialled less and
    /// less often.
    pub(super) fn link_ended(
        &mut self,
        now: Now,
        since: Duration,
        peer: PeerId,
        address: Address,
        rng: &mut ChaCha8Rng,
    ) {
        if now.monotonic.saturating_sub(since) >= SHORT_LIFE {
            self.0.remove(&(peer, address.clone()));
        }
        self.failed(now, peer, address, rng);
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.0.iter().min_by_key(|(_, pause)| pause.until).map(|(place, _)| place.clone()) {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn failed_addresses_are_bounded_and_the_shortest_pause_is_dropped_first() {
        let mut failed = FailedAddresses::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let address = |port: u16| -> Address { format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap() };
        for port in 1..=MAX_REMEMBERED as u16 + 10 {
            let at = Duration::from_secs(port.into());
            failed.failed(Now { monotonic: at, unix_ms: 0 }, PeerId([1; 32]), address(port), &mut rng);
        }
        assert_eq!(failed.0.len(), MAX_REMEMBERED);
        let remembers = |port| failed.0.contains_key(&(PeerId([1; 32]), address(port)));
        assert!(!remembers(1) && remembers(11));
    }
}
