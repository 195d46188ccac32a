//! Attempts at a range: one worker at one peer each. A late attempt is hedged: another peer is asked as well, again and
//! again until one delivers, and whoever delivers first wins.
//!
//! ```text
//!   peer a   |------- delay -------|---------------------- ...  cancelled
//!   peer b                         |------- delay -------|- ...  cancelled
//!   peer c                                               |------ delivers
//! ```
//!
//! The delay is what downloads of that size have taken, and so much more that one in twenty takes longer. Only downloads
//! count: a range that is being checked waits for this node's own processor, and a second worker would only add to it.
//! A peer that answers slowly is hedged once. Peers that bring nothing are hedged again and again, for the next range in
//! order: all others wait for it. The delay is then what first answers take, and each round asks as many peers again as
//! have been asked before. Once two of them bring something the others are given up. When as many as may be are silent,
//! the one that is silent for longest makes room for another. So no number of silent peers holds a range for long.

use super::{
    Effect, Outcome, RangeKey, Shortfall, StateSync,
    flow::Asked,
    plan::{Range, RangeState},
};
use crate::{core::Now, peer_heights::NoPeer};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, PeerId};
use std::time::Duration;

/// Attempts at the next range in order at once. With the delays between them, a dozen peers are asked within a second at
/// the head.
pub const MAX_ATTEMPTS: usize = 12;

/// Attempts at any other range at once.
const MAX_ATTEMPTS_BEHIND: usize = 2;

/// Attempts at a range that have brought something: a further one would only share the line with them.
const MAX_ANSWERING: usize = 2;

/// Time after which the first of as many silent peers as may be asked at once makes room for another. It doubles with each
/// turn: if all peers are slow, one of them gets the time that it needs.
pub(super) const REPLACE_AFTER: Duration = Duration::from_millis(500);

/// How many times longer a range is waited for that others do not wait for.
const DELAYS_BEHIND: u32 = 3;

/// Workers at once. Beyond `max_workers` they fetch the next range in order.
pub fn most_workers(max_workers: usize) -> usize {
    max_workers + MAX_ATTEMPTS
}

/// One worker of a range, or the selection of a peer for one.
#[derive(Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) key: RangeKey,
    pub(super) reserve: u64,
    /// The peer that was asked. `None` while PeerHeights selects one.
    pub(super) asked: Option<(PeerId, Asked)>,
    /// When it last brought something.
    heard_at: Option<Duration>,
    /// The longest time between two things that it brought.
    pause: Duration,
    /// All has come; what is left is to check it.
    downloaded: bool,
}

impl Attempt {
    pub(super) fn selecting(key: RangeKey, reserve: u64) -> Self {
        Self { key, reserve, asked: None, heard_at: None, pause: Duration::ZERO, downloaded: false }
    }

    pub(super) fn at(key: RangeKey, reserve: u64, peer: PeerId, asked: Asked) -> Self {
        Self { asked: Some((peer, asked)), ..Self::selecting(key, reserve) }
    }

    /// When it counts as silent, if it brings nothing until then.
    fn silent_at(&self, delays: &Delays<impl Fn(PeerId) -> Duration>) -> Duration {
        match (self.asked, self.heard_at) {
            (Some((peer, _)), Some(heard_at)) => heard_at + delays.pause.unwrap_or_else(|| (delays.whole)(peer)),
            (Some((_, asked)), None) => asked.at + delays.first,
            (None, _) => Duration::ZERO,
        }
    }
}

/// How long a range is waited for.
struct Delays<D> {
    /// Until the first answer.
    first: Duration,
    /// Between two answers, if they are small.
    pause: Option<Duration>,
    /// From one peer, until all of it.
    whole: D,
}

impl Range {
    pub(super) fn attempts(&self) -> &[Attempt] {
        match &self.state {
            RangeState::Active(attempts) => attempts,
            _ => &[],
        }
    }

    fn attempt_mut(&mut self, key: RangeKey) -> Option<&mut Attempt> {
        match &mut self.state {
            RangeState::Active(attempts) => attempts.iter_mut().find(|attempt| attempt.key == key),
            _ => None,
        }
    }

    /// Takes an attempt out. The range stays active, if only in name: the caller gives it another state.
    fn take_attempt(&mut self, key: RangeKey) -> Option<Attempt> {
        let RangeState::Active(attempts) = &mut self.state else { return None };
        let at = attempts.iter().position(|attempt| attempt.key == key)?;
        Some(attempts.remove(at))
    }

