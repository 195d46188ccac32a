//! The archive as a source of commits: for those that no peer can serve, or for all if the node is set up so.
//!
//! ```text
//!   no peer can serve the next commit
//!      '--> ListArchive --> route of segments --> FromArchive ranges, within the budget --> Done --> linked
//!                                                    '-- fails: the range waits for peers again
//! ```
//!
//! Always:
//! - A segment is a range like any other: it counts against the budget, an ordinary worker checks it, and it is linked
//!   in order.
//! - A segment that breaks a rule is left out for [`AVOID_FOR`], and named in the log and the status.
//! - A segment is fetched only once the committee of its epoch is known.
//! - While the archive leads on, no further range is planned for peers: their ranges would wait for it, and hold the
//!   budget.

use super::{
    ArchiveRoute, ArchiveUse, Effect, MAX_ROUTE, Progress, RETRY, RangeKey, RangeSummary, StateSync, StopReason,
    range::{Range, RangeState, Source},
};
use crate::{core::Now, peer_heights::NoPeer};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, Fault, PeerFailure, SegmentName, limits::MAX_BLOCK_BYTES};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Segments that are fetched at once. The budget of bytes allows fewer if they are large.
const MAX_SEGMENTS: usize = 8;

/// Maximum bytes of a segment's object. The archive's writers end a segment far below.
const MAX_SEGMENT_BYTES: u64 = 48 << 20;

/// Time without any peer that can serve the next commit, after which the archive is asked.
const PEER_PATIENCE: Duration = Duration::from_secs(10);

/// Time after which a listing that led no further is repeated.
const LIST_AGAIN: Duration = Duration::from_secs(30);

/// Time for which a segment that broke a rule is left out. It may have been replaced then.
const AVOID_FOR: Duration = Duration::from_secs(600);

/// Segments that are left out at once. Beyond, the oldest is tried again.
const MAX_AVOIDED: usize = 64;

/// Why commits come from the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Need {
    /// All peers have pruned the commits before this one.
    Below(CommitIndex),
    /// No peer can serve the next commit, whatever the reason.
    NoPeer,
    /// The node is set up so.
    Always,
}

/// Why the archive leads no further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Failure {
    /// The storage does not answer, or refuses.
    Unreachable(String),
    /// An object is damaged, breaks a rule or is missing.
    Object(String),
}

/// What StateSync knows of the archive.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ArchiveSource {
    need: Option<Need>,
    /// Since when no peer can serve the next commit.
    no_peer_since: Option<Duration>,
    /// Segments that are not started yet.
    route: VecDeque<(SegmentName, u64)>,
    listing: Option<RangeKey>,
    /// When to repeat a listing that led no further, and the epoch that it was of; of every epoch after a failure.
    listed: Option<(Option<Epoch>, Duration)>,
    avoided: BTreeMap<SegmentName, Duration>,
    attempts: u32,
    failure: Option<Failure>,
}

impl ArchiveSource {
    /// When the next listing is due, if it waits for time.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let listing = self.listed.map(|(_, again)| again).filter(|_| self.need.is_some() && self.listing.is_none());
        let patience = self.no_peer_since.filter(|_| self.need.is_none()).map(|since| since + PEER_PATIENCE);
        listing.into_iter().chain(patience).min()
    }

    fn avoid(&mut self, now: Now, segment: SegmentName) {
        if self.avoided.len() >= MAX_AVOIDED {
            let oldest = self.avoided.iter().min_by_key(|(_, until)| **until).map(|(segment, _)| *segment);
            oldest.map(|oldest| self.avoided.remove(&oldest));
        }
        self.avoided.insert(segment, now.monotonic + AVOID_FOR);
        self.route.clear();
    }

    /// Lists again after a wait that grows with each failure.
    fn back_off(&mut self, now: Now, failure: Failure) {
        self.failure = Some(failure);
        self.route.clear();
        self.listed = Some((None, now.monotonic + RETRY.wait(self.attempts)));
        self.attempts = self.attempts.saturating_add(1);
    }

    fn has_served(&mut self) {
        (self.attempts, self.failure) = (0, None);
    }
}

impl StateSync {
    /// PeerHeights knows no peer for the range that begins with `start`.
    pub(super) fn note_no_peer(&mut self, start: CommitIndex, reason: NoPeer) {
        if self.config.archive != ArchiveUse::WhenNeeded || start > self.tip.commit.index + 1 {
            return;
        }
        if let NoPeer::AllPruned { lowest, .. } = reason {
            self.archive.need = Some(Need::Below(lowest));
        }
    }

