//! Getting linked commits written, in order.
//!
//! ```text
//!   linked --> ready --> batch (asked for; written one by one) --> durable: published, announced
//!                ^                     |
//!                +---- failed: waits --+
//! ```

use super::{Effect, RETRY, RangeKey, StateSync, Verified};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, CommitRef};
use std::{collections::VecDeque, time::Duration};

/// Bytes in one write batch: a flush of the disk and five steps from thread to thread for each. Larger ones take no less time
/// (docs/performance.md), and hold their bytes longer.
const MAX_WRITE_BYTES: u64 = 8 << 20;

/// Batches asked for at a time: while one is being written, the next waits at the writer, which need not wait for us.
const MAX_BATCHES: usize = 2;

/// Linked commits on their way to the disk.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct WriteQueue {
    ready: VecDeque<Linked>,
    /// Asked for, in order.
    writing: VecDeque<Linked>,
    /// Batches asked for and not answered.
    batches: usize,
    /// The first error among their answers.
    refused: Option<String>,
    failure: Option<WriteFailure>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Linked {
    key: RangeKey,
    bytes: u64,
    last: CommitRef,
}

#[derive(Serialize, Deserialize)]
struct WriteFailure {
    reason: String,
    attempts: u32,
    retry_at: Duration,
}

impl WriteQueue {
    pub(super) fn bytes(&self) -> u64 {
        self.ready.iter().chain(&self.writing).map(|linked| linked.bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.writing.is_empty()
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.refused.as_deref().or(self.failure.as_ref().map(|failure| failure.reason.as_str()))
    }

    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.failure.as_ref().filter(|_| self.batches == 0).map(|failure| failure.retry_at)
    }

    pub(super) fn push(&mut self, key: RangeKey, commits: &Verified) {
        self.ready.push_back(Linked { key, bytes: commits.bytes, last: commits.last });
    }

    /// The next batch: all that is ready, up to the bound, at least one. Beside another only if there is more than fits: less
    /// waits, and grows.
    pub(super) fn next_batch(&mut self, now: Now) -> Option<Vec<RangeKey>> {
        let may = match (&self.refused, &self.failure) {
            // What failed is tried again before what follows it, and alone.
            (Some(_), _) => false,
            (None, Some(failure)) => self.batches == 0 && failure.retry_at <= now.monotonic,
            (None, None) if self.batches == 0 => true,
            (None, None) => {
                let ready: u64 = self.ready.iter().map(|linked| linked.bytes).sum();
                self.batches < MAX_BATCHES && ready >= MAX_WRITE_BYTES
            }
        };
        if !may {
            return None;
        }
        let mut keys = Vec::new();
        let mut bytes = 0;
        while let Some(linked) = self.ready.front().copied() {
            bytes += linked.bytes;
            if bytes > MAX_WRITE_BYTES && !keys.is_empty() {
                break;
            }
            self.ready.pop_front();
            self.writing.push_back(linked);
            keys.push(linked.key);
        }
        self.batches += usize::from(!keys.is_empty());
        (!keys.is_empty()).then_some(keys)
    }

    /// The store is durable up to `highest`: what was asked for of that, and its last commit.
    fn written(&mut self, highest: CommitIndex) -> Option<(Vec<RangeKey>, CommitRef)> {
        let count = self.writing.partition_point(|linked| linked.last.index <= highest);
        let last = self.writing.get(count.checked_sub(1)?)?.last;
        self.failure = None;
        Some((self.writing.drain(..count).map(|linked| linked.key).collect(), last))
    }

