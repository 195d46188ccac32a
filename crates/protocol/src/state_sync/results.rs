//! Results of workers: verified commits are kept, missing ones go back to the plan.

use super::{
    Effect, RangeKey, RangeSummary, StateSync, StopReason,
    flow::Asked,
    range::{Range, RangeState, Source},
};
use crate::{core::Now, peer_heights::Outcome};
use soma_types::{CommitIndex, Epoch, Fault, PeerFailure, PeerId};

/// A range that failed only at peers which never served requests more commits as proof every n-th time.
pub(super) const WIDE_EVERY: u32 = 4;

/// What happens to the commits of a range that a worker did not deliver.
enum Missing {
    /// They are fetched again.
    Again,
    /// The peer failed.
    Failed(PeerFailure),
    /// The peer states a wrong epoch for the next commit.
    WrongEpoch(PeerFailure),
    /// They wait for the committee of this epoch.
    Held(Epoch),
    /// Not even the first commit fitted into the reserve.
    TooLarge,
}

impl StateSync {
    pub(super) fn on_worker_done(
        &mut self,
        now: Now,
        key: RangeKey,
        verified: Option<RangeSummary>,
        stop: Option<StopReason>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(of) = self.segment_of_worker(key) {
            return self.on_segment_done(now, key, of, verified, stop, effects);
        }
        if self.backfill.is_fetching(key) {
            return self.on_backfill_done(now, verified, stop, effects);
        }
        let Some(start) = self.start_of_attempt(key) else { return effects.push(Effect::Discard(key)) };
        if let Some(outcome) = outcome_of_failure(verified.is_none(), stop.as_ref())
            && self.drop_failed_hedge(key, outcome, effects)
        {
            return;
        }
        self.cancel_others(now, key, stop.is_none(), effects);
        let asked = self.ranges.get(&start).and_then(|range| range.attempts().first()?.asked);
        let Some((peer, asked)) = asked else { return effects.push(Effect::Discard(key)) };
        if let Some(verified) = &verified {
            self.learn_from_delivery(now, peer, asked, verified);
        }
        let Some(mut range) = self.ranges.remove(&start) else { return };
        let end = range.end;
        let missing_from = verified.map_or(start, |verified| verified.last.index + 1);
        let missing = (missing_from <= end).then(|| self.missing(missing_from, verified.is_none(), stop.as_ref()));
        let outcome = outcome(missing.as_ref(), stop, verified.as_ref());
        if let Some(missing) = missing {
            let rest = self.rest_of(now, &mut range, verified.is_none(), (missing_from, peer), missing);
            self.ranges.insert(missing_from, rest);
        }
        match verified {
            Some(verified) => {
                range.end = verified.last.index;
                range.state = RangeState::Done { key, source: Source::Peer(peer), verified };
                self.ranges.insert(start, range);
            }
            None => effects.push(Effect::Discard(key)),
        }
        // The peer's advertised height falls to the commit before the first missing one.
        effects.push(Effect::Report { peer, start: missing_from.min(end), outcome });
        self.release_held(now);
    }

    /// Updates what is known of the peer and of the chain.
    fn learn_from_delivery(&mut self, now: Now, peer: PeerId, asked: Asked, verified: &RangeSummary) {
        self.flow.learn(now, peer, asked, verified, self.config.bytes_in_flight);
        self.learn_verified(verified);
    }

    /// Updates counters and known ends of epochs, wherever the commits came from.
    pub(super) fn learn_verified(&mut self, verified: &RangeSummary) {
        self.counters.commits_fetched += u64::from(verified.last.index - verified.first) + 1;
        self.counters.blocks_fetched += verified.blocks;
        self.counters.bytes_fetched += verified.bytes;
        self.proven = self.proven.max(verified.last.index);
        // A late result for linked commits tells nothing new.
        if verified.ends_epoch && verified.last.index > self.tip.commit.index {
            self.handovers.insert(verified.last.index, verified.epoch + 1);
        }
    }

