//! Linking verified ranges in order.

use super::{Effect, LocalCommitError, Outcome, RangeKey, StateSync, Tip, Verified};
use crate::{core::Now, state_sync::plan::RangeState};
use soma_types::{CommitDigest, Fault};

/// Why verified commits do not follow the tip.
enum Misfit {
    Fork,
    Epoch,
    Time,
}

impl Tip {
    fn accepts(&self, commits: &Verified) -> Result<(), Misfit> {
        if commits.previous != self.commit.digest {
            Err(Misfit::Fork)
        } else if commits.epoch != self.next_epoch {
            Err(Misfit::Epoch)
        } else if commits.first_timestamp_ms < self.timestamp_ms {
            Err(Misfit::Time)
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
            let RangeState::Done { peer, verified } = range.state else { break };
            let key = range.key;
            match self.tip.accepts(&verified) {
                Ok(()) => {
                    self.ranges.remove(&next);
                    self.advance(key, &verified);
                    self.release_held(now);
                }
                Err(misfit) => {
                    let digest: CommitDigest = self.tip.commit.digest;
                    let reason = match misfit {
                        Misfit::Fork => format!("commit {next} does not follow {digest:?}, which a quorum certified"),
                        Misfit::Epoch => format!("commit {next} is of epoch {}, not the one due", verified.epoch),
                        Misfit::Time => format!("commit {next} is older than the commit before it"),
                    };
                    range.fail(now, Some(peer), reason.clone());
                    effects.push(Effect::Discard(key));
                    let outcome = Outcome::Failed { fault: Fault::Unproven, reason, retry_after: None };
                    effects.push(Effect::Report { peer, start: next, outcome });
                    break;
                }
            }
        }
        while let Some(keys) = self.write.next_batch(now) {
            effects.push(Effect::Write(keys));
        }
    }

    fn advance(&mut self, key: RangeKey, commits: &Verified) {
        if commits.ends_epoch {
            self.handovers.insert(commits.last.index, commits.epoch + 1);
        }
        let next_epoch = commits.epoch + u64::from(commits.ends_epoch);
        self.tip = Tip { commit: commits.last, timestamp_ms: commits.last_timestamp_ms, next_epoch };
        self.handovers = self.handovers.split_off(&(commits.last.index + 1));
        self.write.push(key, commits);
    }

    pub(super) fn on_local_commit(&mut self, now: Now, key: RangeKey, commit: Verified, effects: &mut Vec<Effect>) {
        let result = self.check_local(&commit);
        match result {
            Ok(true) => {
                self.last_local = Some(now.monotonic);
                self.advance(key, &commit);
                self.release_held(now);
            }
            Ok(false) => {
                effects.push(Effect::Discard(key));
                if commit.first <= self.applied.index {
                    effects.push(Effect::LocalAnswer { key, result: Ok(()) });
                } else {
                    self.awaited.insert((commit.first, key));
                }
            }
            Err(error) => {
                effects.push(Effect::Discard(key));
                effects.push(Effect::LocalAnswer { key, result: Err(error) });
            }
        }
    }

    /// Whether a commit of our own consensus is the next one (`true`) or had already (`false`).
    fn check_local(&self, commit: &Verified) -> Result<bool, LocalCommitError> {
        let index = commit.first;
        let tip = self.tip.commit;
        let fork = LocalCommitError::Fork { index, previous: tip };
        if index <= tip.index {
            let same = index < tip.index || commit.last.digest == tip.digest;
            return if same { Ok(false) } else { Err(fork) };
        }
        if index > tip.index + 1 {
            return Err(LocalCommitError::Gap { index, expected: tip.index + 1 });
        }
        let bytes = self.bytes_in_flight();
        if bytes + commit.bytes > self.config.bytes_in_flight + self.config.bytes_per_range {
            return Err(LocalCommitError::Busy { bytes });
        }
        match self.tip.accepts(commit) {
            Ok(()) => Ok(true),
            Err(Misfit::Fork | Misfit::Time) => Err(fork),
            Err(Misfit::Epoch) => {
                let expected = self.tip.next_epoch;
                Err(LocalCommitError::OtherEpoch { index, expected, found: commit.epoch })
            }
        }
    }
}
