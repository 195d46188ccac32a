//! The plan: ranges from the last linked commit upward, and the start of ranges.
//!
//! ```text
//!   tip                                                   horizon
//!    |-- Active --|-- Done --|-- Waiting --|  (not cut yet)  |
//!     next range                             cut when its turn comes
//! ```

use super::{
    Effect, LOCAL_GRACE, RangeKey, StateSync,
    range::{Attempt, Range, RangeState},
};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Outcome, Target},
};
use soma_types::{CommitIndex, Epoch, PeerId};
use std::time::Duration;

/// Ranges that are cut ahead of their start. Later ones are cut when their turn comes: the size of commits is known by
/// then, and each step looks through fewer ranges.
pub(super) const CUT_AHEAD: usize = 4;

/// Commits that no range covers.
struct Gap {
    start: CommitIndex,
    end: CommitIndex,
    /// Ranges below the gap that are due.
    due_below: usize,
}

/// Bounds on new workers, and the part of the bounds in use.
struct Budget {
    workers: usize,
    max_workers: usize,
    /// Reserved by ranges behind the next one, or being written.
    bytes_behind: u64,
    max_bytes: u64,
    /// Part of `max_bytes` that only the next range may use.
    kept_for_next: u64,
    /// Expected bytes of running workers.
    in_flight: u64,
    window: u64,
}

/// Answer of [`Budget::admit`].
enum Admission {
    Start,
    /// The range does not fit; a later one may.
    Skip,
    /// No later range fits either.
    Full {
        /// Whether the window is the limit.
        of_window: bool,
    },
}

impl Budget {
    /// Takes a worker, its reserve and its expected bytes from the budget, if they fit.
    fn admit(&mut self, is_next: bool, reserve: u64, expected: u64) -> Admission {
        // All others wait for the next range, so it has a worker and bytes of its own.
        if self.workers >= self.max_workers + usize::from(is_next) {
            return Admission::Full { of_window: false };
        }
        if is_next {
            if self.bytes_behind + reserve > self.max_bytes {
                return Admission::Skip;
            }
        } else {
            let of_window = self.in_flight + expected > self.window;
            if of_window || self.bytes_behind + reserve > self.max_bytes.saturating_sub(self.kept_for_next) {
                return Admission::Full { of_window };
            }
            self.bytes_behind += reserve;
        }
        self.workers += 1;
        self.in_flight += expected;
        Admission::Start
    }
}

impl StateSync {
    /// A key that was never used before.
    pub(super) fn new_key(&mut self) -> RangeKey {
        self.next_key += 1;
        RangeKey(self.next_key)
    }

    /// The epoch of a commit beyond the tip, as far as known ends of epochs tell.
    pub(super) fn epoch_of(&self, index: CommitIndex) -> Epoch {
        self.handovers.range(..index).next_back().map_or(self.tip.next_epoch, |(_, epoch)| *epoch)
    }

    pub(super) fn add_waiting(&mut self, start: CommitIndex, end: CommitIndex, not_before: Duration) -> &mut Range {
        // Ranges never overlap, so no range has this start.
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
        if self.skip.as_ref().is_some_and(|skip| skip.is_picking(key)) {
            return self.on_skip_picked(now, key, picked, effects);
        }
        if self.backfill.is_picking(key) {
            return self.on_backfill_picked(now, picked, effects);
        }
        let start = self.start_of_attempt(key);
        if let Some(start) = start.filter(|start| self.is_hedge(*start)) {
            return self.on_hedge_picked(now, start, key, picked, effects);
        }
        let range = start.and_then(|start| Some((start, self.ranges.remove(&start)?)));
        // Meanwhile the node's own consensus may have made all commits of the range.
        let Some((start, mut range)) = range.filter(|(_, range)| range.end > self.tip.commit.index) else {
            if let Ok(peer) = picked {
                effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
            }
            return;
        };
        let start = start.max(self.tip.commit.index + 1);
        match picked {
            Ok(peer) => effects.push(self.start_worker(now, key, peer, start, &mut range)),
            Err(reason) => {
                if matches!(reason, NoPeer::AllPruned { .. }) {
                    self.on_all_pruned(now);
                }
                self.note_no_peer(start, reason);
                range.no_peer = Some(reason);
                range.state = RangeState::Waiting { not_before: now.monotonic + self.config.no_peer_wait };
            }
        }
        self.ranges.insert(start, range);
    }

