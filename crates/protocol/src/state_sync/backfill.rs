//! Backfill: fetches the commits before the stored history, backwards, one range at a time.
//!
//! ```text
//!   Unknown --ReadHistory--> Reading --> Due --Pick--> Picking --Fetch--> Fetching --Prepend--> Writing --> Unknown
//!                               |         ^                                  |
//!                               |         '------- failed, or cut: shorter --'
//!                               '--> Ended: the target is reached
//! ```
//!
//! The lowest stored commit names the digest of the commit before it. So a range counts only if it is whole: its last
//! commit must be that one. A worker verifies it like any other range, with the committee of its epoch.
//!
//! - A range starts only while this node has every advertised commit, and no other range or write is at work.
//! - It reserves bytes that other ranges may use, so it never takes the room of the next one.
//! - No range crosses the beginning of an epoch.

use super::{
    BackfillProgress, Below, Effect, HistoryStart, MAX_ANSWER_COMMITS, Progress, RETRY, RangeKey, RangeSummary,
    StateSync, StopReason, flow::Asked,
};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Outcome},
};
use serde::{Deserialize, Serialize};
use soma_types::{Commit, CommitIndex, Fault, PeerFailure, PeerId};
use std::time::Duration;

/// Maximum number of peers that are remembered as tried. New identities of one peer make the list no longer.
const MAX_TRIED: usize = 64;

/// The state of backfill.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Backfill {
    step: Step,
    history: Option<HistoryStart>,
    /// Peers that have just failed; the last [`MAX_TRIED`].
    tried: Vec<PeerId>,
    /// Failures in a row.
    attempts: u32,
    /// Why there is no progress.
    problem: Option<String>,
    shape: Shape,
}

/// What earlier attempts tell about the next range.
#[derive(Default, Serialize, Deserialize)]
struct Shape {
    /// Maximum number of commits, after an attempt that delivered no more.
    commits: Option<CommitIndex>,
    /// The range is requested with commits behind it as proof: the peer may lack votes for its last commit.
    wide: bool,
    /// The usual reserve was too small for one commit.
    outgrown: bool,
}

/// A range, and the bytes that it reserves or holds.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Piece {
    key: RangeKey,
    first: CommitIndex,
    last: CommitIndex,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
enum Step {
    /// The store must be read.
    Unknown {
        not_before: Duration,
    },
    Reading(RangeKey),
    Due {
        not_before: Duration,
    },
    Picking(Piece),
    Fetching {
        piece: Piece,
        peer: PeerId,
        asked: Asked,
    },
    /// At the StoreWriter, or waiting for a retry after a failed write.
    Writing {
        piece: Piece,
        retry_at: Option<Duration>,
    },
    Ended,
}

impl Default for Step {
    fn default() -> Self {
        Self::Unknown { not_before: Duration::ZERO }
    }
}

impl Backfill {
    /// Bytes that the range reserves or holds.
    pub(super) fn bytes(&self) -> u64 {
        match self.step {
            Step::Picking(piece) | Step::Fetching { piece, .. } | Step::Writing { piece, .. } => piece.bytes,
            _ => 0,
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.step {
            Step::Unknown { not_before } | Step::Due { not_before } => Some(not_before),
            Step::Writing { retry_at, .. } => retry_at,
            _ => None,
        }
    }

    /// Whether a pick with this key is for backfill.
    pub(super) fn is_picking(&self, picking: RangeKey) -> bool {
        matches!(self.step, Step::Picking(Piece { key, .. }) if key == picking)
    }

    /// Whether a worker with this key is for backfill.
    pub(super) fn is_fetching(&self, fetching: RangeKey) -> bool {
        matches!(self.step, Step::Fetching { piece: Piece { key, .. }, .. } if key == fetching)
    }

    fn below(&self) -> Option<Below> {
        self.history.as_ref().and_then(|history| history.below)
    }

    fn remember(&mut self, peer: PeerId) {
        self.tried.retain(|tried| *tried != peer);
        if self.tried.len() == MAX_TRIED {
            self.tried.remove(0);
        }
        self.tried.push(peer);
    }

    fn retry_at(&mut self, now: Now, problem: String) -> Duration {
        self.problem = Some(problem);
        self.attempts += 1;
        now.monotonic + RETRY.wait(self.attempts - 1)
    }

    fn retry(&mut self, now: Now, problem: String) {
        let not_before = self.retry_at(now, problem);
        self.step = Step::Due { not_before };
    }

    fn on_success(&mut self) {
        self.tried.clear();
        (self.attempts, self.problem) = (0, None);
        // A later range may be longer: commits differ in size, and peers in votes.
        self.shape.commits = self.shape.commits.map(|commits| commits.saturating_mul(2));
    }

    pub(super) fn progress(&self) -> Option<BackfillProgress> {
        let history = self.history.as_ref()?;
        let is_complete = matches!(self.step, Step::Ended);
        let HistoryStart { lowest, target, .. } = *history;
        Some(BackfillProgress { lowest, target, is_complete, problem: self.problem.clone() })
    }
}

impl StateSync {
    /// Whether the worker with this key fetches commits before the stored history.
    pub fn is_backfilling(&self, key: RangeKey) -> bool {
        self.backfill.is_fetching(key)
    }

