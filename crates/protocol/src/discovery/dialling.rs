//! Which peers to dial: for links, and to see whether a peer can be reached.

use super::{Discovery, Effect, book::Entry};
use crate::{connections::DialPurpose, core::Now};
use soma_types::{NetworkGroup, PeerId, TimestampMs};
use std::collections::{BTreeMap, BTreeSet};

/// Peers that were never reached and are probed in one interval. A probe costs both sides a handshake; a thousand nodes
/// that know a third of each other know all after twice as many intervals with half as many.
pub(super) const PROBES_PER_INTERVAL: usize = 8;

/// Probes under way at once.
const PROBES_AT_ONCE: usize = 16;

/// A peer that was reached is not probed again before this has passed.
const PROBE_AGAIN_MS: TimestampMs = 10 * 60 * 1000;

/// Intervals after which seeds without a link are probed at the latest. They are after one, two, four and so on: a
/// network that has fallen apart grows together again where its seeds meet, and old nodes cost seeds little.
const MAX_SEED_PROBE_EVERY: u32 = 512;

/// Peers that asked and wait to be probed. Beyond, they are probed like any other in the book.
const MAX_TO_DIAL_BACK: usize = 1_024;

impl Discovery {
    fn dial_link(&mut self, now: Now, peer: PeerId, effects: &mut Vec<Effect>) {
        let addresses = self.addresses_of(peer);
        if !addresses.is_empty() {
            self.dialling.insert(peer, now.monotonic);
            self.book.attempt(peer, now.monotonic);
            effects.push(Effect::Dial { peer, addresses, purpose: DialPurpose::Link });
        }
    }

    /// Dials those to be connected to whatever else there is: trusted peers that are known, the other validators if
    /// this node is one, and seeds as long as there are few links.
    pub(super) fn dial_kept(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut wanted: BTreeSet<_> = self.kept().collect();
        if self.connected.iter().filter(|peer| !self.is_kept(**peer)).count() < self.few_links() {
            wanted.extend(self.config.seeds.iter().map(|(peer, _)| *peer));
        }
        wanted.remove(&self.config.own_id);
        for peer in wanted {
            if !self.is_busy(peer) && !self.config.denylist.contains(&peer) {
                self.dial_link(now, peer, effects);
            }
        }
    }

    /// Dials peers from the book up to the target, not too many in one network.
    pub(super) fn dial(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut room = self.config.target_connections.saturating_sub(self.links()).min(self.dials_left);
        if room == 0 {
            return;
        }
        let mut groups = self.links_in_groups();
        let mut candidates = self.book.candidates(now.monotonic, |entry| !self.is_busy(entry.info.peer));
        while room > 0 {
            let Some(peer) = candidates.pick(&mut self.rng) else { break };
            if self.has_room_in_group(&groups, peer) {
                room -= 1;
                self.dials_left -= 1;
                *groups.entry(self.network_of(peer)).or_default() += 1;
                self.dial_link(now, peer, effects);
            }
        }
    }

    /// How many links there are in each network; trusted peers and seeds do not count.
    fn links_in_groups(&self) -> BTreeMap<Option<NetworkGroup>, usize> {
        let mut groups = BTreeMap::new();
        for peer in self.connected.iter().chain(self.dialling.keys()) {
            if !self.is_trusted(*peer) && self.seed(*peer).is_none() {
                *groups.entry(self.network_of(*peer)).or_default() += 1;
            }
        }
        groups
    }

    fn has_room_in_group(&self, groups: &BTreeMap<Option<NetworkGroup>, usize>, peer: PeerId) -> bool {
        let group = self.network_of(peer);
        // What a name stands for, Connections finds out.
        let unlimited = group.as_ref().is_some_and(|group| group.is_near() || group.is_name());
        let exempt = unlimited || self.is_trusted(peer) || self.seed(peer).is_some();
        exempt || groups.get(&group).is_none_or(|links| *links < self.config.max_per_group)
    }

    /// A peer has asked, and shown that it lives: a link to it if there are few, so that it hears of new commits
    /// without delay; else a look whether it can be reached, before it is passed on.
    pub(super) fn dial_back(&mut self, now: Now, peer: PeerId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.book.get(peer) else { return };
        let lately = entry.live_ms.is_some_and(|live_ms| live_ms.saturating_add(PROBE_AGAIN_MS) > now.unix_ms);
        if self.is_busy(peer) || !self.book.may_dial_back(peer, now.monotonic) {
            return;
        }
        if self.links() < self.few_links() && self.has_room_in_group(&self.links_in_groups(), peer) {
            self.dial_link(now, peer, effects);
        } else if !lately && self.to_dial_back.len() < MAX_TO_DIAL_BACK && !self.to_dial_back.contains(&peer) {
            self.to_dial_back.push_back(peer);
            self.probe_who_asked(now, effects);
        }
    }

    pub(super) fn probe_who_asked(&mut self, now: Now, effects: &mut Vec<Effect>) {
        // The rest is for those that do not ask.
        while self.probing.len() < PROBES_AT_ONCE / 2 {
            let Some(peer) = self.to_dial_back.pop_front() else { return };
            self.probe(now, peer, effects);
        }
    }

    fn probe(&mut self, now: Now, peer: PeerId, effects: &mut Vec<Effect>) {
        let addresses = self.addresses_of(peer);
        if !self.is_busy(peer) && !self.probing.contains_key(&peer) && !addresses.is_empty() {
            self.probing.insert(peer, now.monotonic);
            self.book.attempt(peer, now.monotonic);
            effects.push(Effect::Dial { peer, addresses, purpose: DialPurpose::Probe });
        }
    }

    pub(super) fn probe_seeds(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.seed_probe_in = self.seed_probe_in.saturating_sub(1);
        if self.seed_probe_in > 0 {
            return;
        }
        self.seed_probe_every = (self.seed_probe_every * 2).min(MAX_SEED_PROBE_EVERY);
        self.seed_probe_in = self.seed_probe_every;
        for peer in self.config.seeds.iter().map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.probe(now, peer, effects);
        }
    }

    /// Probes some peers that were never reached, and the one that was not reached for longest.
    pub(super) fn probe_some(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let suits = |entry: &Entry| !self.is_busy(entry.info.peer) && !self.probing.contains_key(&entry.info.peer);
        let mut untested = self.book.candidates(now.monotonic, |entry| entry.live_ms.is_none() && suits(entry));
        let before_ms = now.unix_ms.saturating_sub(PROBE_AGAIN_MS);
        let stalest = self.book.least_lately_live(now.monotonic, before_ms, suits);
        let room = PROBES_PER_INTERVAL.min(PROBES_AT_ONCE.saturating_sub(self.probing.len()));
        // Always one reached peer: a flood of advertised peers must not crowd them out.
        let others = room.saturating_sub(stalest.iter().len());
        let untested: Vec<_> = std::iter::from_fn(|| untested.pick(&mut self.rng)).take(others).collect();
        for peer in stalest.into_iter().chain(untested) {
            self.probe(now, peer, effects);
        }
    }
}
