//! Standing: the history of a peer beyond its connection, kept across restarts.
//!
//! Demerits halve in ten minutes, and fall with each range that the peer serves. Bans are counted, and each is twice as
//! long as the one before, until the peer has behaved for a week.

use crate::Backoff;
use serde::{Deserialize, Serialize};
use soma_types::{Fault, PeerId, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Peers remembered. Beyond, the one with the least against it is forgotten: an attacker with that many identities
/// gains a first-time ban.
pub const MAX_STANDINGS: usize = 4_096;

/// The whole of a score.
const FULL: u32 = 100;

/// Parts of one demerit, so that small ones fade evenly.
const PARTS: u32 = 1_000;

/// In this time demerits halve.
const HALF_LIFE_MS: u64 = 10 * 60 * 1_000;

/// How long after its last fault a peer is remembered.
const REMEMBERED_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What a peer has done, as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Thousandths of demerits when it was last changed.
    demerits: u32,
    changed_ms: TimestampMs,
    bans: u32,
    banned_until_ms: TimestampMs,
}

impl Standing {
    fn demerits(&self, now_ms: TimestampMs) -> u32 {
        // A clock that was set back forgives nothing, and loses nothing.
        let passed = now_ms.saturating_sub(self.changed_ms);
        let halved = self.demerits.checked_shr((passed / HALF_LIFE_MS).min(32) as u32).unwrap_or(0);
        let rest = u64::from(halved) * (passed % HALF_LIFE_MS) / (2 * HALF_LIFE_MS);
        halved - rest as u32
    }

    fn is_forgotten(&self, now_ms: TimestampMs) -> bool {
        let last = self.changed_ms.max(self.banned_until_ms);
        let nothing = self.bans == 0 && self.demerits(now_ms) == 0 && self.banned_until_ms <= now_ms;
        nothing || last.saturating_add(REMEMBERED_MS) < now_ms
    }
}

/// The standing of every peer that has not always behaved.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Standings {
    peers: BTreeMap<PeerId, Standing>,
    /// Changed since they were last taken to be stored.
    changed: BTreeSet<PeerId>,
}

impl Standings {
    pub(super) fn new(stored: Vec<(PeerId, Standing)>) -> Self {
        Self { peers: stored.into_iter().take(MAX_STANDINGS).collect(), changed: BTreeSet::new() }
    }

    /// 100 for a peer with nothing against it, down to 0.
    pub(super) fn score(&self, peer: PeerId, now_ms: TimestampMs) -> u32 {
        let demerits = self.peers.get(&peer).map_or(0, |standing| standing.demerits(now_ms).div_ceil(PARTS));
        FULL.saturating_sub(demerits)
    }

    /// How much longer it is banned.
    pub(super) fn banned(&self, peer: PeerId, now_ms: TimestampMs) -> Option<Duration> {
        let until = self.peers.get(&peer)?.banned_until_ms;
        until.checked_sub(now_ms).filter(|left| *left > 0).map(Duration::from_millis)
    }

    pub(super) fn on_fault(&mut self, peer: PeerId, fault: Fault, now_ms: TimestampMs) {
        let demerits = match fault {
            _ if fault.bans() => FULL,
            Fault::Unproven | Fault::Slow => 10,
            // An honest refusal is no fault, and neither is a fault of this node.
            _ => return,
        };
        self.change(peer, now_ms, |standing| {
            standing.demerits = standing.demerits.saturating_add(demerits * PARTS).min(FULL * PARTS);
        });
    }

    /// It has served a range.
    pub(super) fn on_served(&mut self, peer: PeerId, now_ms: TimestampMs) {
        if self.peers.get(&peer).is_some_and(|standing| standing.demerits(now_ms) > 0) {
            self.change(peer, now_ms, |standing| {
                standing.demerits = (standing.demerits - standing.demerits / 4).saturating_sub(PARTS);
            });
        }
    }

    /// Bans it. For how long.
    pub(super) fn ban(&mut self, peer: PeerId, now_ms: TimestampMs, shortest: Duration, longest: Duration) -> Duration {
        let mut duration = shortest;
        self.change(peer, now_ms, |standing| {
            duration = Backoff { min: shortest, max: longest }.wait(standing.bans);
            standing.bans = standing.bans.saturating_add(1);
            standing.banned_until_ms = now_ms.saturating_add(duration.as_millis() as u64);
        });
        duration
    }

    /// Bans the peer because the operator said so: that is not the peer's fault, and does not lengthen its next ban.
    pub(super) fn ban_by_operator(&mut self, peer: PeerId, now_ms: TimestampMs, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.change(peer, now_ms, |standing| standing.banned_until_ms = now_ms.saturating_add(milliseconds));
    }

    /// Ends the peer's ban, and forgets its faults.
    pub(super) fn forgive(&mut self, peer: PeerId) {
        if self.peers.remove(&peer).is_some() {
            self.changed.insert(peer);
        }
    }

