//! Which peer serves a range.
//!
//! Of those that have its start and are not given a pause, the one that is expected to have it done first: by its
//! measured speed, the ranges that it is serving already, and its standing. A few picks go to any of them, so that a
//! peer that was slow once is measured again.

use super::{NoPeer, PeerHeights};
use crate::core::Now;
use rand::{RngExt, seq::IndexedRandom};
use soma_types::{CommitIndex, PeerId};

/// How many of the best candidates the choice is among, if they are about as good: spreads load without giving up
/// quality (checkpoint_processing.md, "PeerBalancer").
const SELECTION_WINDOW: usize = 2;

/// Of a hundred picks, how many go to any candidate instead of the best.
const EXPLORATION_PERCENT: u32 = 5;

/// Who failed lately is expected to take twice as long for each failure in a row, so often at most.
const MAX_DOUBLINGS: u32 = 10;

impl PeerHeights {
    pub(super) fn pick(&mut self, now: Now, start: CommitIndex, avoid: Option<PeerId>) -> Result<PeerId, NoPeer> {
        let unix_ms = now.unix_ms;
        let now = now.monotonic;
        if self.peers.is_empty() {
            return Err(NoPeer::NotConnected);
        }
        let reached: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.highest(now).is_some_and(|highest| highest >= start)).collect();
        if reached.is_empty() {
            let claims = self.peers.values().filter_map(|peer| peer.claim).filter(|claim| *claim >= start);
            return Err(match claims.clone().max() {
                Some(claimed) => NoPeer::ClaimsUnproven { peers: claims.count(), claimed },
                None if self.peers.values().all(|peer| peer.claim.is_none()) => {
                    NoPeer::Unheard { peers: self.peers.len() }
                }
                None => NoPeer::NobodyHasIt { peers: self.peers.len() },
            });
        }
        let having: Vec<_> = reached.iter().filter(|(_, peer)| peer.lowest <= start).collect();
        if having.is_empty() {
            let lowest = reached.iter().map(|(_, peer)| peer.lowest).min().unwrap_or(0);
            return Err(NoPeer::AllPruned { peers: reached.len(), lowest });
        }
        let mut ready: Vec<_> = having.iter().filter(|(_, peer)| peer.paused_until <= now).collect();
        // A peer that just failed is asked again only when nobody else can be.
        if ready.len() > 1 {
            ready.retain(|(id, _)| Some(**id) != avoid);
        }
        if ready.is_empty() {
            return Err(NoPeer::AllPaused { peers: having.len() });
        }
        // Who was never measured may be as fast as anybody.
        let fastest = self.peers.values().filter_map(|peer| peer.work.speed()).max().unwrap_or(1);
        let mut ready: Vec<(u128, PeerId)> = ready
            .iter()
            .map(|(id, peer)| {
                let speed = peer.work.speed().unwrap_or(fastest);
                let ranges = peer.work.in_flight as u128 + 1;
                let distrust =
                    (200 - u128::from(self.standings.score(**id, unix_ms))) << peer.failures.min(MAX_DOUBLINGS);
                let slowness = u128::from(fastest) * 1_000 / u128::from(speed);
                (ranges * distrust * slowness, **id)
            })
            .collect();
        ready.sort_unstable();
        let explore = self.rng.random_ratio(EXPLORATION_PERCENT, 100);
        let (best, _) = ready[0];
        let as_good = ready.iter().filter(|(cost, _)| *cost <= best + best / 8).count();
        let window = if explore { ready.len() } else { as_good.min(SELECTION_WINDOW) };
        let chosen = ready[..window].choose(&mut self.rng).map_or(ready[0].1, |(_, id)| *id);
        if let Some(peer) = self.peers.get_mut(&chosen) {
            peer.work.begin(now);
        }
        Ok(chosen)
    }
}
