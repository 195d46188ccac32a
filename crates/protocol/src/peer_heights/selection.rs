//! Which peer serves a range.
//!
//! ```text
//!   peers that have its start and no pause
//!     |- proven: served lately, and have lost no hedge in silence since --> the one that is expected to be done first
//!     `- unproven: all others                    --> a small budget of ranges, which all of them share
//! ```
//!
//! The next range in order goes beyond that budget if no proven peer can serve it: all others wait for it.
//!
//! Expected time comes from measured speed, the ranges that a peer serves already, and its standing. Weight is earned:
//! however many new identities there are, they get no more of the work together than one would. While no peer has
//! proved itself, all are tried.

use super::{NoPeer, Peer, PeerHeights};
use crate::core::Now;
use rand::{RngExt, seq::IndexedRandom};
use soma_types::{CommitIndex, PeerId};
use std::time::Duration;

/// How many of the best candidates the choice is among, if they are about as good: spreads load without giving up
/// quality (checkpoint_processing.md, "PeerBalancer").
const SELECTION_WINDOW: usize = 2;

/// Of a hundred first attempts, how many go to any candidate instead of the best, so that a peer that was slow once is
/// measured again, and a new one for the first time.
const EXPLORATION_PERCENT: u32 = 5;

/// Ranges that all unproven peers serve together at once, while there are proven ones.
const UNPROVEN_RANGES: usize = 2;

/// How long a peer counts as proven after it was last of use.
pub(crate) const PROVEN_FOR: Duration = Duration::from_secs(600);

/// Maximum doublings of a peer's expected time, one for each failure in a row.
const MAX_DOUBLINGS: u32 = 10;

impl Peer {
    /// Whether it has served a range lately, and has lost no hedge in silence since.
    pub(super) fn is_proven(&self, now: Duration) -> bool {
        self.proven_until > now
    }

    pub(super) fn prove(&mut self, now: Duration) {
        self.proven_until = now + PROVEN_FOR;
    }
}

impl PeerHeights {
    /// Selects a peer for a range. Peers in `tried` serve it now or just failed to. A hedge is for a peer that serves
    /// no attempt at the range yet, and a proven one if there is any.
    pub(super) fn pick(
        &mut self,
        now: Now,
        start: CommitIndex,
        tried: &[PeerId],
        hedge: bool,
        next: bool,
    ) -> Result<PeerId, NoPeer> {
        let unix_ms = now.unix_ms;
        let now = now.monotonic;
        let ready = self.ready(now, start, tried, hedge)?;
        let is_proven = |peer: &PeerId| self.peers.get(peer).is_some_and(|peer| peer.is_proven(now));
        let (proven, unproven): (Vec<_>, Vec<_>) = ready.into_iter().partition(is_proven);

        let anyone_proven = self.peers.values().any(|peer| peer.is_proven(now));
        let of_unproven = self.peers.values().filter(|peer| !peer.is_proven(now)).map(|peer| peer.work.in_flight);
        let is_urgent = next && proven.is_empty();
        let has_budget = !anyone_proven || is_urgent || of_unproven.sum::<usize>() < UNPROVEN_RANGES;
        let explores = !hedge && self.rng.random_ratio(EXPLORATION_PERCENT, 100);
        let candidates = if !has_budget || unproven.is_empty() || (!proven.is_empty() && !explores) {
            proven
        } else {
            self.newcomers_or_others(unproven)
        };
        let costs = self.costs(unix_ms, &candidates);
        let Some((best, first)) = costs.first().copied() else {
            return Err(NoPeer::Untested { peers: self.peers.len() });
        };
        let as_good = costs.iter().filter(|(cost, _)| *cost <= best + best / 8).count();
        let window = if explores { costs.len() } else { as_good.min(SELECTION_WINDOW) };
        let chosen = costs[..window].choose(&mut self.rng).map_or(first, |(_, id)| *id);
        if let Some(peer) = self.peers.get_mut(&chosen) {
            peer.work.begin(now);
        }
        Ok(chosen)
    }

    /// Peers that have the start of a range and may be asked now; at least one. Every peer has commit 0, the genesis.
    fn ready(&self, now: Duration, start: CommitIndex, tried: &[PeerId], hedge: bool) -> Result<Vec<PeerId>, NoPeer> {
        if self.peers.is_empty() {
            return Err(NoPeer::NotConnected);
        }
        let has_got_there = |peer: &Peer| peer.highest(now).is_some_and(|highest| highest >= start);
        let reached: Vec<_> = self.peers.iter().filter(|(_, peer)| has_got_there(peer)).collect();
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
        let having: Vec<_> = reached.iter().filter(|(_, peer)| start == 0 || peer.lowest <= start).collect();
        if having.is_empty() {
            let lowest = reached.iter().map(|(_, peer)| peer.lowest).min().unwrap_or(0);
            return Err(NoPeer::AllPruned { peers: reached.len(), lowest });
        }
        let mut ready: Vec<_> =
            having.iter().filter(|(_, peer)| peer.paused_until <= now).map(|(peer, _)| **peer).collect();
        // A peer that just failed is asked again only if no other can be. A peer that serves the range now never is.
        if hedge || ready.iter().any(|peer| !tried.contains(peer)) {
            ready.retain(|peer| !tried.contains(peer));
        }
        if ready.is_empty() { Err(NoPeer::AllPaused { peers: having.len() }) } else { Ok(ready) }
    }

    /// Of unproven peers either newcomers or those that have served before, as the dice fall: many new identities
    /// take no turns from a peer that was slow once.
    fn newcomers_or_others(&mut self, unproven: Vec<PeerId>) -> Vec<PeerId> {
        let has_served = |peer: &PeerId| self.peers.get(peer).is_some_and(|peer| peer.served > 0);
        let (known, new): (Vec<_>, Vec<_>) = unproven.into_iter().partition(has_served);
        if known.is_empty() || (!new.is_empty() && self.rng.random_ratio(1, 2)) { new } else { known }
    }

    /// What a range is expected to cost at each of these peers, the best first.
    fn costs(&self, unix_ms: u64, candidates: &[PeerId]) -> Vec<(u128, PeerId)> {
        // A peer that was never measured may be as fast as any.
        let fastest = self.peers.values().filter_map(|peer| peer.work.speed()).max().unwrap_or(1);
        let cost = |id: &PeerId| {
            let peer = self.peers.get(id)?;
            let speed = peer.work.speed().unwrap_or(fastest);
            let ranges = peer.work.in_flight as u128 + 1;
            let distrust = (200 - u128::from(self.standings.score(*id, unix_ms))) << peer.failures.min(MAX_DOUBLINGS);
            let slowness = u128::from(fastest) * 1_000 / u128::from(speed);
            Some((ranges * distrust * slowness, *id))
        };
        let mut costs: Vec<_> = candidates.iter().filter_map(cost).collect();
        costs.sort_unstable();
        costs
    }
}