    /// Changes for the store: standings to put, and peers to remove.
    pub(super) fn take_changes(&mut self, now_ms: TimestampMs) -> (Vec<(PeerId, Standing)>, Vec<PeerId>) {
        let forgotten = self.peers.iter().filter(|(_, standing)| standing.is_forgotten(now_ms)).map(|(peer, _)| *peer);
        for peer in forgotten.collect::<Vec<_>>() {
            self.peers.remove(&peer);
            self.changed.insert(peer);
        }
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        for peer in std::mem::take(&mut self.changed) {
            match self.peers.get(&peer) {
                Some(standing) => put.push((peer, *standing)),
                None => remove.push(peer),
            }
        }
        (put, remove)
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn change(&mut self, peer: PeerId, now_ms: TimestampMs, change: impl FnOnce(&mut Standing)) {
        if self.peers.len() >= MAX_STANDINGS && !self.peers.contains_key(&peer) {
            let least = |standing: &Standing| {
                (standing.banned_until_ms > now_ms, standing.bans, standing.demerits(now_ms), standing.changed_ms)
            };
            let forgiven = self.peers.iter().min_by_key(|(_, standing)| least(standing)).map(|(peer, _)| *peer);
            if let Some(forgiven) = forgiven {
                self.peers.remove(&forgiven);
                self.changed.insert(forgiven);
            }
        }
        let standing = self.peers.entry(peer).or_default();
        standing.demerits = standing.demerits(now_ms);
        standing.changed_ms = now_ms;
        change(standing);
        self.changed.insert(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);
    const MINUTE: Duration = Duration::from_secs(60);

    fn minutes(minutes: u64) -> TimestampMs {
        minutes * 60_000
    }

    #[test]
    fn a_score_recovers_with_time_and_with_what_is_served() {
        let mut standings = Standings::default();
        assert_eq!(standings.score(PEER, 0), 100);
        for _ in 0..4 {
            standings.on_fault(PEER, Fault::Slow, 0);
        }
        let scores = [0, 5, 10, 20, 120].map(|at| standings.score(PEER, minutes(at)));
        assert_eq!(scores, [60, 70, 80, 90, 99]);
        for _ in 0..20 {
            standings.on_served(PEER, 0);
        }
        assert_eq!(standings.score(PEER, 0), 100);
    }

    #[test]
    fn what_a_peer_says_that_it_has_not_or_what_is_ours_costs_it_nothing() {
        let mut standings = Standings::default();
        for fault in [Fault::DoesNotHave, Fault::Overloaded, Fault::Ours] {
            standings.on_fault(PEER, fault, 0);
        }
        assert_eq!(standings.score(PEER, 0), 100);
        assert_eq!(standings.take_changes(0), (vec![], vec![]));
    }

    #[test]
    fn bans_double_up_to_their_longest_also_after_a_restart_and_end() {
        let mut standings = Standings::default();
        let mut bans = Vec::new();
        for _ in 0..4 {
            bans.push(standings.ban(PEER, 0, MINUTE, MINUTE * 5));
            let (put, remove) = standings.take_changes(0);
            assert_eq!(remove, []);
            standings = Standings::new(put);
        }
        assert_eq!(bans, [MINUTE, MINUTE * 2, MINUTE * 4, MINUTE * 5]);
        assert_eq!(standings.banned(PEER, minutes(1)), Some(MINUTE * 4));
        assert_eq!(standings.banned(PEER, minutes(5)), None);
        let week = minutes(7 * 24 * 60);
        assert_eq!(standings.take_changes(week), (vec![], vec![]));
        assert_eq!(standings.take_changes(week + minutes(6)), (vec![], vec![PEER]), "nothing is remembered for ever");
        assert_eq!(standings.ban(PEER, week * 2, MINUTE, MINUTE * 5), MINUTE);
    }

    #[test]
    fn a_ban_of_the_operator_lasts_as_long_as_it_says_and_lengthens_no_other() {
        let mut standings = Standings::default();
        standings.ban_by_operator(PEER, 0, MINUTE);
        let (put, _) = standings.take_changes(0);
        let mut standings = Standings::new(put);
        assert_eq!(standings.banned(PEER, 0), Some(MINUTE), "it survives a restart");
        assert_eq!(standings.score(PEER, 0), 100);
        assert_eq!(standings.take_changes(minutes(1)), (vec![], vec![PEER]));
        standings.ban_by_operator(PEER, 0, MINUTE);
        assert_eq!(standings.ban(PEER, 0, MINUTE * 2, MINUTE * 5), MINUTE * 2);
    }

    #[test]
    fn a_forgiven_peer_starts_anew() {
        let mut standings = Standings::default();
        standings.on_fault(PEER, Fault::ProvableLie, 0);
        standings.ban(PEER, 0, MINUTE, MINUTE * 5);
        standings.take_changes(0);
        standings.forgive(PEER);
        assert_eq!((standings.banned(PEER, 0), standings.score(PEER, 0)), (None, 100));
        assert_eq!(standings.take_changes(0), (vec![], vec![PEER]));
        assert_eq!(standings.ban(PEER, 0, MINUTE, MINUTE * 5), MINUTE);
    }

    #[test]
    fn no_more_peers_are_remembered_than_may_be_and_the_least_guilty_go_first() {
        let id = |number: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            PeerId(id)
        };
        let mut standings = Standings::default();
        standings.ban(id(0), 0, MINUTE, MINUTE);
        for number in 1..2 * MAX_STANDINGS as u32 {
            standings.on_fault(id(number), Fault::Slow, u64::from(number));
        }
        assert_eq!(standings.peers.len(), MAX_STANDINGS);
        assert!(standings.banned(id(0), 1).is_some());
        let (put, remove) = standings.take_changes(0);
        assert_eq!((put.len(), remove.len()), (MAX_STANDINGS, MAX_STANDINGS));
    }
}