    /// Takes back what is not durable, once all batches are answered: in whatever order that came, and however many failed
    /// because one before them had, it is one failure.
    fn settle(&mut self, now: Now) {
        if self.batches > 0 {
            return;
        }
        let refused = self.refused.take();
        let failed = self.failure.take();
        if self.writing.is_empty() {
            return;
        }
        while let Some(linked) = self.writing.pop_back() {
            self.ready.push_front(linked);
        }
        let unsaid = || "the store took a batch and says that its last commit is not there".into();
        let attempts = failed.map_or(0, |failure| failure.attempts);
        let delay = RETRY.wait(attempts);
        self.failure = Some(WriteFailure {
            reason: refused.unwrap_or_else(unsaid),
            attempts: attempts + 1,
            retry_at: now.monotonic + delay,
        });
    }
}

impl StateSync {
    pub(super) fn on_written(&mut self, now: Now, result: Result<CommitRef, String>, effects: &mut Vec<Effect>) {
        debug_assert!(self.write.batches > 0, "an answer to no question");
        self.write.batches = self.write.batches.saturating_sub(1);
        match result {
            // The store may hold more: of a batch whose answer was lost.
            Ok(highest) => {
                if let Some((keys, last)) = self.write.written(highest.index) {
                    self.publish(keys, last, effects);
                }
            }
            Err(reason) => drop(self.write.refused.get_or_insert(reason)),
        }
        self.write.settle(now);
    }

