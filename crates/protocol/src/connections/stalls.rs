//! Peers whose connections ended because they did not read, and how long each peer is kept out.

use crate::Backoff;
use serde::{Deserialize, Serialize};
use soma_types::PeerId;
use std::{collections::BTreeMap, time::Duration};

/// First pause after such a connection; it doubles with each further one.
const STALL_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause.
const STALL_PAUSE_MAX: Duration = Duration::from_secs(600);

/// How long after the end of its pause a peer is as good as any other again.
const STALL_MEMORY: Duration = Duration::from_secs(3_600);

/// Maximum remembered peers. Beyond it, the peer whose pause ends first is forgotten.
pub(super) const MAX_STALLS: usize = 1_024;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Stalls(BTreeMap<PeerId, Stall>);

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Stall {
    times: u32,
    until: Duration,
}

impl Stalls {
    /// Whether the peer is kept out now.
    pub(super) fn is_kept_out(&self, now: Duration, peer: PeerId) -> bool {
        self.0.get(&peer).is_some_and(|stall| stall.until > now)
    }

    /// Another connection of the peer has ended so.
    pub(super) fn stalled(&mut self, now: Duration, peer: PeerId) {
        self.0.retain(|_, stall| stall.until + STALL_MEMORY > now);
        let times = self.0.get(&peer).map_or(0, |stall| stall.times);
        let pause = Backoff { min: STALL_PAUSE_MIN, max: STALL_PAUSE_MAX }.wait(times);
        if self.0.len() >= MAX_STALLS
            && !self.0.contains_key(&peer)
            && let Some(first) = self.0.iter().min_by_key(|(_, stall)| stall.until).map(|(peer, _)| *peer)
        {
            self.0.remove(&first);
        }
        self.0.insert(peer, Stall { times: times.saturating_add(1), until: now + pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_that_does_not_read_waits_longer_each_time_until_it_is_forgiven() {
        let mut stalls = Stalls::default();
        let peer = PeerId([1; 32]);
        let mut now = Duration::ZERO;
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
            stalls.stalled(now, peer);
            now += Duration::from_secs(pause);
            assert!(stalls.is_kept_out(now - Duration::from_millis(1), peer));
            assert!(!stalls.is_kept_out(now, peer));
        }
        now += STALL_MEMORY;
        stalls.stalled(now, peer);
        assert!(!stalls.is_kept_out(now + STALL_PAUSE_MIN, peer));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut stalls = Stalls::default();
        for number in 0..2 * MAX_STALLS as u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&number.to_le_bytes());
            stalls.stalled(Duration::from_millis(number.into()), PeerId(peer));
        }
        assert_eq!(stalls.0.len(), MAX_STALLS);
    }
}