    /// Peers that serve the range now.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.attempts().iter().filter_map(|attempt| attempt.asked.map(|(peer, _)| peer))
    }

    /// When another peer is asked as well, if one may be.
    fn hedge_at(&self, is_next: bool, delays: &Delays<impl Fn(PeerId) -> Duration>) -> Option<Duration> {
        let attempts = self.attempts();
        let last = attempts.last()?;
        let (peer, asked) = last.asked?;
        if attempts.iter().any(|attempt| attempt.downloaded) {
            return None;
        }
        let delay = match last.heard_at {
            None if is_next => delays.first,
            _ => (delays.whole)(peer),
        };
        let late_at = match attempts.len() {
            1.. if self.further > 0 => asked.at,
            MAX_ATTEMPTS.. => self.replace_at()?,
            MAX_ATTEMPTS_BEHIND.. if !is_next => return None,
            _ if !is_next => asked.at + delay * DELAYS_BEHIND,
            _ => asked.at + delay,
        };
        let late_at = late_at.max(self.no_hedge_at.map_or(Duration::ZERO, |at| at + delay));
        if attempts.len() < MAX_ANSWERING {
            return Some(late_at);
        }
        // As long as enough of them bring something, there is nothing to gain.
        let answering = attempts.iter().filter(|attempt| attempt.heard_at.is_some());
        let mut silent_at: Vec<_> = answering.map(|attempt| attempt.silent_at(delays)).collect();
        silent_at.sort_unstable_by(|one, other| other.cmp(one));
        Some(silent_at.get(MAX_ANSWERING - 1).map_or(late_at, |silent_at| late_at.max(*silent_at)))
    }

    /// The attempt that has brought nothing for longest, and since when.
    fn longest_silent(&self) -> Option<(RangeKey, PeerId, Duration)> {
        let since = |attempt: &Attempt| {
            let (peer, asked) = attempt.asked?;
            Some((attempt.key, peer, attempt.heard_at.unwrap_or(asked.at)))
        };
        self.attempts().iter().filter_map(since).min_by_key(|(_, _, since)| *since)
    }

    /// When that attempt makes room for another.
    fn replace_at(&self) -> Option<Duration> {
        let turns = (self.replaced as usize / MAX_ATTEMPTS).min(16);
        let (_, _, since) = self.longest_silent()?;
        Some(since + REPLACE_AFTER * (1 << turns))
    }
}

/// Peers that hold up the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The commit.
    pub commit: CommitIndex,
    /// How many were asked and bring nothing.
    pub silent: usize,
    /// How long ago the first of them was asked.
    pub waited: Duration,
}

impl StateSync {
    fn hedge_at(&self, start: CommitIndex, range: &Range) -> Option<Duration> {
        let is_wanted = range.end > self.tip.commit.index;
        is_wanted.then(|| range.hedge_at(self.is_next(start, range), &self.delays(start, range))).flatten()
    }

    /// Commits of the range that there are, as far as proven peers tell, and one at least: others may claim any number.
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

    /// When late attempts are hedged.
    pub(super) fn hedges_at(&self) -> impl Iterator<Item = Duration> {
        self.ranges.iter().filter_map(|(start, range)| self.hedge_at(*start, range))
    }

    /// Peers that were asked for the next commit and hold it up, once another was asked as well.
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

    /// Whether no attempt at the range brings anything now.
    fn are_all_silent(&self, now: Now, start: CommitIndex, range: &Range) -> bool {
        let delays = self.delays(start, range);
        range.attempts().iter().all(|attempt| attempt.silent_at(&delays) <= now.monotonic)
    }