    /// Lists the archive and starts segments, as far as they are needed and the bounds allow.
    pub(super) fn use_archive(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.config.archive == ArchiveUse::Never || self.is_skipping() {
            return;
        }
        self.drop_linked_segments(effects);
        self.update_need(now);
        self.archive.avoided.retain(|_, until| *until > now.monotonic);
        while self.archive.need.is_some()
            && let Some((segment, bytes)) = self.archive.route.front().copied()
        {
            match self.place_of(segment) {
                Place::Behind => drop(self.archive.route.pop_front()),
                Place::Late => return,
                // A range in front of the route has failed.
                Place::Gap => self.archive.route.clear(),
                Place::At(start, end) if self.has_room_for(start, bytes) => {
                    self.archive.route.pop_front();
                    self.start_segment(start, end, segment, bytes, effects);
                }
                Place::At(..) => return,
            }
        }
        self.list_archive(now, effects);
    }

    /// Decides whether commits are to come from the archive now.
    fn update_need(&mut self, now: Now) {
        match self.lacks_peer() {
            Some(true) => drop(self.archive.no_peer_since.get_or_insert(now.monotonic)),
            Some(false) => self.archive.no_peer_since = None,
            None => {}
        }
        let next = self.tip.commit.index + 1;
        let is_without_peers = self.archive.no_peer_since.is_some_and(|since| since + PEER_PATIENCE <= now.monotonic);
        let is_far_behind = self.target() - self.tip.commit.index > self.config.commits_per_fetch;
        self.archive.need = match (self.config.archive, self.archive.need) {
            (ArchiveUse::First, _) if is_far_behind || self.claimed.doubt.is_some() => Some(Need::Always),
            (ArchiveUse::First, _) => None,
            (_, Some(Need::Below(lowest))) if lowest > next => Some(Need::Below(lowest)),
            _ if is_without_peers => Some(Need::NoPeer),
            _ => None,
        };
        if self.archive.need.is_none() {
            self.archive.route.clear();
        }
    }

    /// Whether no peer can serve the next commit. `None` while that is not tried.
    fn lacks_peer(&self) -> Option<bool> {
        // Without a peer that is heard, nothing is planned that could have no peer.
        if self.claimed.doubt.is_some() {
            return Some(true);
        }
        let tip = self.tip.commit.index;
        if self.target() <= tip {
            return Some(false);
        }
        let (_, range) = self.ranges.range(..=tip + 1).next_back()?;
        (!range.is_from_archive()).then(|| range.no_peer.is_some())
    }

    /// The first commit that no segment, no peer and no verified range has yet.
    fn next_from_archive(&self) -> CommitIndex {
        let mut next = self.tip.commit.index + 1;
        while let Some((_, range)) = self.ranges.range(..=next).next_back()
            && range.end >= next
            && (range.is_under_way() || matches!(range.state, RangeState::Done { .. }))
        {
            next = range.end.saturating_add(1);
        }
        next
    }

    /// Requests a listing, if the route has ended and the next commit is still needed.
    fn list_archive(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let next = self.next_from_archive();
        let is_needed = match self.archive.need {
            Some(Need::Below(lowest)) => next < lowest,
            Some(Need::NoPeer | Need::Always) => true,
            None => false,
        };
        // The last segment may end the epoch, which shows once it is checked.
        let epoch = self.epoch_of(next);
        let is_due =
            self.archive.listed.is_none_or(|(of, again)| again <= now.monotonic || of.is_some_and(|of| of != epoch));
        let ready = self.archive.listing.is_none() && self.segments_at_work() == 0 && self.archive.route.is_empty();
        if !is_needed || !ready || !is_due || next > self.executor_limit() {
            return;
        }
        let key = self.new_key();
        self.archive.listing = Some(key);
        let avoid = self.archive.avoided.keys().copied().collect();
        effects.push(Effect::ListArchive { key, epoch, next, avoid });
    }

    pub(super) fn on_archive_listed(&mut self, now: Now, key: RangeKey, result: Result<ArchiveRoute, String>) {
        if self.archive.listing.take_if(|listing| *listing == key).is_none() {
            return;
        }
        let next = self.next_from_archive();
        let route = match result {
            Ok(route) => route,
            Err(reason) => return self.archive.back_off(now, Failure::Unreachable(reason)),
        };
        if route.segments.is_empty() {
            if matches!(self.archive.failure, Some(Failure::Unreachable(_))) {
                self.archive.has_served();
            }
            let epoch = self.epoch_of(next);
            if route.has_gap {
                let reason = format!("the archive lacks commit {next} of epoch {epoch}, although it has later ones");
                self.archive.failure = Some(Failure::Object(reason));
            }
            self.archive.listed = Some((Some(epoch), now.monotonic + LIST_AGAIN));
            return;
        }
        self.archive.listed = None;
        self.archive.route = route.segments.into_iter().take(MAX_ROUTE).collect();
    }

