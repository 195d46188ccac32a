//! The plan: ranges from the last linked commit upward, and what happens to each.

use super::{
    Config, Effect, LOCAL_GRACE, MAX_ANSWER_COMMITS, Outcome, RETRY, RangeKey, Shortfall, StateSync, Verified,
    attempt::{self, Attempt, MAX_ATTEMPTS},
};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Target},
};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, Fault, PeerFailure, PeerId};
use std::time::Duration;

/// Ranges that are cut and not started yet. Later ones are cut when their turn comes: by then it is known what commits
/// take, and there are few to look through at each step.
pub(super) const CUT_AHEAD: usize = 4;

/// Of the attempts at a range that fails with peers which never served anything, one of so many is for a range with more
/// commits behind it.
pub(super) const WIDE_EVERY: u32 = 4;

/// One planned range; its first commit is its key in the plan.
#[derive(Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) end: CommitIndex,
    pub(super) state: RangeState,
    /// Failures in a row.
    pub(super) attempts: u32,
    /// Peers at which it failed since anything of it came, the last `MAX_ATTEMPTS`: others are asked first.
    failed_at: Vec<PeerId>,
    /// Why nobody could serve it when last asked.
    pub(super) no_peer: Option<NoPeer>,
    /// Why it failed last.
    pub(super) last_failure: Option<String>,
    /// What it reserved was too little for its first commit: it reserves all that a range may.
    outgrown: bool,
    /// Who has its commits may have no votes for the last: it is asked for with the commits behind it that prove it.
    wide: bool,
    /// When no further peer could be asked for it.
    pub(super) no_hedge_at: Option<Duration>,
    /// Hedges of the same round that are still to be started.
    pub(super) further: usize,
    /// Attempts that were given up for others.
    pub(super) replaced: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) enum RangeState {
    /// To be started, not before this time.
    Waiting { not_before: Duration },
    /// Workers fetch it, or peers are being selected for them. There is one at least.
    Active(Vec<Attempt>),
    /// Verified; the bytes wait in the shell under the key to be linked.
    Done { key: RangeKey, peer: PeerId, verified: Verified },
    /// Said to be of this epoch, whose committee is not known yet.
    Held { epoch: Epoch },
}

impl Range {
    fn waiting(end: CommitIndex, not_before: Duration) -> Self {
        Self {
            end,
            state: RangeState::Waiting { not_before },
            attempts: 0,
            failed_at: Vec::new(),
            no_peer: None,
            last_failure: None,
            outgrown: false,
            wide: false,
            no_hedge_at: None,
            further: 0,
            replaced: 0,
        }
    }

    /// Whether it has a worker or is about to.
    fn is_active(&self) -> bool {
        matches!(self.state, RangeState::Active(_))
    }

    /// Whether it is asked for as one answer: with room for the largest there may be, or with more commits behind it.
    fn is_single(&self) -> bool {
        self.outgrown || self.wide
    }

    /// How far it goes this time.
    fn end_of_attempt(&self, start: CommitIndex, config: &Config) -> CommitIndex {
        let end_of_answer = start.saturating_add(config.commits_per_fetch.max(1) - 1);
        if self.is_single() { self.end.min(end_of_answer) } else { self.end }
    }

    /// How far commits may be asked for to prove it by.
    pub(super) fn proof_end(&self, start: CommitIndex) -> CommitIndex {
        if self.wide { start.saturating_add(MAX_ANSWER_COMMITS - 1).max(self.end) } else { self.end }
    }

    /// Bytes that it may hold now.
    pub(super) fn bytes(&self) -> u64 {
        match &self.state {
            RangeState::Active(attempts) => attempts.iter().map(|attempt| attempt.reserve).sum(),
            RangeState::Done { verified, .. } => verified.bytes,
            RangeState::Waiting { .. } | RangeState::Held { .. } => 0,
        }
    }

