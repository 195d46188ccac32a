//! Linking verified ranges in order.
//!
//! A worker checks its range by itself. Here the first commit is checked against the commit before it: in the same
//! way for every range, wherever it was cut, and for commits of the node's own consensus.

use super::{
    Effect, RangeKey, RangeSummary, StateSync, Tip,
    range::{RangeState, Source},
};
use crate::{core::Now, peer_heights::Outcome};
use soma_types::{Commit, CommitDigest, CommitIndex, Fault, PeerFailure, TimestampMs};

/// Why verified commits do not follow the tip.
pub(super) enum Misfit {
    /// The first commit names another predecessor.
    Fork,
    /// Their epoch is not the one due.
    Epoch,
    /// The timestamp of the first commit is wrong.
    Timestamp { expected_ms: TimestampMs },
}

impl Tip {
    pub(super) fn accepts(&self, commits: &RangeSummary) -> Result<(), Misfit> {
        let expected_ms = Commit::timestamp_after(commits.first_leader_timestamp_ms, self.timestamp_ms);
        if commits.previous != self.commit.digest {
            Err(Misfit::Fork)
        } else if commits.epoch != self.next_epoch {
            Err(Misfit::Epoch)
        } else if commits.first_timestamp_ms != expected_ms {
            Err(Misfit::Timestamp { expected_ms })
        } else {
            Ok(())
        }
    }
}

impl StateSync {
    /// Moves the tip over every verified range that follows it, and starts the writes that are due.
    pub(super) fn link(&mut self, now: Now, effects: &mut Vec<Effect>) {
        loop {
            self.trim_linked(effects);
            let next = self.tip.commit.index + 1;
            let Some(range) = self.ranges.get(&next) else { break };
            let RangeState::Done { key, source, verified } = range.state else { break };
            match self.tip.accepts(&verified) {
                Ok(()) => {
                    self.ranges.remove(&next);
                    self.advance(key, &verified);
                    self.release_held(now);
                }
                Err(misfit) => {
                    effects.push(Effect::Discard(key));
                    let failure = self.failure_of(&misfit, &verified);
                    self.reject(now, next, source, failure, effects);
                    break;
                }
            }
        }
        while self.write_held_until(now.monotonic).is_none()
            && let Some(keys) = self.write.next_batch(now)
        {
            effects.push(Effect::Write(keys));
        }
    }

    /// Returns a verified range to the plan that does not follow the tip. Reports its source unless it is blameless.
    fn reject(
        &mut self,
        now: Now,
        start: CommitIndex,
        source: Source,
        failure: PeerFailure,
        effects: &mut Vec<Effect>,
    ) {
        let peer = match source {
            Source::Peer(peer) => peer,
            Source::Archive(segment) => {
                if let Some(range) = self.ranges.get_mut(&start) {
                    range.state = RangeState::Waiting { not_before: now.monotonic };
                }
                return self.on_segment_fault(now, segment, failure, effects);
            }
        };
        let is_blamed = failure.fault != Fault::Ours;
        if let Some(range) = self.ranges.get_mut(&start) {
            range.fail(now, Some(peer), is_blamed, failure.reason.clone());
        }
        if is_blamed {
            effects.push(Effect::Report { peer, start, outcome: Outcome::Failed(failure) });
        }
    }

    fn failure_of(&self, misfit: &Misfit, verified: &RangeSummary) -> PeerFailure {
        let next = self.tip.commit.index + 1;
        match misfit {
            Misfit::Fork => {
                let digest: CommitDigest = self.tip.commit.digest;
                let reason = format!("commit {next} does not follow {digest:?}, which a quorum certified");
                PeerFailure::new(Fault::Unproven, reason)
            }
            Misfit::Epoch => {
                let reason = format!("commit {next} is of epoch {}, not the one due", verified.epoch);
                PeerFailure::new(Fault::Unproven, reason)
            }
            // A quorum certified the timestamp, so the peer that serves it is blameless.
            Misfit::Timestamp { expected_ms } => {
                let found_ms = verified.first_timestamp_ms;
                let reason = format!("commit {next} is of {found_ms} ms, and should be of {expected_ms} ms");
                PeerFailure::new(Fault::Ours, reason)
            }
        }
    }

    pub(super) fn advance(&mut self, key: RangeKey, commits: &RangeSummary) {
        if commits.ends_epoch {
            self.handovers.insert(commits.last.index, commits.epoch + 1);
        }
        let next_epoch = commits.epoch + u64::from(commits.ends_epoch);
        self.tip = Tip { commit: commits.last, timestamp_ms: commits.last_timestamp_ms, next_epoch };
        self.handovers = self.handovers.split_off(&(commits.last.index + 1));
        self.write.push(key, commits);
    }
}
