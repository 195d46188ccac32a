//! The plan: ranges from the last linked commit upward, and what happens to each.

use super::{
    Config, Effect, LOCAL_GRACE, MAX_ANSWER_COMMITS, Outcome, RETRY_MAX, RETRY_MIN, RangeKey, Shortfall, StateSync,
    Verified,
    backup::{self, Backup},
    flow::Asked,
};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Target},
};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, Fault, PeerId};
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
    pub(super) key: RangeKey,
    pub(super) end: CommitIndex,
    pub(super) state: RangeState,
    /// Failures in a row.
    pub(super) attempts: u32,
    /// Who failed last.
    avoid: Option<PeerId>,
    /// Why nobody could serve it when last asked.
    pub(super) no_peer: Option<NoPeer>,
    /// Why it failed last.
    pub(super) last_failure: Option<String>,
    /// What it reserved was too little for its first commit: it reserves all that a range may.
    outgrown: bool,
    /// Who has its commits may have no votes for the last: it is asked for with the commits behind it that prove it.
    wide: bool,
    /// Its second worker.
    pub(super) backup: Option<Backup>,
    /// When there was nobody else to ask for it, or one of two had failed.
    pub(super) no_backup_at: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum RangeState {
    /// To be started, not before this time.
    Waiting { not_before: Duration },
    /// PeerHeights is choosing a peer.
    Picking { reserve: u64 },
    /// A worker fetches it.
    Running {
        peer: PeerId,
        asked: Asked,
        reserve: u64,
        /// All has come; what is left is to check it.
        downloaded: bool,
    },
    /// Verified; the bytes wait in the shell to be linked.
    Done { peer: PeerId, verified: Verified },
    /// Said to be of this epoch, whose committee is not known yet.
    Held { epoch: Epoch },
}