    /// Decides what happens to missing commits. `nothing`: the worker delivered no commit at all.
    fn missing(&self, missing_from: CommitIndex, nothing: bool, stop: Option<&StopReason>) -> Missing {
        let next_is_due = missing_from == self.tip.commit.index + 1;
        match stop {
            Some(StopReason::Failed(failure)) => Missing::Failed(failure.clone()),
            // The committee has become known since the worker started.
            Some(StopReason::OtherEpoch { found, .. }) if *found == self.epoch_of(missing_from) => Missing::Again,
            // The epoch of the next commit is certain, so this commit is not of the chain.
            Some(StopReason::OtherEpoch { index, found }) if next_is_due => {
                let due = self.tip.next_epoch;
                let reason = format!("commit {index} is said to be of epoch {found}, but epoch {due} is due");
                Missing::WrongEpoch(PeerFailure::new(Fault::Unproven, reason))
            }
            Some(StopReason::OtherEpoch { found, .. }) => Missing::Held(*found),
            Some(StopReason::Cut) if nothing => Missing::TooLarge,
            Some(StopReason::Cut) | None => Missing::Again,
        }
    }

    /// The missing commits as a range of their own. It inherits the failures of `range` only if nothing was delivered.
    fn rest_of(
        &self,
        now: Now,
        range: &mut Range,
        nothing: bool,
        (missing_from, peer): (CommitIndex, PeerId),
        missing: Missing,
    ) -> Range {
        let mut rest = Range::waiting(range.end, now.monotonic);
        if nothing {
            (rest.attempts, rest.failed_at) = (range.attempts, std::mem::take(&mut range.failed_at));
        }
        match missing {
            Missing::Again => {}
            Missing::Failed(PeerFailure { fault, reason, .. }) => {
                rest.fail(now, Some(peer), fault != Fault::Ours, reason);
                // A peer that never served most likely has no commits at all; every n-th time its votes are suspected.
                rest.wide = self.flow.has_served(peer) || rest.attempts.is_multiple_of(WIDE_EVERY);
            }
            Missing::WrongEpoch(PeerFailure { reason, .. }) => rest.fail(now, Some(peer), true, reason),
            Missing::Held(epoch) => rest.state = RangeState::Held { epoch },
            Missing::TooLarge if !range.outgrown => rest.outgrown = true,
            Missing::TooLarge => {
                rest.fail(now, Some(peer), false, format!("commit {missing_from} is larger than a range may be"));
            }
        }
        rest
    }

    pub(super) fn on_worker_failed(&mut self, now: Now, key: RangeKey, reason: String, effects: &mut Vec<Effect>) {
        if let Some((start, _)) = self.segment_of_worker(key) {
            self.counters.worker_failures += 1;
            effects.push(Effect::Discard(key));
            return self.on_segment_worker_failed(now, start, reason);
        }
        if self.backfill.is_fetching(key) {
            return self.on_backfill_failed(now, reason, effects);
        }
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
}

/// How the peer of a finished worker is reported.
fn outcome(missing: Option<&Missing>, stop: Option<StopReason>, verified: Option<&RangeSummary>) -> Outcome {
    match (missing, stop, verified) {
        (Some(Missing::WrongEpoch(failure)), ..) => Outcome::Failed(failure.clone()),
        // A loss on the way is no fault of a peer that delivers something.
        (_, Some(StopReason::Failed(failure)), delivered) if failure.fault != Fault::Slow || delivered.is_none() => {
            Outcome::Failed(failure)
        }
        (.., Some(verified)) => Outcome::Served { last: verified.last.index, bytes: verified.bytes },
        (.., None) => Outcome::Unused,
    }
}

/// How the peer of a failed worker is reported if another worker may still deliver the range. `None`: it did not fail.
fn outcome_of_failure(nothing: bool, stop: Option<&StopReason>) -> Option<Outcome> {
    match stop {
        Some(StopReason::Failed(failure)) => Some(Outcome::Failed(failure.clone())),
        Some(StopReason::OtherEpoch { .. } | StopReason::Cut) if nothing => Some(Outcome::Unused),
        _ => None,
    }
}
