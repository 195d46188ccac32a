//! Commits of the node's own consensus: believed no more than those of peers.
//!
//! ```text
//!   offered --not the next one--> answered (known, gap, fork, other epoch)
//!      `-- the next one --CheckLocal--> Verifier --LocalChecked--> linked, written, answered when durable
//! ```
//!
//! They are checked one after the other, in the order in which they came: the first may end the epoch of the second.

use super::{Effect, RangeKey, StateSync, Verified, link::Misfit};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitDigest, CommitIndex, CommitRef, Epoch, limits::MAX_COMMIT_INDEX};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// What a commit of the node's own consensus says of itself, before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Index and digest.
    pub commit: CommitRef,
    /// Digest of the commit before it.
    pub previous: CommitDigest,
    /// Its epoch.
    pub epoch: Epoch,
    /// Bytes of commit, blocks and votes.
    pub bytes: u64,
}

/// Why a commit of the node's own consensus was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LocalCommitError {
    /// Commits before it are missing; they are being fetched.
    #[error("commit {index} cannot be taken yet: {expected} is the next one, and being fetched from peers")]
    Gap {
        /// Offered.
        index: CommitIndex,
        /// Wanted.
        expected: CommitIndex,
    },
    /// It does not follow the chain that this node has.
    #[error("commit {index} does not follow commit {previous}, which this node has verified: two chains")]
    Fork {
        /// Offered.
        index: CommitIndex,
        /// What it should follow.
        previous: CommitRef,
    },
    /// Not of the epoch that is due.
    #[error("commit {index} is of epoch {found}, but epoch {expected} is due")]
    OtherEpoch {
        /// Offered.
        index: CommitIndex,
        /// Due.
        expected: Epoch,
        /// Offered.
        found: Epoch,
    },
    /// It, one of its blocks or one of its certifier blocks breaks a rule: every peer would refuse it.
    #[error("commit {index} is invalid: {reason}")]
    Invalid {
        /// Offered.
        index: CommitIndex,
        /// The rule.
        reason: String,
    },
    /// Its certifier blocks hold no quorum: peers could not prove it.
    #[error(
        "commit {index} cannot be proved to peers: {reason}; hand it over with the blocks of a quorum that vote for it"
    )]
    NotCertified {
        /// Offered.
        index: CommitIndex,
        /// How much is missing.
        reason: String,
    },
    /// StateSync or the Verifier was restarted before the commit was durable; it may be offered again.
    #[error("the commit was not stored: a part of the node is being restarted, or was stopped")]
    Unavailable,
    /// Too much waits to be written already.
    #[error("{bytes} bytes wait to be written: the disk is behind, try again")]
    Busy {
        /// Bytes in flight.
        bytes: u64,
    },
}

/// Commits of the node's own consensus that are not linked yet.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct LocalCommits {
    /// In the order in which they came. Bounded by the budget of bytes in flight.
    offered: VecDeque<(RangeKey, Offered)>,
    /// The first of them is being checked.
    checking: bool,
    /// Those that were fetched from peers as well and are not durable yet: answered when they are. As many as there are
    /// callers.
    awaited: BTreeSet<(CommitIndex, RangeKey)>,
    /// When one was last linked.
    last_linked: Option<Duration>,
}

impl LocalCommits {
    /// Bytes that wait to be checked.
    pub(super) fn bytes(&self) -> u64 {
        self.offered.iter().map(|(_, offered)| offered.bytes).sum()
    }

    /// When one was last linked.
    pub(super) fn last_linked(&self) -> Option<Duration> {
        self.last_linked
    }

    /// Takes those out that were waiting for commits up to `highest` to be durable.
    pub(super) fn take_durable(&mut self, highest: CommitIndex) -> Vec<RangeKey> {
        let waiting = self.awaited.split_off(&(highest.saturating_add(1), RangeKey(0)));
        std::mem::replace(&mut self.awaited, waiting).into_iter().map(|(_, key)| key).collect()
    }
}

/// What is to be done with a commit that was offered.
enum Standing {
    /// It is the next one.
    Next,
    /// It is linked already.
    Known,
}

impl StateSync {
    pub(super) fn on_local_commit(&mut self, key: RangeKey, commit: Offered, effects: &mut Vec<Effect>) {
        let bytes = self.bytes_in_flight();
        let limit = self.config.bytes_in_flight.saturating_add(self.config.bytes_per_range);
        if bytes.saturating_add(commit.bytes) > limit && commit.commit.index > self.tip.commit.index {
            return self.refuse(key, LocalCommitError::Busy { bytes }, effects);
        }
        self.local.offered.push_back((key, commit));
    }

    /// Has the first commit that waits checked, if it is the next one of the chain. Answers those that are not.
    pub(super) fn check_next_local(&mut self, effects: &mut Vec<Effect>) {
        while !self.local.checking
            && let Some((key, offered)) = self.local.offered.front().copied()
        {
            match self.standing(&offered) {
                Ok(Standing::Next) => {
                    self.local.checking = true;
                    effects.push(Effect::CheckLocal { key, epoch: offered.epoch });
                    return;
                }
                Ok(Standing::Known) => self.await_durable(key, offered.commit.index, effects),
                Err(error) => self.refuse(key, error, effects),
            }
            self.local.offered.pop_front();
        }
    }

    pub(super) fn on_local_checked(
        &mut self,
        now: Now,
        key: RangeKey,
        result: Result<Verified, LocalCommitError>,
        effects: &mut Vec<Effect>,
    ) {
        let is_due = self.local.checking && self.local.offered.front().is_some_and(|(first, _)| *first == key);
        let Some((_, offered)) = is_due.then(|| self.local.offered.pop_front()).flatten() else { return };
        self.local.checking = false;
        let commit = match result {
            Ok(commit) => commit,
            Err(error) => return self.refuse(key, error, effects),
        };
        // Peers may have delivered it meanwhile.
        match self.standing(&offered) {
            Ok(Standing::Next) => {}
            Ok(Standing::Known) => return self.await_durable(key, offered.commit.index, effects),
            Err(error) => return self.refuse(key, error, effects),
        }
        match self.tip.accepts(&commit) {
            Ok(()) => {
                self.local.last_linked = Some(now.monotonic);
                self.advance(key, &commit);
                self.release_held(now);
            }
            Err(misfit) => {
                let index = commit.first;
                let error = match misfit {
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
                };
                self.refuse(key, error, effects);
            }
        }
    }

    /// Where a commit stands to what is linked.
    fn standing(&self, offered: &Offered) -> Result<Standing, LocalCommitError> {
        let (index, tip) = (offered.commit.index, self.tip.commit);
        let fork = LocalCommitError::Fork { index, previous: tip };
        if index <= tip.index {
            let same = index < tip.index || offered.commit.digest == tip.digest;
            return if same { Ok(Standing::Known) } else { Err(fork) };
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
        Ok(Standing::Next)
    }

    fn refuse(&mut self, key: RangeKey, error: LocalCommitError, effects: &mut Vec<Effect>) {
        effects.push(Effect::Discard(key));
        effects.push(Effect::LocalAnswer { key, result: Err(error) });
    }

    /// Answers for a commit that is linked already: now, or once it is durable.
    fn await_durable(&mut self, key: RangeKey, index: CommitIndex, effects: &mut Vec<Effect>) {
        effects.push(Effect::Discard(key));
        if index <= self.applied.index {
            effects.push(Effect::LocalAnswer { key, result: Ok(()) });
        } else {
            self.local.awaited.insert((index, key));
        }
    }
}
