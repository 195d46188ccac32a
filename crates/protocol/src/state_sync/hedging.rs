//! Hedged requests: a late attempt at a range gets company from other peers, and the first delivery wins.
//!
//! ```text
//!   peer a   |------- delay -------|---------------------- ...  cancelled
//!   peer b                         |------- delay -------|- ...  cancelled
//!   peer c                                               |------ delivers
//! ```
//!
//! - The hedge delay is the time within which 19 of 20 downloads of that size finish. Checks do not count: a range
//!   that is being checked waits for this node's own processor, and a second worker would only add to the load.
//! - A peer that answers slowly is hedged once.
//! - The next range in order is hedged until peers answer, because all other ranges wait for it. Its delay is the usual
//!   time of a first answer, and each round doubles the number of peers. Once two answer, silent attempts are
//!   cancelled.
//! - When [`MAX_ATTEMPTS`] are in use, the attempt that has been silent for longest is replaced.
//!
//! So no number of silent peers can hold a range for long.

use super::{
    Effect, Late, RangeKey, StateSync,
    range::{Attempt, Delays, MAX_ANSWERING, MAX_ATTEMPTS, Range, RangeState},
};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Outcome},
};
use soma_types::{CommitIndex, PeerId};
use std::time::Duration;

/// Maximum concurrent workers. Those beyond `max_workers` fetch the next range in order.
pub fn most_workers(max_workers: usize) -> usize {
    max_workers + MAX_ATTEMPTS
}

impl StateSync {
    fn hedge_at(&self, start: CommitIndex, range: &Range) -> Option<Duration> {
        let is_wanted = range.end > self.tip.commit.index;
        is_wanted.then(|| range.hedge_at(self.is_next(start, range), &self.delays(start, range))).flatten()
    }

    /// Number of commits to expect from the range, at least one. Beyond the height that proven peers advertise, the
    /// commits may not exist.
    fn commits_to_come(&self, start: CommitIndex, range: &Range) -> CommitIndex {
        let end = match self.claimed.proven {
            0 => range.end,
            proven => range.end.min(proven.max(start)),
        };
        end.saturating_sub(start).saturating_add(1)
    }