    /// Begins the next step, if nothing else is at work.
    pub(super) fn backfill_further(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.config.backfill {
            return;
        }
        let is_due = self.backfill.wake_at().is_some_and(|at| at <= now.monotonic);
        match self.backfill.step {
            Step::Writing { piece, .. } if is_due => {
                self.backfill.step = Step::Writing { piece, retry_at: None };
                effects.push(Effect::Prepend(piece.key));
            }
            Step::Unknown { .. } if is_due && !self.is_empty => {
                let key = self.new_key();
                self.backfill.step = Step::Reading(key);
                effects.push(Effect::ReadHistory(key));
            }
            Step::Due { .. } if is_due && self.is_idle() => self.pick_for_backfill(effects),
            _ => {}
        }
    }

    /// Whether this node has every advertised commit, and no range or write is at work.
    fn is_idle(&self) -> bool {
        self.ranges.is_empty()
            && self.write.is_empty()
            && self.local.bytes() == 0
            && !self.is_empty
            && self.progress() == Progress::Synced
    }

    fn pick_for_backfill(&mut self, effects: &mut Vec<Effect>) {
        let Some((lowest, below)) = self.backfill.history.as_ref().and_then(|history| history.below_lowest()) else {
            self.backfill.step = Step::Ended;
            return;
        };
        let usual = self.flow.commits(&self.config);
        let shape = &mut self.backfill.shape;
        if shape.commits.is_some_and(|commits| commits >= usual) {
            *shape = Shape::default();
        }
        let commits = shape.commits.unwrap_or(usual).clamp(1, usual.max(1));
        // Half an answer, so that the other half can prove it.
        let commits = if shape.wide { commits.min((MAX_ANSWER_COMMITS / 2).max(1)) } else { commits };
        let (first, last) = (lowest.saturating_sub(commits).max(below.first).max(1), lowest - 1);
        let bytes = match shape.outgrown {
            true => self.config.bytes_per_range,
            false => self.flow.reserve(&self.config, last - first + 1),
        };
        // No range is at work, so only the bound itself counts: the next range always has its own room.
        if self.bytes_of_others() + bytes > self.config.bytes_in_flight.saturating_sub(self.kept_for_next()) {
            self.backfill.problem = Some("bytes_in_flight has no room for backfill beside the next range".into());
            return;
        }
        let key = self.new_key();
        self.backfill.step = Step::Picking(Piece { key, first, last, bytes });
        let tried = self.backfill.tried.clone();
        effects.push(Effect::Pick { key, start: first, tried, hedge: false, next: false });
    }

    pub(super) fn on_history_read(&mut self, now: Now, key: RangeKey, result: Result<HistoryStart, String>) {
        if !matches!(self.backfill.step, Step::Reading(expected) if expected == key) {
            return;
        }
        match result {
            Ok(history) => {
                self.backfill.step = match history.below_lowest() {
                    Some(_) => Step::Due { not_before: now.monotonic },
                    None => Step::Ended,
                };
                self.backfill.history = Some(history);
            }
            Err(problem) => {
                let not_before = self.backfill.retry_at(now, problem);
                self.backfill.step = Step::Unknown { not_before };
            }
        }
    }