    /// Goes back to be tried again: at once if the peer is to blame, for PeerHeights does not pick that one again so soon,
    /// and the next one may have it; later if none is.
    pub(super) fn fail(&mut self, now: Now, peer: Option<PeerId>, is_blamed: bool, reason: String) {
        let delay = match is_blamed {
            true => Duration::ZERO,
            false => RETRY.wait(self.attempts),
        };
        self.attempts += 1;
        if let Some(peer) = peer.filter(|peer| !self.failed_at.contains(peer)) {
            self.failed_at.truncate(MAX_ATTEMPTS - 1);
            self.failed_at.insert(0, peer);
        }
        self.no_peer = None;
        self.last_failure = Some(reason);
        self.state = RangeState::Waiting { not_before: now.monotonic + delay };
    }
}

impl StateSync {
    /// A key that was never used before.
    pub(super) fn new_key(&mut self) -> RangeKey {
        self.next_key += 1;
        RangeKey(self.next_key)
    }

    /// The epoch of a commit beyond the tip, as far as the known handovers tell.
    pub(super) fn epoch_of(&self, index: CommitIndex) -> Epoch {
        self.handovers.range(..index).next_back().map_or(self.tip.next_epoch, |(_, epoch)| *epoch)
    }

    pub(super) fn add_waiting(&mut self, start: CommitIndex, end: CommitIndex, not_before: Duration) -> &mut Range {
        // Ranges never overlap, so there is none with this start yet.
        self.ranges.entry(start).or_insert(Range::waiting(end, not_before))
    }

    pub(super) fn on_target(&mut self, now: Now, target: Target) {
        self.claimed = target;
        for range in self.ranges.values_mut() {
            if let (RangeState::Waiting { not_before }, Some(_)) = (&mut range.state, &range.no_peer) {
                *not_before = now.monotonic;
            }
            range.no_hedge_at = None;
        }
    }

    pub(super) fn on_picked(
        &mut self,
        now: Now,
        key: RangeKey,
        picked: Result<PeerId, NoPeer>,
        effects: &mut Vec<Effect>,
    ) {
        let start = self.start_of_attempt(key);
        if let Some(start) = start.filter(|start| self.is_hedge(*start)) {
            return self.on_hedge_picked(now, start, key, picked, effects);
        }
        // What the node's own consensus has made meanwhile is not fetched.
        let wanted = start.filter(|start| self.ranges[start].end > self.tip.commit.index);
        let Some(start) = wanted else {
            if let Some(start) = start {
                self.ranges.remove(&start);
            }
            if let Ok(peer) = picked {
                effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
            }
            return;
        };
        let Some(mut range) = self.ranges.remove(&start) else { return };
        let start = start.max(self.tip.commit.index + 1);
        match picked {
            Ok(peer) => {
                let end = self.flow.end_for(&self.config, peer, start, range.end_of_attempt(start, &self.config));
                if end < range.end {
                    self.add_waiting(end + 1, range.end, now.monotonic);
                    range.end = end;
                }
                let reserved = range.bytes();
                // What it was to have before it was cut is for others.
                let reserve = if range.is_single() {
                    reserved
                } else {
                    reserved.min(self.flow.reserve(&self.config, end - start + 1))
                };
                let asked = self.flow.asked(now, peer);
                range.state = RangeState::Active(vec![Attempt::at(key, reserve, peer, asked)]);
                (range.no_peer, range.no_hedge_at) = (None, None);
                (range.further, range.replaced) = (0, 0);
                effects.push(Effect::Fetch {
                    key,
                    peer,
                    start,
                    end: range.end,
                    proof_end: range.proof_end(start),
                    epoch: self.epoch_of(start),
                    max_bytes: reserve,
                });
            }
            Err(reason) => {
                range.no_peer = Some(reason);
                range.state = RangeState::Waiting { not_before: now.monotonic + self.config.no_peer_wait };
            }
        }
        self.ranges.insert(start, range);
    }