    /// Where the segment's next range would be.
    fn place_of(&self, segment: SegmentName) -> Place {
        let next = self.next_from_archive();
        if segment.last < next {
            return Place::Behind;
        }
        let is_needed = match self.archive.need {
            Some(Need::Below(lowest)) => next < lowest,
            _ => true,
        };
        if segment.first > next {
            return Place::Gap;
        }
        let start = next;
        if !is_needed || start > self.executor_limit() || self.epoch_of(start) != segment.epoch {
            return Place::Late;
        }
        let busy = |range: &Range| !matches!(range.state, RangeState::Waiting { .. } | RangeState::Held { .. });
        let next_busy = self.ranges.range(start..).find(|(_, range)| busy(range)).map(|(start, _)| *start);
        Place::At(start, segment.last.min(next_busy.map_or(CommitIndex::MAX, |busy| busy - 1)))
    }

    fn segments_at_work(&self) -> usize {
        self.ranges.values().filter(|range| range.is_from_archive()).count()
    }

    /// Whether the bounds allow one more segment. All others leave the next one in order the bytes of a range.
    fn has_room_for(&self, start: CommitIndex, bytes: u64) -> bool {
        let (reserve, budget) = (reserve(bytes), self.config.bytes_in_flight);
        let fits = match start == self.tip.commit.index + 1 {
            true => self.bytes_of_others() + reserve.min(self.config.bytes_per_range) <= budget,
            false => {
                let free = budget.saturating_sub(self.kept_for_next());
                self.bytes_in_flight() + reserve <= free && !self.is_full_batch_held(self.last_now)
            }
        };
        fits && self.segments_at_work() < MAX_SEGMENTS
    }

    /// Starts the worker of a segment in the place of the ranges that wait there.
    fn start_segment(
        &mut self,
        start: CommitIndex,
        end: CommitIndex,
        segment: SegmentName,
        bytes: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.clear_waiting(start, end);
        let (key, max_bytes) = (self.new_key(), reserve(bytes));
        let mut range = Range::waiting(end, Duration::ZERO);
        range.state = RangeState::FromArchive { key, segment, reserve: max_bytes };
        self.ranges.insert(start, range);
        effects.push(Effect::FetchSegment { key, segment, start, end, epoch: segment.epoch, max_bytes });
    }

    /// Removes waiting ranges from `start` to `end`; the parts outside stay.
    fn clear_waiting(&mut self, start: CommitIndex, end: CommitIndex) {
        if let Some((_, before)) = self.ranges.range_mut(..start).next_back()
            && before.end >= start
        {
            let (rest, not_before) = (before.end, self.last_now);
            before.end = start - 1;
            if rest > end {
                self.add_waiting(end + 1, rest, not_before);
            }
        }
        let covered: Vec<_> = self.ranges.range(start..=end).map(|(start, range)| (*start, range.end)).collect();
        for (first, last) in covered {
            self.ranges.remove(&first);
            if last > end {
                self.add_waiting(end + 1, last, self.last_now);
            }
        }
    }

    /// Ends the workers of commits that came from elsewhere.
    fn drop_linked_segments(&mut self, effects: &mut Vec<Effect>) {
        let linked = self.tip.commit.index;
        let stale = self.ranges.range(..=linked).filter_map(|(start, range)| match range.state {
            RangeState::FromArchive { key, .. } if range.end <= linked => Some((*start, key)),
            _ => None,
        });
        for (start, key) in stale.collect::<Vec<_>>() {
            self.ranges.remove(&start);
            effects.push(Effect::Cancel(key));
        }
    }

    /// The range that a worker fetches from the archive.
    pub(super) fn segment_of_worker(&self, key: RangeKey) -> Option<(CommitIndex, SegmentName)> {
        self.ranges.iter().find_map(|(start, range)| match range.state {
            RangeState::FromArchive { key: of, segment, .. } if of == key => Some((*start, segment)),
            _ => None,
        })
    }

