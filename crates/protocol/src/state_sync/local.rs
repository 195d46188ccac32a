//! Commits of the node's own consensus. They are checked like commits of peers.
//!
//! ```text
//!   offered --not the next one--> answered (known, gap, fork, other epoch)
//!      '-- the next one --CheckLocal--> Verifier --LocalChecked--> linked, written, answered once durable
//! ```
//!
//! Checks run one at a time, in order of arrival: the first commit may end the epoch of the second.

use super::{Effect, LocalCommitError, Offered, RangeKey, RangeSummary, StateSync, link::Misfit};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, limits::MAX_COMMIT_INDEX};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// Commits of the node's own consensus that are not linked yet.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct LocalCommits {
    /// In order of arrival. The budget of bytes in flight bounds them.
    offered: VecDeque<(RangeKey, Offered)>,
    /// The first is being checked.
    checking: bool,
    /// Commits that peers delivered as well. They are answered once durable. Callers bound their number.
    awaited: BTreeSet<(CommitIndex, RangeKey)>,
    last_linked: Option<Duration>,
}

impl LocalCommits {
    /// Bytes waiting for their check.
    pub(super) fn bytes(&self) -> u64 {
        self.offered.iter().map(|(_, offered)| offered.bytes).sum()
    }

    /// When a local commit was last linked.
    pub(super) fn last_linked(&self) -> Option<Duration> {
        self.last_linked
    }

    /// Removes the commits up to `highest`, which are durable now.
    pub(super) fn take_durable(&mut self, highest: CommitIndex) -> Vec<RangeKey> {
        let waiting = self.awaited.split_off(&(highest.saturating_add(1), RangeKey(0)));
        std::mem::replace(&mut self.awaited, waiting).into_iter().map(|(_, key)| key).collect()
    }
}

/// Position of an offered commit in the chain.
enum Position {
    /// The commit is the next one.
    Next,
    /// The commit is linked already.
    Known,
}

impl StateSync {
    pub(super) fn on_local_commit(&mut self, key: RangeKey, commit: Offered, effects: &mut Vec<Effect>) {
        if self.is_skipping() {
            return self.refuse(key, LocalCommitError::Unavailable, effects);
        }
        let bytes = self.bytes_in_flight();
        let limit = self.config.bytes_in_flight.saturating_add(self.config.bytes_per_range);
        if bytes.saturating_add(commit.bytes) > limit && commit.commit.index > self.tip.commit.index {
            return self.refuse(key, LocalCommitError::Busy { bytes }, effects);
        }
        self.local.offered.push_back((key, commit));
    }

    /// Has the first waiting commit checked if it is the next one of the chain; answers it otherwise.
    pub(super) fn check_next_local(&mut self, effects: &mut Vec<Effect>) {
        while !self.local.checking
            && let Some((key, offered)) = self.local.offered.front().copied()
        {
            match self.position_of(&offered) {
                Ok(Position::Next) => {
                    self.local.checking = true;
                    effects.push(Effect::CheckLocal { key, epoch: offered.epoch });
                    return;
                }
                Ok(Position::Known) => self.await_durable(key, offered.commit.index, effects),
                Err(error) => self.refuse(key, error, effects),
            }
            self.local.offered.pop_front();
        }
    }

    pub(super) fn on_local_checked(
        &mut self,
        now: Now,
        key: RangeKey,
        result: Result<RangeSummary, LocalCommitError>,
        effects: &mut Vec<Effect>,
    ) {
        let is_due = self.local.checking && self.local.offered.front().is_some_and(|(first, _)| *first == key);
        let Some((_, offered)) = is_due.then(|| self.local.offered.pop_front()).flatten() else { return };
        self.local.checking = false;
        let commit = match result {
            Ok(commit) => commit,
            Err(error) => return self.refuse(key, error, effects),
        };
        // Peers may have delivered the commit meanwhile.
        match self.position_of(&offered) {
            Ok(Position::Next) => {}
            Ok(Position::Known) => return self.await_durable(key, offered.commit.index, effects),
            Err(error) => return self.refuse(key, error, effects),
        }
        match self.tip.accepts(&commit) {
            Ok(()) => {
                self.local.last_linked = Some(now.monotonic);
                self.advance(key, &commit);
                self.release_held(now);
            }
            Err(misfit) => self.refuse(key, self.error_of(&misfit, &commit), effects),
        }
    }

    fn error_of(&self, misfit: &Misfit, commit: &RangeSummary) -> LocalCommitError {
        let index = commit.first;
        match misfit {
            Misfit::Timestamp { expected_ms } => {
                let found_ms = commit.first_timestamp_ms;
                let reason = format!("its timestamp is {found_ms} ms, and should be {expected_ms} ms");
                LocalCommitError::Invalid { index, reason }
            }
            Misfit::Fork => LocalCommitError::Fork { index, previous: self.tip.commit },
            Misfit::Epoch => {
                let (expected, found) = (self.tip.next_epoch, commit.epoch);
                LocalCommitError::OtherEpoch { index, expected, found }
            }
        }
    }

    fn position_of(&self, offered: &Offered) -> Result<Position, LocalCommitError> {
        let (index, tip) = (offered.commit.index, self.tip.commit);
        let fork = LocalCommitError::Fork { index, previous: tip };
        if index <= tip.index {
            let same = index < tip.index || offered.commit.digest == tip.digest;
            return if same { Ok(Position::Known) } else { Err(fork) };
        }
        if index > MAX_COMMIT_INDEX {
            let reason = format!("no commit has an index over {MAX_COMMIT_INDEX}");
            return Err(LocalCommitError::Invalid { index, reason });
        }
        if index - 1 > tip.index {
            return Err(LocalCommitError::Gap { index, expected: tip.index + 1 });
        }
        if offered.previous != tip.digest {
            return Err(fork);
        }
        if offered.epoch != self.tip.next_epoch {
            let (expected, found) = (self.tip.next_epoch, offered.epoch);
            return Err(LocalCommitError::OtherEpoch { index, expected, found });
        }
        Ok(Position::Next)
    }

    fn refuse(&mut self, key: RangeKey, error: LocalCommitError, effects: &mut Vec<Effect>) {
        effects.push(Effect::Discard(key));
        effects.push(Effect::LocalAnswer { key, result: Err(error) });
    }

    /// Answers for a linked commit: now, or once it is durable.
    fn await_durable(&mut self, key: RangeKey, index: CommitIndex, effects: &mut Vec<Effect>) {
        effects.push(Effect::Discard(key));
        if index <= self.applied.index {
            effects.push(Effect::LocalAnswer { key, result: Ok(()) });
        } else {
            self.local.awaited.insert((index, key));
        }
    }
}