    fn publish(&mut self, keys: Vec<RangeKey>, highest: CommitRef, effects: &mut Vec<Effect>) {
        self.applied = highest;
        for key in keys.iter().copied().filter(|key| key.is_local()) {
            effects.push(Effect::LocalAnswer { key, result: Ok(()) });
        }
        for key in self.local.take_durable(highest.index) {
            effects.push(Effect::LocalAnswer { key, result: Ok(()) });
        }
        effects.push(Effect::Publish { keys, highest });
        effects.push(Effect::Announce(highest.index));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Config, Input, Progress, STUCK_AFTER,
            tests::{core, local, verified},
        },
        *,
    };
    use crate::core::Core;

    /// No time has passed.
    fn unchanged(core: &StateSync) -> Now {
        Now { monotonic: core.last_now, unix_ms: 0 }
    }

    /// Hands over commit `index`, of `bytes`, of the node's own.
    fn commit(core: &mut StateSync, index: CommitIndex, bytes: u64) -> Vec<Effect> {
        let key = RangeKey::local(index.into());
        local(core, unchanged(core), key, verified(index, index, bytes))
    }

    fn written(core: &mut StateSync, index: CommitIndex) -> Vec<Effect> {
        let result = Ok(CommitRef { index, ..verified(1, 1, 0).last });
        core.handle(unchanged(core), Input::Written(result))
    }

    fn failed(core: &mut StateSync, reason: &str) -> Vec<Effect> {
        core.handle(unchanged(core), Input::Written(Err(reason.into())))
    }

    /// The time to try again has come.
    fn retried(core: &mut StateSync) -> Vec<Effect> {
        let wake = core.next_wake().unwrap();
        core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake)
    }

    fn indices(keys: &[RangeKey]) -> Vec<u64> {
        keys.iter().map(|key| key.0 - RangeKey::local(0).0).collect()
    }

    /// Commits in each batch that is to be written.
    fn batches(effects: &[Effect]) -> Vec<Vec<u64>> {
        let batch = |effect: &Effect| match effect {
            Effect::Write(keys) => Some(indices(keys)),
            _ => None,
        };
        effects.iter().filter_map(batch).collect()
    }

    /// Commits that are published, and the highest that is told.
    fn published(effects: &[Effect]) -> Vec<(Vec<u64>, CommitIndex)> {
        let published = |effect: &Effect| match effect {
            Effect::Publish { keys, highest } => Some((indices(keys), highest.index)),
            _ => None,
        };
        effects.iter().filter_map(published).collect()
    }

    #[test]
    fn a_full_batch_waits_at_the_writer_and_a_small_one_here_so_that_it_grows() {
        let mut core = core(Config::default());
        assert_eq!(batches(&commit(&mut core, 1, 100)), [[1]]);
        assert!(batches(&commit(&mut core, 2, MAX_WRITE_BYTES / 2)).is_empty(), "not full, and the writer has work");
        assert!(batches(&commit(&mut core, 3, MAX_WRITE_BYTES / 2 - 1)).is_empty());
        assert_eq!(batches(&commit(&mut core, 4, 1)), [[2, 3, 4]]);
        assert!(batches(&commit(&mut core, 5, MAX_WRITE_BYTES)).is_empty(), "two are enough");
        let effects = written(&mut core, 1);
        assert_eq!((published(&effects), batches(&effects)), (vec![(vec![1], 1)], vec![vec![5]]));
        assert_eq!(published(&written(&mut core, 4)), [(vec![2, 3, 4], 4)]);
    }

    #[test]
    fn what_waited_behind_a_batch_that_failed_is_written_after_it_once_that_has_succeeded() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            assert_eq!(batches(&commit(&mut core, index, MAX_WRITE_BYTES)), [[u64::from(index)]]);
        }
        assert!(failed(&mut core, "disk full").is_empty());
        let full = Progress::Disk { reason: "disk full".into() };
        assert_eq!(
            (core.next_wake(), &core.snapshot().progress),
            (Some(STUCK_AFTER), &full),
            "not tried again: of the second nothing has been heard"
        );
        assert!(failed(&mut core, "commit 1 is not there").is_empty());
        assert_eq!(core.snapshot().progress, full, "what failed first is why");
        assert_eq!(core.next_wake(), Some(RETRY.min), "one failure");
        assert_eq!(batches(&retried(&mut core)), [[1]]);
        failed(&mut core, "disk full");
        assert_eq!(core.next_wake(), Some(RETRY.min * 3), "and another");
        assert_eq!(batches(&retried(&mut core)), [[1]]);
        let effects = written(&mut core, 1);
        assert_eq!((published(&effects), batches(&effects)), (vec![(vec![1], 1)], vec![vec![2]]));
    }

    #[test]
    fn answers_that_overtake_each_other_are_understood_all_the_same() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "disk full");
        assert_eq!(published(&written(&mut core, 1)), [(vec![1], 1)]);
        assert_eq!(core.snapshot().progress, Progress::Disk { reason: "disk full".into() }, "of the second batch");
        assert_eq!(batches(&retried(&mut core)), [[2]]);
        assert_eq!(published(&written(&mut core, 2)), [(vec![2], 2)]);
        for index in [3, 4] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        assert_eq!(published(&written(&mut core, 4)), [(vec![3, 4], 4)]);
        assert!(published(&written(&mut core, 3)).is_empty());
        assert!(core.write.error().is_none() && core.write.is_empty());
    }

    #[test]
    fn a_batch_whose_answer_was_lost_is_published_once_the_store_says_that_it_has_it() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "no answer");
        assert_eq!(published(&written(&mut core, 2)), [(vec![1, 2], 2)]);
        assert!(core.write.error().is_none() && core.write.is_empty());
        // Both answers are lost: the store has more than what it is asked for again.
        for index in [3, 4] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "no answer");
        failed(&mut core, "no answer");
        assert_eq!(batches(&retried(&mut core)), [[3]]);
        assert_eq!(published(&written(&mut core, 4)), [(vec![3], 3)], "what was not asked for again is not told yet");
        assert_eq!(published(&written(&mut core, 4)), [(vec![4], 4)]);
    }

    #[test]
    fn a_store_that_does_not_have_what_it_took_is_asked_again_ever_later_and_that_is_said() {
        let mut core = core(Config::default());
        commit(&mut core, 1, 100);
        assert!(published(&written(&mut core, 0)).is_empty());
        assert!(matches!(core.snapshot().progress, Progress::Disk { .. }));
        assert_eq!(core.next_wake(), Some(RETRY.min));
        assert_eq!(batches(&retried(&mut core)), [[1]]);
        written(&mut core, 0);
        assert_eq!(core.next_wake(), Some(RETRY.min * 3));
    }
}