    pub(super) fn on_worker_done(
        &mut self,
        now: Now,
        key: RangeKey,
        verified: Option<Verified>,
        shortfall: Option<Shortfall>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(start) = self.start_of_attempt(key) else { return effects.push(Effect::Discard(key)) };
        if let Some(outcome) = attempt::failure(verified.is_none(), shortfall.as_ref())
            && self.drop_failed_hedge(key, outcome, effects)
        {
            return;
        }
        self.cancel_others(now, key, shortfall.is_none(), effects);
        let asked = self.ranges.get(&start).and_then(|range| range.attempts().first()?.asked);
        let Some((peer, asked)) = asked else { return effects.push(Effect::Discard(key)) };
        if let Some(verified) = &verified {
            self.flow.learn(now, peer, asked, verified, self.config.bytes_in_flight);
            self.counters.commits_fetched += u64::from(verified.last.index - verified.first) + 1;
            self.counters.blocks_fetched += verified.blocks;
            self.counters.bytes_fetched += verified.bytes;
            self.proven = self.proven.max(verified.last.index);
            // A late result for what is linked already tells nothing new.
            if verified.ends_epoch && verified.last.index > self.tip.commit.index {
                self.handovers.insert(verified.last.index, verified.epoch + 1);
            }
        }
        let Some(mut range) = self.ranges.remove(&start) else { return };
        let (end, outgrown) = (range.end, range.outgrown);
        let nothing = verified.is_none();
        let (attempts, failed_at) = match verified {
            Some(_) => (0, Vec::new()),
            None => (range.attempts, std::mem::take(&mut range.failed_at)),
        };
        // What came is kept; what did not goes back as a range of its own.
        let missing_from = verified.as_ref().map_or(start, |verified| verified.last.index + 1);
        let mut outcome = match (&shortfall, &verified) {
            // What was lost on the way is nobody's fault while something comes.
            (Some(Shortfall::Failed(failure)), delivered) if failure.fault != Fault::Slow || delivered.is_none() => {
                Outcome::Failed(failure.clone())
            }
            (_, Some(verified)) => Outcome::Served { last: verified.last.index, bytes: verified.bytes },
            (_, None) => Outcome::Unused,
        };
        if let Some(verified) = verified {
            range.end = verified.last.index;
            range.state = RangeState::Done { key, peer, verified };
            self.ranges.insert(start, range);
        } else {
            effects.push(Effect::Discard(key));
        }
        if missing_from <= end {
            let next_is_due = missing_from == self.tip.commit.index + 1;
            let (due, known) = (self.tip.next_epoch, self.epoch_of(missing_from));
            let has_served = self.flow.has_served(peer);
            let rest = self.add_waiting(missing_from, end, now.monotonic);
            (rest.attempts, rest.failed_at) = (attempts, failed_at);
            match shortfall {
                Some(Shortfall::Failed(PeerFailure { fault, reason, .. })) => {
                    rest.fail(now, Some(peer), fault != Fault::Ours, reason);
                    // Of one that has never served anything it is most likely that it has nothing; not for ever, though.
                    rest.wide = has_served || rest.attempts.is_multiple_of(WIDE_EVERY);
                }
                // Its committee has become known since the worker began.
                Some(Shortfall::OtherEpoch { found, .. }) if found == known => {}
                // The epoch of the next commit is known for certain: this is no commit of the chain.
                Some(Shortfall::OtherEpoch { index, found }) if next_is_due => {
                    let reason = format!("commit {index} is said to be of epoch {found}, but epoch {due} is due");
                    rest.fail(now, Some(peer), true, reason.clone());
                    outcome = Outcome::Failed(PeerFailure::new(Fault::Unproven, reason));
                }
                Some(Shortfall::OtherEpoch { found, .. }) => rest.state = RangeState::Held { epoch: found },
                // One commit with its votes and blocks is more than what was reserved.
                Some(Shortfall::Cut) if nothing && !outgrown => rest.outgrown = true,
                Some(Shortfall::Cut) if nothing => {
                    rest.fail(now, Some(peer), false, format!("commit {missing_from} is larger than a range may be"));
                }
                Some(Shortfall::Cut) | None => {}
            }
        }
        // What it did deliver it has: its claim is doubted from there on.
        effects.push(Effect::Report { peer, start: missing_from.min(end), outcome });
        self.release_held(now);
    }