    /// Starts a worker for the range. A slow peer gets a part of it; the rest becomes a range of its own.
    fn start_worker(&mut self, now: Now, key: RangeKey, peer: PeerId, start: CommitIndex, range: &mut Range) -> Effect {
        let end = self.flow.end_for(&self.config, peer, start, range.end_of_attempt(start, &self.config));
        if end < range.end {
            self.add_waiting(end + 1, range.end, now.monotonic);
            range.end = end;
        }
        let reserved = range.bytes();
        // What the range reserved before it was cut is free for others.
        let max_bytes =
            if range.is_single() { reserved } else { reserved.min(self.flow.reserve(&self.config, end - start + 1)) };
        let asked = self.flow.asked(now, peer);
        range.state = RangeState::Active(vec![Attempt::at(key, max_bytes, peer, asked)]);
        (range.no_peer, range.no_hedge_at) = (None, None);
        (range.further, range.replaced) = (0, 0);
        let (proof_end, epoch) = (range.proof_end(start), self.epoch_of(start));
        Effect::Fetch { key, peer, start, end: range.end, proof_end, epoch, max_bytes }
    }

    /// Releases held ranges whose committee is known by now, and the next range: its stated epoch is about to be
    /// tested.
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

    /// Removes linked commits from the plan: waiting ranges shrink, active ones end in [`Self::link`].
    pub(super) fn trim_linked(&mut self, effects: &mut Vec<Effect>) {
        self.cancel_stale_hedges(effects);
        let linked = self.tip.commit.index;
        let stale = self.ranges.range(..=linked).filter(|(_, range)| !range.is_under_way()).map(|(start, _)| *start);
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

    /// Plans as far as the bounds allow, and has peers selected for all ranges that can start.
    pub(super) fn start_ranges(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.last_now = now.monotonic;
        let target = self.horizon();
        self.ranges.retain(|start, range| {
            *start <= target || range.is_under_way() || matches!(range.state, RangeState::Done { .. })
        });
        self.start_hedges(now, effects);
        loop {
            self.cut_ranges(now);
            if !self.start_waiting(now, effects) {
                break;
            }
        }
    }

    /// Has peers selected for the waiting ranges that fit into the budget. Returns whether any started.
    fn start_waiting(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let next = self.tip.commit.index + 1;
        let is_held = self.is_full_batch_held(now.monotonic);
        let mut budget = self.budget();
        if is_held {
            budget.window = 0;
        }
        let (mut window_full, mut started) = (false, false);
        let due: Vec<_> = self.ranges.iter().filter(|(_, range)| range.is_due(now)).map(|(start, _)| *start).collect();
        for start in due {
            let Some(range) = self.ranges.get(&start) else { continue };
            let commits = range.commits_of_attempt(start, &self.config);
            let reserve = match range.is_single() {
                true => self.config.bytes_per_range,
                false => self.flow.reserve(&self.config, commits),
            };
            match budget.admit(start <= next, reserve, self.flow.expected(commits)) {
                Admission::Start => {
                    self.start_selection(start, reserve, effects);
                    started = true;
                }
                Admission::Skip => {}
                Admission::Full { of_window } => {
                    window_full = of_window;
                    break;
                }
            }
        }
        self.flow.note_filled(window_full && !is_held);
        started
    }

    /// Asks PeerHeights for a peer for a waiting range.
    fn start_selection(&mut self, start: CommitIndex, reserve: u64, effects: &mut Vec<Effect>) {
        let (key, next) = (self.new_key(), start <= self.tip.commit.index + 1);
        let Some(range) = self.ranges.get_mut(&start) else { return };
        range.state = RangeState::Active(vec![Attempt::selecting(key, reserve)]);
        effects.push(Effect::Pick { key, start, tried: range.failed_at.clone(), hedge: false, next });
    }

    fn budget(&self) -> Budget {
        let active = self.ranges.iter().filter(|(_, range)| range.is_active());
        let expected =
            |(start, range): (&CommitIndex, &Range)| self.flow.expected(range.commits_of_attempt(*start, &self.config));
        Budget {
            workers: self.workers(),
            max_workers: self.config.max_workers,
            bytes_behind: self.bytes_of_others(),
            max_bytes: self.config.bytes_in_flight,
            kept_for_next: self.kept_for_next(),
            in_flight: active.map(expected).sum(),
            window: self.flow.window(),
        }
    }

    /// Workers that run or are about to start, without hedges of the next range.
    pub(super) fn workers(&self) -> usize {
        let of = |(start, range): (&CommitIndex, &Range)| match self.is_next(*start, range) {
            true => usize::from(range.is_active()),
            false => range.attempts().len(),
        };
        self.ranges.iter().map(of).sum()
    }

    /// Whether the range has the next commit to link. All other ranges wait for it.
    pub(super) fn is_next(&self, start: CommitIndex, range: &Range) -> bool {
        (start..=range.end).contains(&(self.tip.commit.index + 1))
    }

    /// Bytes of the next range.
    pub(super) fn bytes_of_next(&self) -> u64 {
        self.ranges.iter().filter(|(start, range)| self.is_next(**start, range)).map(|(_, range)| range.bytes()).sum()
    }

    /// Bytes of all other ranges, of pending writes and of backfill.
    pub(super) fn bytes_of_others(&self) -> u64 {
        let others = self.ranges.iter().filter(|(start, range)| !self.is_next(**start, range));
        self.write.bytes() + self.backfill.bytes() + others.map(|(_, range)| range.bytes()).sum::<u64>()
    }

    /// Bytes that other ranges leave to the next one: the maximum of a range, or the bytes of all attempts at it. So
    /// the budget can never lock out the range that would free it.
    pub(super) fn kept_for_next(&self) -> u64 {
        self.config.bytes_per_range.max(self.bytes_of_next())
    }

    /// Cuts ranges from the tip to the horizon: a few more than have started, within the bound on their number.
    fn cut_ranges(&mut self, now: Now) {
        let not_before = self.not_before(now);
        let commits = self.flow.commits(&self.config);
        let next = self.tip.commit.index + 1;
        let mut cut = 0;
        for Gap { mut start, end, due_below } in self.gaps(now) {
            // The next commits always have a place: all ranges wait for them.
            while start <= end
                && due_below + cut < CUT_AHEAD
                && (self.ranges.len() < self.config.ranges_ahead || start == next)
            {
                let last = end.min(start.saturating_add(commits - 1));
                self.add_waiting(start, last, not_before);
                cut += usize::from(not_before <= now.monotonic);
                start = last.saturating_add(1);
            }
        }
    }

    /// Commits between the tip and the horizon without a range. Heights that fall and rise again leave gaps between
    /// ranges. Only due ranges below a gap count against [`CUT_AHEAD`]: those above may wait for the gap itself.
    fn gaps(&self, now: Now) -> Vec<Gap> {
        let target = self.horizon();
        let (mut gaps, mut next, mut due_below) = (Vec::new(), self.tip.commit.index + 1, 0);
        for (start, range) in &self.ranges {
            // Behind a held range even the epoch is unknown.
            if matches!(range.state, RangeState::Held { .. }) {
                return gaps;
            }
            // An active range may lie beyond all advertised heights. The commits before it are not planned then.
            if *start > next && next <= target {
                gaps.push(Gap { start: next, end: target.min(start - 1), due_below });
            }
            next = next.max(range.end.saturating_add(1));
            due_below += usize::from(range.is_due(now));
        }
        if next <= target && next < CommitIndex::MAX {
            gaps.push(Gap { start: next, end: target, due_below });
        }
        gaps
    }

    /// When new ranges may start. A node with a working consensus leaves the next commits to it for a while.
    fn not_before(&self, now: Now) -> Duration {
        let near = self.target() - self.tip.commit.index <= self.config.commits_per_fetch;
        match self.local.last_linked() {
            Some(at) if near && now.monotonic < at + LOCAL_GRACE => at + LOCAL_GRACE,
            _ => now.monotonic,
        }
    }
}