impl Range {
    fn waiting(key: RangeKey, end: CommitIndex, not_before: Duration) -> Self {
        Self {
            key,
            end,
            state: RangeState::Waiting { not_before },
            attempts: 0,
            avoid: None,
            no_peer: None,
            last_failure: None,
            outgrown: false,
            wide: false,
            backup: None,
            no_backup_at: None,
        }
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.state {
            RangeState::Running { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Workers that it has.
    pub(super) fn running(&self) -> usize {
        let backup = self.backup.as_ref().is_some_and(|backup| backup.peer.is_some());
        usize::from(self.peer().is_some()) + usize::from(backup)
    }

    /// Whether it has a worker or is about to.
    fn is_active(&self) -> bool {
        matches!(self.state, RangeState::Picking { .. } | RangeState::Running { .. })
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

    /// Workers that it has or is about to get.
    pub(super) fn workers(&self) -> usize {
        usize::from(self.is_active()) + usize::from(self.backup.is_some())
    }

    /// Bytes that it may hold now.
    pub(super) fn bytes(&self) -> u64 {
        let of_backup = self.backup.as_ref().map_or(0, |backup| backup.reserve);
        of_backup
            + match &self.state {
                RangeState::Picking { reserve } | RangeState::Running { reserve, .. } => *reserve,
                RangeState::Done { verified, .. } => verified.bytes,
                RangeState::Waiting { .. } | RangeState::Held { .. } => 0,
            }
    }

    /// Goes back to be tried again: at once if `peer` is to blame, for PeerHeights does not pick that one again so soon, and
    /// whoever is next may have it; later if nobody is.
    pub(super) fn fail(&mut self, now: Now, peer: Option<PeerId>, reason: String) {
        let delay = match peer {
            Some(_) => Duration::ZERO,
            None => RETRY_MIN.saturating_mul(1 << self.attempts.min(16)).min(RETRY_MAX),
        };
        self.attempts += 1;
        self.avoid = peer;
        self.no_peer = None;
        self.last_failure = Some(reason);
        self.state = RangeState::Waiting { not_before: now.monotonic + delay };
    }
}

impl StateSync {
    /// The first commit of the range with this key. There are at most `ranges_ahead` of them.
    pub(super) fn start_of(&self, key: RangeKey) -> Option<CommitIndex> {
        self.ranges.iter().find(|(_, range)| range.key == key).map(|(start, _)| *start)
    }

    /// The epoch of a commit beyond the tip, as far as the known handovers tell.
    pub(super) fn epoch_of(&self, index: CommitIndex) -> Epoch {
        self.handovers.range(..index).next_back().map_or(self.tip.next_epoch, |(_, epoch)| *epoch)
    }

    pub(super) fn add_waiting(&mut self, start: CommitIndex, end: CommitIndex, not_before: Duration) -> &mut Range {
        self.next_key += 1;
        // Ranges never overlap, so there is none with this start yet.
        self.ranges.entry(start).or_insert(Range::waiting(RangeKey(self.next_key), end, not_before))
    }

    pub(super) fn on_target(&mut self, now: Now, target: Target) {
        self.claimed = target;
        for range in self.ranges.values_mut() {
            if let (RangeState::Waiting { not_before }, Some(_)) = (&mut range.state, &range.no_peer) {
                *not_before = now.monotonic;
            }
        }
    }

    pub(super) fn on_picked(
        &mut self,
        now: Now,
        key: RangeKey,
        picked: Result<PeerId, NoPeer>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(start) = self.start_of_backup(key) {
            return self.on_backup_picked(now, start, picked, effects);
        }
        let picking = self.start_of(key).and_then(|start| match self.ranges[&start].state {
            RangeState::Picking { reserve } => Some((start, reserve)),
            _ => None,
        });
        let start = picking.map(|(start, _)| start);
        // What the node's own consensus has made meanwhile is not fetched.
        let wanted = picking.filter(|(start, _)| self.ranges[start].end > self.tip.commit.index);
        let Some((start, reserve)) = wanted else {
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
                // What it was to have before it was cut is for others.
                let reserve = if range.is_single() {
                    reserve
                } else {
                    reserve.min(self.flow.reserve(&self.config, end - start + 1))
                };
                let asked = self.flow.asked(now, peer);
                range.state = RangeState::Running { peer, asked, reserve, downloaded: false };
                (range.no_peer, range.no_backup_at) = (None, None);
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
        let failure = backup::failure(verified.is_none(), shortfall.as_ref());
        if self.goes_on_without(now, key, failure.as_ref(), shortfall.is_none(), effects) {
            return;
        }
        let running = self.start_of(key).and_then(|start| match self.ranges[&start].state {
            RangeState::Running { peer, asked, .. } => Some((start, peer, asked)),
            _ => None,
        });
        let Some((start, peer, asked)) = running else {
            effects.push(Effect::Discard(key));
            return;
        };
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
        let attempts = if verified.is_some() { 0 } else { range.attempts };
        // What came is kept; what did not goes back as a range of its own.
        let missing_from = verified.as_ref().map_or(start, |verified| verified.last.index + 1);
        let mut outcome = match (&shortfall, &verified) {
            // What was lost on the way is nobody's fault while something comes.
            (Some(Shortfall::Fault { fault, reason, retry_after }), delivered)
                if *fault != Fault::Slow || delivered.is_none() =>
            {
                Outcome::Failed { fault: *fault, reason: reason.clone(), retry_after: *retry_after }
            }
            (_, Some(verified)) => Outcome::Served { last: verified.last.index, bytes: verified.bytes },
            (_, None) => Outcome::Unused,
        };
        if let Some(verified) = verified {
            range.end = verified.last.index;
            range.state = RangeState::Done { peer, verified };
            self.ranges.insert(start, range);
        } else {
            effects.push(Effect::Discard(key));
        }
        if missing_from <= end {
            let next_is_due = missing_from == self.tip.commit.index + 1;
            let (due, known) = (self.tip.next_epoch, self.epoch_of(missing_from));
            let has_served = self.flow.has_served(peer);
            let rest = self.add_waiting(missing_from, end, now.monotonic);
            rest.attempts = attempts;
            match shortfall {
                Some(Shortfall::Fault { fault, reason, .. }) => {
                    let blamed = (fault != Fault::Ours).then_some(peer);
                    rest.fail(now, blamed, reason);
                    // Of one that has never served anything it is most likely that it has nothing; not for ever, though.
                    rest.wide = has_served || rest.attempts.is_multiple_of(WIDE_EVERY);
                }
                // Its committee has become known since the worker began.
                Some(Shortfall::OtherEpoch { found, .. }) if found == known => {}
                // The epoch of the next commit is known for certain: this is no commit of the chain.
                Some(Shortfall::OtherEpoch { index, found }) if next_is_due => {
                    let reason = format!("commit {index} is said to be of epoch {found}, but epoch {due} is due");
                    rest.fail(now, Some(peer), reason.clone());
                    outcome = Outcome::Failed { fault: Fault::Unproven, reason, retry_after: None };
                }
                Some(Shortfall::OtherEpoch { found, .. }) => rest.state = RangeState::Held { epoch: found },
                // One commit with its votes and blocks is more than what was reserved.
                Some(Shortfall::Cut) if nothing && !outgrown => rest.outgrown = true,
                Some(Shortfall::Cut) if nothing => {
                    rest.fail(now, None, format!("commit {missing_from} is larger than a range may be"));
                }
                Some(Shortfall::Cut) | None => {}
            }
        }
        // What it did deliver it has: its claim is doubted from there on.
        effects.push(Effect::Report { peer, start: missing_from.min(end), outcome });
        self.release_held(now);
    }

    /// What a worker asked for has come: it is not the peer's time from now on.
    pub(super) fn on_downloaded(&mut self, now: Now, key: RangeKey) {
        let of_backup = self.start_of_backup(key);
        let Some(range) = of_backup.or_else(|| self.start_of(key)).and_then(|start| self.ranges.get_mut(&start)) else {
            return;
        };
        let backup = range.backup.as_ref().and_then(|backup| backup.peer);
        match (&mut range.state, backup) {
            (RangeState::Running { .. }, Some((peer, asked))) if of_backup.is_some() => {
                self.flow.learn_download(now, peer, asked);
            }
            (RangeState::Running { peer, asked, downloaded, .. }, _) => {
                *downloaded = true;
                self.flow.learn_download(now, *peer, *asked);
            }
            _ => {}
        }
    }

    pub(super) fn on_worker_failed(&mut self, now: Now, key: RangeKey, reason: String, effects: &mut Vec<Effect>) {
        if self.goes_on_without(now, key, Some(&Outcome::Unused), false, effects) {
            self.counters.worker_failures += 1;
            return;
        }
        effects.push(Effect::Discard(key));
        let Some(range) = self.start_of(key).and_then(|start| self.ranges.get_mut(&start)) else { return };
        let Some(peer) = range.peer() else { return };
        self.counters.worker_failures += 1;
        range.fail(now, None, reason);
        effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
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
        let linked = self.tip.commit.index;
        let stale = self.ranges.range(..=linked).filter(|(_, range)| !range.is_active()).map(|(start, _)| *start);
        for start in stale.collect::<Vec<_>>() {
            let Some(range) = self.ranges.remove(&start) else { continue };
            if let RangeState::Done { verified, .. } = &range.state {
                self.counters.commits_discarded += u64::from(verified.last.index - verified.first) + 1;
                effects.push(Effect::Discard(range.key));
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
        self.start_backups(now, effects);
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
            if active >= self.config.max_workers {
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
            range.state = RangeState::Picking { reserve };
            effects.push(Effect::Pick { key: range.key, start: *start, avoid: range.avoid });
        }
        self.flow.note_filled(filled);
        started
    }

    /// Workers at work and about to be.
    pub(super) fn workers(&self) -> usize {
        self.ranges.values().map(Range::workers).sum()
    }

    fn is_next(&self, start: CommitIndex, range: &Range) -> bool {
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

    /// Bytes that others leave to the next range: what a range may ever have, or what it and its backup have.
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