    pub(super) fn on_backfill_picked(&mut self, now: Now, picked: Result<PeerId, NoPeer>, effects: &mut Vec<Effect>) {
        let Step::Picking(mut piece) = self.backfill.step else { return };
        let peer = match picked {
            Ok(peer) => peer,
            Err(reason) => {
                self.backfill.problem = Some(format!("commit {} is next, but {reason}", piece.first));
                self.backfill.step = Step::Due { not_before: now.monotonic + self.config.no_peer_wait };
                return;
            }
        };
        let Some(below) = self.backfill.below() else { return };
        // A slow peer gets fewer commits.
        let end = self.flow.end_for(&self.config, peer, piece.first, piece.last);
        piece.first += piece.last - end;
        let Piece { key, first: start, last: end, bytes } = piece;
        let proof_end = match self.backfill.shape.wide {
            true => start.saturating_add(MAX_ANSWER_COMMITS - 1).max(end),
            false => end,
        };
        self.backfill.step = Step::Fetching { piece, peer, asked: self.flow.asked(now, peer) };
        effects.push(Effect::Fetch { key, peer, start, end, proof_end, epoch: below.epoch, max_bytes: bytes });
    }

    pub(super) fn on_backfill_done(
        &mut self,
        now: Now,
        verified: Option<RangeSummary>,
        stop: Option<StopReason>,
        effects: &mut Vec<Effect>,
    ) {
        let Step::Fetching { piece, peer, asked } = self.backfill.step else { return };
        let Some(below) = self.backfill.below() else { return };
        if let Some(verified) = &verified {
            self.learn_from_backfill(now, peer, asked, verified);
        }
        let whole = verified.filter(|verified| verified.last.index == piece.last);
        let outcome = match (whole, stop) {
            (Some(verified), _) => match below.accepts(piece.last, &verified) {
                Ok(()) => {
                    self.backfill.step =
                        Step::Writing { piece: Piece { bytes: verified.bytes, ..piece }, retry_at: None };
                    effects.push(Effect::Prepend(piece.key));
                    effects.push(Effect::Report { peer, start: piece.first, outcome: served(&verified) });
                    return;
                }
                Err(failure) => self.fail_backfill(now, peer, failure),
            },
            // A loss on the way is no fault of a peer that delivers something.
            (None, Some(StopReason::Failed(failure))) if failure.fault == Fault::Slow && verified.is_some() => {
                self.shorten(now, piece, verified.as_ref())
            }
            (None, Some(StopReason::Failed(failure))) => self.fail_backfill(now, peer, failure),
            (None, Some(StopReason::OtherEpoch { index, found })) => {
                let epoch = below.epoch;
                let reason = format!("commit {index} is said to be of epoch {found}, but it is of epoch {epoch}");
                self.fail_backfill(now, peer, PeerFailure::new(Fault::Unproven, reason))
            }
            (None, Some(StopReason::Cut) | None) => self.shorten(now, piece, verified.as_ref()),
        };
        effects.push(Effect::Discard(piece.key));
        let start = verified.map_or(piece.first, |verified| verified.last.index + 1);
        effects.push(Effect::Report { peer, start, outcome });
    }

    fn learn_from_backfill(&mut self, now: Now, peer: PeerId, asked: Asked, verified: &RangeSummary) {
        self.flow.learn(now, peer, asked, verified, self.config.bytes_in_flight);
        self.counters.commits_fetched += u64::from(verified.last.index - verified.first) + 1;
        self.counters.blocks_fetched += verified.blocks;
        self.counters.bytes_fetched += verified.bytes;
    }

    fn fail_backfill(&mut self, now: Now, peer: PeerId, failure: PeerFailure) -> Outcome {
        self.backfill.remember(peer);
        self.backfill.retry(now, failure.reason.clone());
        // The votes for the last commit may be what the peer lacks.
        self.backfill.shape.wide = !self.backfill.shape.wide;
        match failure.fault {
            // It may have pruned these commits, and is as good as before for others.
            Fault::DoesNotHave => Outcome::Unused,
            _ => Outcome::Failed(failure),
        }
    }