    fn delays(&self, start: CommitIndex, range: &Range) -> Delays<impl Fn(PeerId) -> Duration + use<'_>> {
        let commits = self.commits_to_come(start, range);
        let whole = move |peer| self.flow.hedge_delay(peer, commits);
        Delays { first: self.flow.silence_delay(commits), pause: self.flow.pause_delay(commits), whole }
    }

    /// When the hedges of all ranges are due.
    pub(super) fn hedges_at(&self) -> impl Iterator<Item = Duration> {
        self.ranges.iter().filter_map(|(start, range)| self.hedge_at(*start, range))
    }

    /// Peers that delay the next commit, once its range has been hedged.
    pub fn late(&self) -> Option<Late> {
        let next = self.tip.commit.index + 1;
        let (start, range) = self.ranges.range(..=next).next_back()?;
        let delays = self.delays(*start, range);
        let is_silent = |attempt: &&Attempt| attempt.silent_at(&delays) <= self.last_now;
        let asked = range.attempts().iter().filter(is_silent).filter_map(|attempt| attempt.asked);
        let (silent, asked_at) = (asked.clone().count(), asked.map(|(_, asked)| asked.at).min()?);
        let waited = self.last_now.saturating_sub(asked_at);
        (range.attempts().len() > 1).then_some(Late { commit: next, silent, waited })
    }

    fn are_all_silent(&self, now: Now, start: CommitIndex, range: &Range) -> bool {
        let delays = self.delays(start, range);
        range.attempts().iter().all(|attempt| attempt.silent_at(&delays) <= now.monotonic)
    }

    /// Starts all hedges that are due and within the bounds.
    pub(super) fn start_hedges(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_due = |(start, range): &(&CommitIndex, &Range)| {
            self.hedge_at(**start, range).is_some_and(|at| at <= now.monotonic)
        };
        let due: Vec<_> = self.ranges.iter().filter(is_due).map(|(start, _)| *start).collect();
        for start in due {
            if let Some(reserve) = self.reserve_for_hedge(start) {
                self.start_hedge(now, start, reserve, effects);
            }
        }
    }

    /// Bytes for a further attempt at the range, if the bounds allow one. The next range has workers of its own.
    fn reserve_for_hedge(&self, start: CommitIndex) -> Option<u64> {
        let range = self.ranges.get(&start)?;
        let reserve = range.attempts().last()?.reserve;
        let others = self.bytes_of_others();
        let allowed = if self.is_next(start, range) {
            others + self.bytes_of_next() + reserve <= self.config.bytes_in_flight
        } else {
            others + reserve <= self.config.bytes_in_flight.saturating_sub(self.kept_for_next())
                && self.workers() < self.config.max_workers
        };
        allowed.then_some(reserve)
    }

    /// Has a further peer selected for the range.
    fn start_hedge(&mut self, now: Now, start: CommitIndex, reserve: u64, effects: &mut Vec<Effect>) {
        let Some(range) = self.ranges.get(&start) else { return };
        let (next, all_silent) = (self.is_next(start, range), self.are_all_silent(now, start, range));
        let key = self.new_key();
        let Some(range) = self.ranges.get_mut(&start) else { return };
        let asked = range.attempts().len();
        if asked >= MAX_ATTEMPTS
            && let Some((silent, peer, _)) = range.longest_silent()
        {
            range.take_attempt(silent);
            range.replaced = range.replaced.saturating_add(1);
            effects.push(Effect::Cancel(silent));
            effects.push(Effect::Report { peer, start, outcome: Outcome::LostHedge { silent: true } });
        } else if range.further > 0 {
            range.further -= 1;
        } else if next && all_silent {
            range.further = (asked - 1).min(MAX_ATTEMPTS.saturating_sub(asked + 1));
        }
        effects.push(Effect::Pick { key, start, tried: range.peers().collect(), hedge: true, next });
        if let RangeState::Active(attempts) = &mut range.state {
            attempts.push(Attempt::selecting(key, reserve));
        }
    }

    /// Cancels hedges of linked ranges: no commit waits for them.
    pub(super) fn cancel_stale_hedges(&mut self, effects: &mut Vec<Effect>) {
        let linked = self.tip.commit.index;
        for (start, range) in self.ranges.range_mut(..=linked).filter(|(_, range)| range.end <= linked) {
            let RangeState::Active(attempts) = &mut range.state else { continue };
            for hedge in attempts.drain(1..) {
                // A pending selection is reported when PeerHeights answers.
                let Some((peer, _)) = hedge.asked else { continue };
                effects.push(Effect::Cancel(hedge.key));
                effects.push(Effect::Report { peer, start: *start, outcome: Outcome::Unused });
            }
        }
    }

    /// First commit of the range that has the attempt.
    pub(super) fn start_of_attempt(&self, key: RangeKey) -> Option<CommitIndex> {
        let has = |range: &Range| range.attempts().iter().any(|attempt| attempt.key == key);
        self.ranges.iter().find(|(_, range)| has(range)).map(|(start, _)| *start)
    }

    /// Whether the range has several attempts.
    pub(super) fn is_hedge(&self, start: CommitIndex) -> bool {
        self.ranges.get(&start).is_some_and(|range| range.attempts().len() > 1)
    }

    /// Starts the worker of a hedge, or ends the round of hedges if no peer is available.
    pub(super) fn on_hedge_picked(
        &mut self,
        now: Now,
        start: CommitIndex,
        key: RangeKey,
        picked: Result<PeerId, NoPeer>,
        effects: &mut Vec<Effect>,
    ) {
        let is_wanted = |range: &Range| range.end > self.tip.commit.index;
        let epoch = self.epoch_of(start);
        let asked = picked.ok().map(|peer| (peer, self.flow.asked(now, peer)));
        let Some(range) = self.ranges.get(&start) else { return };
        let asked = asked.filter(|(peer, _)| is_wanted(range) && range.peers().all(|other| other != *peer));
        let Some(range) = self.ranges.get_mut(&start) else { return };
        let (end, proof_end) = (range.end, range.proof_end(start));
        match (asked, range.attempt_mut(key)) {
            (Some((peer, asked)), Some(attempt)) => {
                attempt.asked = Some((peer, asked));
                let max_bytes = attempt.reserve;
                effects.push(Effect::Fetch { key, peer, start, end, proof_end, epoch, max_bytes });
            }
            _ => {
                range.take_attempt(key);
                range.further = 0;
                range.no_hedge_at = Some(now.monotonic);
                if let Ok(peer) = picked {
                    effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
                }
            }
        }
    }

    /// Removes a failed attempt and reports its peer. Returns true if other attempts continue the range; otherwise it
    /// changes nothing.
    pub(super) fn drop_failed_hedge(&mut self, key: RangeKey, outcome: Outcome, effects: &mut Vec<Effect>) -> bool {
        let Some(start) = self.start_of_attempt(key).filter(|start| self.is_hedge(*start)) else { return false };
        let attempt = self.ranges.get_mut(&start).and_then(|range| range.take_attempt(key));
        effects.push(Effect::Discard(key));
        if let Some((peer, _)) = attempt.and_then(|attempt| attempt.asked) {
            effects.push(Effect::Report { peer, start, outcome });
        }
        true
    }

    /// Cancels all other attempts once one has delivered. `whole`: it has delivered the whole range.
    pub(super) fn cancel_others(&mut self, now: Now, key: RangeKey, whole: bool, effects: &mut Vec<Effect>) {
        let Some(start) = self.start_of_attempt(key) else { return };
        let Some(range) = self.ranges.get(&start) else { return };
        let delays = self.delays(start, range);
        for attempt in range.attempts().iter().filter(|attempt| attempt.key != key) {
            // A pending selection is reported when PeerHeights answers.
            let Some((peer, asked)) = attempt.asked else { continue };
            effects.push(Effect::Cancel(attempt.key));
            let silent = attempt.silent_at(&delays) <= now.monotonic;
            let slow = asked.at + (delays.whole)(peer) <= now.monotonic;
            let outcome = match (silent, slow) {
                (true, _) => Outcome::LostHedge { silent },
                // A peer that delivers only a part finishes sooner, which proves nothing against the other.
                (false, true) if whole => Outcome::LostHedge { silent },
                // A peer that was asked just now has lost nothing.
                (false, _) => Outcome::Unused,
            };
            effects.push(Effect::Report { peer, start, outcome });
        }
        drop(delays);
        if let Some(RangeState::Active(attempts)) = self.ranges.get_mut(&start).map(|range| &mut range.state) {
            attempts.retain(|attempt| attempt.key == key);
        }
    }

    /// A worker reports data from its peer; `downloaded`: the data is complete.
    pub(super) fn on_progress(&mut self, now: Now, key: RangeKey, downloaded: bool, effects: &mut Vec<Effect>) {
        let Some(start) = self.start_of_attempt(key) else { return };
        let Some(range) = self.ranges.get_mut(&start) else { return };
        let commits = range.end.saturating_sub(start).saturating_add(1);
        let Some(attempt) = range.attempt_mut(key) else { return };
        let heard_at = attempt.heard_at.replace(now.monotonic);
        let first = heard_at.is_none();
        attempt.pause = attempt.pause.max(heard_at.map_or(Duration::ZERO, |at| now.monotonic.saturating_sub(at)));
        attempt.downloaded |= downloaded;
        let (asked, pause) = (attempt.asked, attempt.pause);
        if let Some((_, asked)) = asked.filter(|_| first) {
            self.flow.learn_first_answer(now, asked);
        }
        // Checks take this node's time, not the peer's.
        if let Some((peer, asked)) = asked.filter(|_| downloaded) {
            self.flow.learn_download(now, peer, asked, commits, pause);
        }
        if first {
            self.cancel_silent(now, start, effects);
        }
    }

    /// Cancels silent attempts once [`MAX_ANSWERING`] others answer: they would only share the link.
    fn cancel_silent(&mut self, now: Now, start: CommitIndex, effects: &mut Vec<Effect>) {
        let Some(range) = self.ranges.get(&start) else { return };
        let delays = self.delays(start, range);
        let attempts = range.attempts();
        let answers = |attempt: &&Attempt| attempt.heard_at.is_some() && attempt.silent_at(&delays) > now.monotonic;
        if attempts.iter().filter(answers).count() < MAX_ANSWERING {
            return;
        }
        let mut cancelled = Vec::new();
        for attempt in attempts.iter().filter(|attempt| attempt.heard_at.is_none()) {
            let Some((peer, _)) = attempt.asked else { continue };
            cancelled.push(attempt.key);
            effects.push(Effect::Cancel(attempt.key));
            let outcome = match attempt.silent_at(&delays) <= now.monotonic {
                true => Outcome::LostHedge { silent: true },
                false => Outcome::Unused,
            };
            effects.push(Effect::Report { peer, start, outcome });
        }
        drop(delays);
        if let Some(range) = self.ranges.get_mut(&start) {
            range.further = 0;
            for key in cancelled {
                range.take_attempt(key);
            }
        }
    }
}
