//! Linking verified ranges in order.
//!
//! A range was checked by itself. What its first commit owes to the commit before it is checked here: the same for every
//! range, wherever it was cut, and for commits of the node's own consensus.

use super::{Commit, Effect, Outcome, RangeKey, StateSync, Tip, Verified};
use crate::{core::Now, state_sync::plan::RangeState};
use soma_types::{CommitDigest, Fault, PeerFailure, TimestampMs};

/// Why verified commits do not follow the tip.
pub(super) enum Misfit {
    /// The first commit names another one as the one before it.
    Fork,
    /// They are of another epoch than the one due.
    Epoch,
    /// The timestamp of the first commit is not what it should be.
    Timestamp { expected_ms: TimestampMs },
}

impl Tip {
    pub(super) fn accepts(&self, commits: &Verified) -> Result<(), Misfit> {
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
    /// Moves the tip over every verified range that follows it, and writes what is ready.
    pub(super) fn link(&mut self, now: Now, effects: &mut Vec<Effect>) {
        loop {
            self.trim_linked(effects);
            let next = self.tip.commit.index + 1;
            let Some(range) = self.ranges.get_mut(&next) else { break };
            let RangeState::Done { key, peer, verified } = range.state else { break };
            match self.tip.accepts(&verified) {
                Ok(()) => {
                    self.ranges.remove(&next);
                    self.advance(key, &verified);
                    self.release_held(now);
                }
                Err(misfit) => {
                    let digest: CommitDigest = self.tip.commit.digest;
                    let (fault, reason) = match misfit {
                        Misfit::Fork => (
                            Fault::Unproven,
                            format!("commit {next} does not follow {digest:?}, which a quorum certified"),
                        ),
                        Misfit::Epoch => {
                            (Fault::Unproven, format!("commit {next} is of epoch {}, not the one due", verified.epoch))
                        }
                        // As within a range: what a quorum certified is not the doing of the peer that serves it.
                        Misfit::Timestamp { expected_ms } => {
                            let found_ms = verified.first_timestamp_ms;
                            (
                                Fault::Ours,
                                format!("commit {next} is of {found_ms} ms, and should be of {expected_ms} ms"),
                            )
                        }
                    };
                    range.fail(now, Some(peer), fault != Fault::Ours, reason.clone());
                    effects.push(Effect::Discard(key));
                    if fault != Fault::Ours {
                        let outcome = Outcome::Failed(PeerFailure::new(fault, reason));
                        effects.push(Effect::Report { peer, start: next, outcome });
                    }
                    break;
                }
            }
        }
        while let Some(keys) = self.write.next_batch(now) {
            effects.push(Effect::Write(keys));
        }
    }

    pub(super) fn advance(&mut self, key: RangeKey, commits: &Verified) {
        if commits.ends_epoch {
            self.handovers.insert(commits.last.index, commits.epoch + 1);
        }
        let next_epoch = commits.epoch + u64::from(commits.ends_epoch);
        self.tip = Tip { commit: commits.last, timestamp_ms: commits.last_timestamp_ms, next_epoch };
        self.handovers = self.handovers.split_off(&(commits.last.index + 1));
        self.write.push(key, commits);
    }
}