    pub(super) fn on_worker_failed(&mut self, now: Now, key: RangeKey, reason: String, effects: &mut Vec<Effect>) {
        let Some(start) = self.start_of_attempt(key) else { return effects.push(Effect::Discard(key)) };
        self.counters.worker_failures += 1;
        if self.drop_failed_hedge(key, Outcome::Unused, effects) {
            return;
        }
        effects.push(Effect::Discard(key));
        let Some(range) = self.ranges.get_mut(&start) else { return };
        let peers: Vec<_> = range.peers().collect();
        range.fail(now, None, false, reason);
        effects.extend(peers.into_iter().map(|peer| Effect::Report { peer, start: 0, outcome: Outcome::Unused }));
    }

    /// Lets held ranges go whose epoch's committee is known by now, or whose claim is about to be tested.
    pub(super) fn release_held(&mut self, now: Now) {
        let next = self.tip.commit.index + 1;
        let held = self.ranges.iter().filter_map(|(start, range)| match range.state {
            RangeState::Held { epoch } if *start <= next || self.epoch_of(*start) == epoch => Some(*start),
            _ => None,
        });
        for start in held.collect::<Vec<_>>() {
            if let Some(range) = self.ranges.get_mut(&start) {
                range.state = RangeState::Waiting { not_before: now.monotonic };
            }
        }
    }

    /// Takes out of the plan what is linked already: ranges that wait shrink, ranges at work end in [`Self::link`].
    pub(super) fn trim_linked(&mut self, effects: &mut Vec<Effect>) {
        self.cancel_stale_hedges(effects);
        let linked = self.tip.commit.index;
        let stale = self.ranges.range(..=linked).filter(|(_, range)| !range.is_active()).map(|(start, _)| *start);
        for start in stale.collect::<Vec<_>>() {
            let Some(range) = self.ranges.remove(&start) else { continue };
            if let RangeState::Done { key, verified, .. } = &range.state {
                self.counters.commits_discarded += u64::from(verified.last.index - verified.first) + 1;
                effects.push(Effect::Discard(*key));
            }
            if range.end > linked {
                let not_before = match range.state {
                    RangeState::Waiting { not_before } => not_before,
                    _ => Duration::ZERO,
                };
                self.add_waiting(linked + 1, range.end, not_before);
            }
        }
    }

    /// Plans as far as bounds allow and asks for peers for what can start now.
    pub(super) fn start_ranges(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.last_now = now.monotonic;
        let target = self.horizon();
        self.ranges.retain(|start, range| {
            *start <= target || range.is_active() || matches!(range.state, RangeState::Done { .. })
        });
        self.start_hedges(now, effects);
        loop {
            self.cut_ranges(now);
            if !self.start_waiting(now, effects) {
                break;
            }
        }
    }

    /// Asks for peers for what can start now. Whether there was any.
    fn start_waiting(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let most = self.config.bytes_per_range;
        let next = self.tip.commit.index + 1;
        let mut active = self.workers();
        let mut next_key = self.next_key;
        // As much as a range may ever have is kept for the next range in order, so that the budget can never lock out the
        // very range that would free it; the rest is shared by all others. What is being written frees itself.
        let (budget, kept) = (self.config.bytes_in_flight, self.kept_for_next());
        let mut others = self.bytes_of_others();
        let length = |start: CommitIndex, range: &Range| {
            range.end_of_attempt(start, &self.config).saturating_sub(start).saturating_add(1)
        };
        let on_their_way = self.ranges.iter().filter(|(_, range)| range.is_active());
        let mut on_their_way: u64 = on_their_way.map(|(start, range)| self.flow.expected(length(*start, range))).sum();
        let (mut filled, mut started) = (false, false);
        for (start, range) in &mut self.ranges {
            // All others wait for the next range: it has a place of its own.
            if active >= self.config.max_workers + usize::from(*start <= next) {
                break;
            }
            let RangeState::Waiting { not_before } = range.state else { continue };
            if not_before > now.monotonic {
                continue;
            }
            let commits = length(*start, range);
            let (expected, reserve) = (self.flow.expected(commits), self.flow.reserve(&self.config, commits));
            let reserve = if range.is_single() { most } else { reserve };
            if *start > next {
                filled = on_their_way + expected > self.flow.window();
                if filled || others + reserve > budget.saturating_sub(kept) {
                    break;
                }
                others += reserve;
            } else if others + reserve > budget {
                continue;
            }
            (active, started) = (active + 1, true);
            on_their_way += expected;
            next_key += 1;
            let key = RangeKey(next_key);
            range.state = RangeState::Active(vec![Attempt::selecting(key, reserve)]);
            let tried = range.failed_at.clone();
            effects.push(Effect::Pick { key, start: *start, tried, hedge: false, next: *start <= next });
        }
        self.next_key = next_key;
        self.flow.note_filled(filled);
        started
    }