    /// Has further peers selected for the ranges that are late, as far as bounds allow.
    pub(super) fn start_hedges(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_due = |(start, range): &(&CommitIndex, &Range)| {
            self.hedge_at(**start, range).is_some_and(|at| at <= now.monotonic)
        };
        let due: Vec<_> = self.ranges.iter().filter(is_due).map(|(start, _)| *start).collect();
        for start in due {
            let (next, others) = (self.bytes_of_next(), self.bytes_of_others());
            let Some(range) = self.ranges.get(&start) else { continue };
            let Some(reserve) = range.attempts().last().map(|attempt| attempt.reserve) else { continue };
            let is_next = self.is_next(start, range);
            let all_silent = self.are_all_silent(now, start, range);
            let fits = if is_next {
                others + next + reserve <= self.config.bytes_in_flight
            } else {
                others + reserve <= self.config.bytes_in_flight.saturating_sub(self.kept_for_next())
            };
            // Everything waits for the next range: its hedges have places of their own.
            if !fits || (!is_next && self.workers() >= self.config.max_workers) {
                continue;
            }
            let key = self.new_key();
            if let Some(range) = self.ranges.get_mut(&start) {
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
                } else if is_next && all_silent {
                    range.further = (asked - 1).min(MAX_ATTEMPTS.saturating_sub(asked + 1));
                }
                effects.push(Effect::Pick { key, start, tried: range.peers().collect(), hedge: true, next: is_next });
                if let RangeState::Active(attempts) = &mut range.state {
                    attempts.push(Attempt::selecting(key, reserve));
                }
            }
        }
    }

    /// Cancels hedges of ranges that are linked already: no commit waits for them.
    pub(super) fn cancel_stale_hedges(&mut self, effects: &mut Vec<Effect>) {
        let linked = self.tip.commit.index;
        for (start, range) in self.ranges.range_mut(..=linked).filter(|(_, range)| range.end <= linked) {
            let RangeState::Active(attempts) = &mut range.state else { continue };
            for hedge in attempts.drain(1..) {
                // A selection that is still to come is reported when it does.
                let Some((peer, _)) = hedge.asked else { continue };
                effects.push(Effect::Cancel(hedge.key));
                effects.push(Effect::Report { peer, start: *start, outcome: Outcome::Unused });
            }
        }
    }

    /// The first commit of the range that has an attempt with this key.
    pub(super) fn start_of_attempt(&self, key: RangeKey) -> Option<CommitIndex> {
        let has = |range: &Range| range.attempts().iter().any(|attempt| attempt.key == key);
        self.ranges.iter().find(|(_, range)| has(range)).map(|(start, _)| *start)
    }

    /// Whether the attempt is one of several at its range.
    pub(super) fn is_hedge(&self, start: CommitIndex) -> bool {
        self.ranges.get(&start).is_some_and(|range| range.attempts().len() > 1)
    }

    /// A peer was selected for a further attempt at the range at `start`, or there is none.
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

    /// An attempt has failed. Returns true if others go on: then the peer has been reported, and nothing is left to do.
    pub(super) fn drop_failed_hedge(&mut self, key: RangeKey, outcome: Outcome, effects: &mut Vec<Effect>) -> bool {
        let Some(start) = self.start_of_attempt(key).filter(|start| self.is_hedge(*start)) else { return false };
        let attempt = self.ranges.get_mut(&start).and_then(|range| range.take_attempt(key));
        effects.push(Effect::Discard(key));
        if let Some((peer, _)) = attempt.and_then(|attempt| attempt.asked) {
            effects.push(Effect::Report { peer, start, outcome });
        }
        true
    }

    /// An attempt has delivered: ends all others at its range. `whole` tells whether it has delivered all of the range.
    pub(super) fn cancel_others(&mut self, now: Now, key: RangeKey, whole: bool, effects: &mut Vec<Effect>) {
        let Some(start) = self.start_of_attempt(key) else { return };
        let Some(range) = self.ranges.get(&start) else { return };
        {
            let delays = self.delays(start, range);
            for attempt in range.attempts().iter().filter(|attempt| attempt.key != key) {
                // A selection that is still to come is reported when it does.
                let Some((peer, asked)) = attempt.asked else { continue };
                effects.push(Effect::Cancel(attempt.key));
                let silent = attempt.silent_at(&delays) <= now.monotonic;
                let slow = asked.at + (delays.whole)(peer) <= now.monotonic;
                let outcome = match (silent, slow) {
                    (true, _) => Outcome::LostHedge { silent },
                    // A peer that delivers less of a range is done with it sooner.
                    (false, true) if whole => Outcome::LostHedge { silent },
                    // One that was asked just now has lost nothing.
                    (false, _) => Outcome::Unused,
                };
                effects.push(Effect::Report { peer, start, outcome });
            }
        }
        if let Some(RangeState::Active(attempts)) = self.ranges.get_mut(&start).map(|range| &mut range.state) {
            attempts.retain(|attempt| attempt.key == key);
        }
    }

    /// A worker has brought something of its range, or all of it.
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
        // From now on it is not the peer's time.
        if let Some((peer, asked)) = asked.filter(|_| downloaded) {
            self.flow.learn_download(now, peer, asked, commits, pause);
        }
        if first {
            self.give_up_silent(now, start, effects);
        }
    }

    /// Ends attempts that have brought nothing while enough others do: they would only share the line with them.
    fn give_up_silent(&mut self, now: Now, start: CommitIndex, effects: &mut Vec<Effect>) {
        let Some(range) = self.ranges.get(&start) else { return };
        let delays = self.delays(start, range);
        let attempts = range.attempts();
        let brings = |attempt: &&Attempt| attempt.heard_at.is_some() && attempt.silent_at(&delays) > now.monotonic;
        if attempts.iter().filter(brings).count() < MAX_ANSWERING {
            return;
        }
        let mut ended = Vec::new();
        for attempt in attempts.iter().filter(|attempt| attempt.heard_at.is_none()) {
            let Some((peer, _)) = attempt.asked else { continue };
            ended.push(attempt.key);
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
            for key in ended {
                range.take_attempt(key);
            }
        }
    }
}

/// How a worker's end that delivered nothing of use is reported, if another one may still do better.
pub(super) fn failure(nothing: bool, shortfall: Option<&Shortfall>) -> Option<Outcome> {
    match shortfall {
        Some(Shortfall::Failed(failure)) => Some(Outcome::Failed(failure.clone())),
        Some(Shortfall::OtherEpoch { .. } | Shortfall::Cut) if nothing => Some(Outcome::Unused),
        _ => None,
    }
}