    /// The worker of a segment has ended.
    pub(super) fn on_segment_done(
        &mut self,
        now: Now,
        key: RangeKey,
        (start, segment): (CommitIndex, SegmentName),
        verified: Option<RangeSummary>,
        stop: Option<StopReason>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut range) = self.ranges.remove(&start) else { return };
        let missing_from = verified.map_or(start, |verified| verified.last.index + 1);
        if missing_from <= range.end {
            let reason = match stop {
                Some(StopReason::Failed(failure)) => failure,
                Some(StopReason::OtherEpoch { index, found }) => {
                    PeerFailure::new(Fault::Malformed, format!("commit {index} is of epoch {found}"))
                }
                // A whole segment fits: its size is known, and so is its last commit.
                Some(StopReason::Cut) | None => {
                    PeerFailure::new(Fault::Malformed, format!("it ends before commit {missing_from}"))
                }
            };
            self.on_segment_fault(now, segment, reason, effects);
            self.add_waiting(missing_from, range.end, now.monotonic);
        }
        match verified {
            Some(verified) => {
                self.learn_from_segment(&verified);
                range.end = verified.last.index;
                range.state = RangeState::Done { key, source: Source::Archive(segment), verified };
                self.ranges.insert(start, range);
            }
            None => effects.push(Effect::Discard(key)),
        }
        self.release_held(now);
    }

    fn learn_from_segment(&mut self, verified: &RangeSummary) {
        self.archive.has_served();
        self.counters.commits_from_archive += u64::from(verified.last.index - verified.first) + 1;
        self.learn_verified(verified);
    }

    /// A segment could not be read, or broke a rule.
    pub(super) fn on_segment_fault(
        &mut self,
        now: Now,
        segment: SegmentName,
        failure: PeerFailure,
        effects: &mut Vec<Effect>,
    ) {
        let reason = failure.reason;
        match failure.fault {
            Fault::Slow | Fault::DoesNotHave | Fault::Overloaded => {
                self.archive.back_off(now, Failure::Unreachable(reason));
            }
            // This node failed, or a quorum certified what breaks a rule: no other object would be better.
            Fault::Ours => self.archive.back_off(now, Failure::Object(format!("object {segment}: {reason}"))),
            Fault::ProvableLie | Fault::Malformed | Fault::Unproven => {
                effects.push(Effect::SegmentFault { segment, reason: reason.clone() });
                self.archive.avoid(now, segment);
                self.archive.back_off(now, Failure::Object(format!("object {segment}: {reason}")));
            }
        }
    }

    /// The worker of a segment ended without a result.
    pub(super) fn on_segment_worker_failed(&mut self, now: Now, start: CommitIndex, reason: String) {
        let Some(range) = self.ranges.remove(&start) else { return };
        self.archive.back_off(now, Failure::Object(reason));
        self.add_waiting(start, range.end, now.monotonic);
    }

    /// Last commit to plan for peers while the archive leads on. `None`: as far as peers serve.
    pub(super) fn limit_of_archive(&self) -> Option<CommitIndex> {
        // After a failure the archive must show that it works before peers wait for it.
        let is_listing = self.archive.listing.is_some() && self.archive.failure.is_none();
        let is_leading = self.archive.need.is_some()
            && (is_listing || !self.archive.route.is_empty() || self.segments_at_work() > 0);
        is_leading.then(|| self.next_from_archive() - 1)
    }

    /// What the archive is to the next commit, if it matters.
    pub(super) fn archive_progress(&self, needed: CommitIndex, range: Option<&Range>) -> Option<Progress> {
        if range.is_some_and(Range::is_from_archive) || (self.limit_of_archive().is_some() && range.is_none()) {
            return Some(Progress::FetchingArchive { needed });
        }
        let is_waiting = range.is_none_or(|range| matches!(range.state, RangeState::Waiting { .. }));
        self.archive.need.filter(|_| is_waiting)?;
        match self.archive.failure.clone()? {
            Failure::Unreachable(reason) => Some(Progress::ArchiveUnreachable { needed, reason }),
            Failure::Object(reason) => Some(Progress::Retrying {
                needed,
                attempts: self.archive.attempts,
                reason: format!("archive: {reason}"),
            }),
        }
    }
}

/// Where a segment stands in the plan.
enum Place {
    /// All its commits are there or under way.
    Behind,
    /// The range of its missing commits.
    At(CommitIndex, CommitIndex),
    /// Commits before the segment are missing.
    Gap,
    /// Not needed now: of a later epoch, or too far ahead of the executor.
    Late,
}

/// Bytes that a worker of a segment may hold. A worker asks for blocks only with room for the largest one.
fn reserve(bytes: u64) -> u64 {
    bytes.min(MAX_SEGMENT_BYTES) + MAX_BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests;