    /// The last commits of the range are missing. The next range has only as many as came.
    fn shorten(&mut self, now: Now, piece: Piece, verified: Option<&RangeSummary>) -> Outcome {
        let shape = &mut self.backfill.shape;
        let Some(verified) = verified else {
            if shape.outgrown {
                self.backfill.retry(now, format!("commit {} is larger than a range may be", piece.first));
            } else {
                *shape = Shape { commits: Some(1), outgrown: true, ..*shape };
                self.backfill.step = Step::Due { not_before: now.monotonic };
            }
            return Outcome::Unused;
        };
        *shape = Shape { commits: Some(verified.last.index - verified.first + 1), wide: true, ..*shape };
        self.backfill.step = Step::Due { not_before: now.monotonic };
        served(verified)
    }

    pub(super) fn on_backfill_failed(&mut self, now: Now, reason: String, effects: &mut Vec<Effect>) {
        let Step::Fetching { piece, peer, .. } = self.backfill.step else { return };
        self.counters.worker_failures += 1;
        self.backfill.retry(now, reason);
        effects.push(Effect::Discard(piece.key));
        effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
    }

    pub(super) fn on_prepended(
        &mut self,
        now: Now,
        key: RangeKey,
        result: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let Step::Writing { piece, .. } = self.backfill.step else { return };
        if piece.key != key {
            return;
        }
        match result {
            Ok(()) => {
                effects.push(Effect::Discard(key));
                self.backfill.on_success();
                self.backfill.step = Step::Unknown { not_before: now.monotonic };
                if let Some(history) = &mut self.backfill.history {
                    (history.lowest, history.below) = (piece.first, None);
                }
            }
            // The commits are verified: only the write is tried again.
            Err(reason) => {
                let retry_at = Some(self.backfill.retry_at(now, reason));
                self.backfill.step = Step::Writing { piece, retry_at };
            }
        }
    }
}

fn served(verified: &RangeSummary) -> Outcome {
    Outcome::Served { last: verified.last.index, bytes: verified.bytes }
}

impl HistoryStart {
    /// What is below the lowest commit, if it can be fetched.
    fn below_lowest(&self) -> Option<(CommitIndex, Below)> {
        self.below.filter(|_| self.lowest > self.target).map(|below| (self.lowest, below))
    }
}

impl Below {
    /// Whether the verified commits up to `last` end directly below the stored history, by the rules for the tip.
    fn accepts(&self, last: CommitIndex, commits: &RangeSummary) -> Result<(), PeerFailure> {
        let unproven = |reason| Err(PeerFailure::new(Fault::Unproven, reason));
        // A quorum certified the timestamps, so the peer that serves them is blameless.
        let late = |index: CommitIndex, expected_ms, found_ms| {
            let reason = format!("commit {index} is of {found_ms} ms, and should be of {expected_ms} ms");
            Err(PeerFailure::new(Fault::Ours, reason))
        };
        if commits.last.digest != self.digest {
            return unproven(format!("commit {last} is not {:?}, which the commit above it continues", self.digest));
        }
        if commits.epoch != self.epoch {
            return unproven(format!("commit {last} is of epoch {}, not the one due", commits.epoch));
        }
        let expected_ms = Commit::timestamp_after(self.leader_timestamp_ms, commits.last_timestamp_ms);
        if self.timestamp_ms != expected_ms {
            return late(last + 1, expected_ms, self.timestamp_ms);
        }
        if commits.first != 1 {
            return Ok(());
        }
        if commits.previous != self.genesis {
            return unproven(format!("commit 1 does not follow the genesis {:?}", self.genesis));
        }
        let expected_ms = Commit::timestamp_after(commits.first_leader_timestamp_ms, self.genesis_timestamp_ms);
        match commits.first_timestamp_ms == expected_ms {
            true => Ok(()),
            false => late(1, expected_ms, commits.first_timestamp_ms),
        }
    }
}

#[cfg(test)]
mod tests;