    /// Workers at work and about to be, without those that hedge the next range.
    pub(super) fn workers(&self) -> usize {
        let of = |(start, range): (&CommitIndex, &Range)| match self.is_next(*start, range) {
            true => usize::from(range.is_active()),
            false => range.attempts().len(),
        };
        self.ranges.iter().map(of).sum()
    }

    pub(super) fn is_next(&self, start: CommitIndex, range: &Range) -> bool {
        (start..=range.end).contains(&(self.tip.commit.index + 1))
    }

    /// Bytes of the range that everything waits for.
    pub(super) fn bytes_of_next(&self) -> u64 {
        self.ranges.iter().filter(|(start, range)| self.is_next(**start, range)).map(|(_, range)| range.bytes()).sum()
    }

    /// Bytes of all other ranges and of what is being written.
    pub(super) fn bytes_of_others(&self) -> u64 {
        let others = self.ranges.iter().filter(|(start, range)| !self.is_next(**start, range));
        self.write.bytes() + others.map(|(_, range)| range.bytes()).sum::<u64>()
    }

    /// Bytes that others leave to the next range: what a range may ever have, or what all attempts at it have.
    pub(super) fn kept_for_next(&self) -> u64 {
        self.config.bytes_per_range.max(self.bytes_of_next())
    }

    /// Covers the commits from the tip to the target with ranges, some more than have been started, and as far up as their
    /// number may go. Gaps are filled wherever they are: claims that fall and rise again leave some.
    fn cut_ranges(&mut self, now: Now) {
        let target = self.horizon();
        let mut gaps = Vec::new();
        let mut next = self.tip.commit.index + 1;
        let mut due = 0;
        for (start, range) in &self.ranges {
            // Behind a held range even the epoch is unknown.
            if matches!(range.state, RangeState::Held { .. }) {
                next = CommitIndex::MAX;
                break;
            }
            // A range at work may lie beyond what anybody claims by now; the commits between are not asked for.
            if *start > next && next <= target {
                gaps.push((next, target.min(start - 1), due));
            }
            next = next.max(range.end.saturating_add(1));
            due +=
                usize::from(matches!(range.state, RangeState::Waiting { not_before } if not_before <= now.monotonic));
        }
        if next <= target && next < CommitIndex::MAX {
            gaps.push((next, target, due));
        }
        let not_before = self.not_before(now);
        let commits = self.flow.commits(&self.config);
        let mut cut = 0;
        // Those that wait further up do not count: they may be waiting for the budget, and that for the very commits between.
        let next = self.tip.commit.index + 1;
        for (mut start, last, due) in gaps {
            // The next commits always have a place: whatever else there is waits for them.
            while start <= last
                && due + cut < CUT_AHEAD
                && (self.ranges.len() < self.config.ranges_ahead || start == next)
            {
                let end = last.min(start.saturating_add(commits - 1));
                self.add_waiting(start, end, not_before);
                cut += usize::from(not_before <= now.monotonic);
                start = end.saturating_add(1);
            }
        }
    }

    /// A node whose own consensus keeps up leaves the next commits to it for a while.
    fn not_before(&self, now: Now) -> Duration {
        let near = self.target() - self.tip.commit.index <= self.config.commits_per_fetch;
        match self.local.last_linked() {
            Some(at) if near && now.monotonic < at + LOCAL_GRACE => at + LOCAL_GRACE,
            _ => now.monotonic,
        }
    }
}
