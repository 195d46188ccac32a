//! Writes linked commits in order.
//!
//! ```text
//!   linked --> ready --> batch, written one at a time --> durable: published, announced
//!                ^                |
//!                '--- failed: backs off
//! ```

use super::{Effect, RETRY, RangeKey, RangeSummary, StateSync};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, CommitRef};
use std::{collections::VecDeque, time::Duration};

/// Maximum bytes of a write batch. Each batch costs a flush of the disk and five hops between threads. Larger batches
/// save no time (docs/lab-notebook.md, experiments 29, 56 and 57), and hold their bytes longer.
const MAX_WRITE_BYTES: u64 = 8 << 20;

/// Batches at the StoreWriter: the second is ready when the first ends, so the writer never waits for StateSync.
const MAX_BATCHES: usize = 2;

/// Linked commits on their way to the disk.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct WriteQueue {
    ready: VecDeque<Linked>,
    /// In the batches at the StoreWriter, in order.
    writing: VecDeque<Linked>,
    /// Batches without an answer.
    batches: usize,
    /// The first error of those batches.
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

    /// Bytes of the batches at the StoreWriter.
    pub(super) fn bytes_at_writer(&self) -> u64 {
        self.writing.iter().map(|linked| linked.bytes).sum()
    }

    /// Last commit of the batches at the StoreWriter, if it owes an answer.
    #[cfg(test)]
    pub(super) fn last_at_writer(&self) -> Option<CommitIndex> {
        (self.batches > 0).then(|| self.writing.back().map_or(0, |linked| linked.last.index))
    }

    /// Bytes of the next batch, if there is one.
    pub(super) fn next_batch_bytes(&self) -> Option<u64> {
        let first = self.ready.front()?.bytes;
        let mut bytes = 0;
        let all = self.ready.iter().map(|linked| {
            bytes += linked.bytes;
            bytes
        });
        all.take_while(|bytes| *bytes <= MAX_WRITE_BYTES).last().or(Some(first))
    }

    /// Whether more is ready than a batch takes.
    pub(super) fn is_batch_full(&self) -> bool {
        self.ready.iter().map(|linked| linked.bytes).sum::<u64>() >= MAX_WRITE_BYTES
    }

    /// Whether a commit of the node's own consensus waits.
    pub(super) fn has_local(&self) -> bool {
        self.ready.iter().any(|linked| linked.key.is_local())
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

    pub(super) fn push(&mut self, key: RangeKey, commits: &RangeSummary) {
        self.ready.push_back(Linked { key, bytes: commits.bytes, last: commits.last });
    }

    /// Takes the next batch: everything ready, at least one entry, within [`MAX_WRITE_BYTES`].
    pub(super) fn next_batch(&mut self, now: Now) -> Option<Vec<RangeKey>> {
        if !self.may_start(now) {
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

    /// Whether a batch may start now. A second batch starts only when it is full; a smaller one waits and grows.
    fn may_start(&self, now: Now) -> bool {
        match (&self.refused, &self.failure) {
            // A failed batch is retried alone, before those that follow it.
            (Some(_), _) => false,
            (None, Some(failure)) => self.batches == 0 && failure.retry_at <= now.monotonic,
            (None, None) if self.batches == 0 => true,
            (None, None) => self.batches < MAX_BATCHES && self.is_batch_full(),
        }
    }

    /// Takes the written entries up to the durable height, and returns their last commit.
    fn written(&mut self, highest: CommitIndex) -> Option<(Vec<Linked>, CommitRef)> {
        let count = self.writing.partition_point(|linked| linked.last.index <= highest);
        let last = self.writing.get(count.checked_sub(1)?)?.last;
        self.failure = None;
        Some((self.writing.drain(..count).collect(), last))
    }

    /// Returns entries that are not durable to the queue, once all batches are answered. All failures of one round
    /// count as one: a failed batch makes those behind it fail.
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
        let missing = || "the store took a batch and says that its last commit is not there".into();
        let attempts = failed.map_or(0, |failure| failure.attempts);
        let delay = RETRY.wait(attempts);
        self.failure = Some(WriteFailure {
            reason: refused.unwrap_or_else(missing),
            attempts: attempts + 1,
            retry_at: now.monotonic + delay,
        });
    }
}

impl StateSync {
    pub(super) fn on_written(&mut self, now: Now, result: Result<CommitRef, String>, effects: &mut Vec<Effect>) {
        debug_assert!(self.write.batches > 0, "an answer without a pending batch");
        self.write.batches = self.write.batches.saturating_sub(1);
        match result {
            // The store may hold more: a batch whose answer was lost.
            Ok(highest) => {
                if let Some((written, last)) = self.write.written(highest.index) {
                    for linked in &written {
                        self.executors.publish(now, linked.last.index, linked.bytes);
                    }
                    self.publish(written.iter().map(|linked| linked.key).collect(), last, effects);
                }
            }
            Err(reason) => drop(self.write.refused.get_or_insert(reason)),
        }
        self.write.settle(now);
    }

    fn publish(&mut self, keys: Vec<RangeKey>, highest: CommitRef, effects: &mut Vec<Effect>) {
        (self.applied, self.is_empty) = (highest, false);
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

    /// The time of the last input.
    fn unchanged(core: &StateSync) -> Now {
        Now { monotonic: core.last_now, unix_ms: 0 }
    }

    /// Offers local commit `index` of `bytes`.
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

    /// Wakes the core for its next retry.
    fn retried(core: &mut StateSync) -> Vec<Effect> {
        let wake = core.next_wake().unwrap();
        core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake)
    }

    fn indices(keys: &[RangeKey]) -> Vec<u64> {
        keys.iter().map(|key| key.0 - RangeKey::local(0).0).collect()
    }

    /// Commits of each batch to write.
    fn batches(effects: &[Effect]) -> Vec<Vec<u64>> {
        let batch = |effect: &Effect| match effect {
            Effect::Write(keys) => Some(indices(keys)),
            _ => None,
        };
        effects.iter().filter_map(batch).collect()
    }

    /// Published commits, and the highest of each publication.
    fn published(effects: &[Effect]) -> Vec<(Vec<u64>, CommitIndex)> {
        let published = |effect: &Effect| match effect {
            Effect::Publish { keys, highest } => Some((indices(keys), highest.index)),
            _ => None,
        };
        effects.iter().filter_map(published).collect()
    }

    #[test]
    fn second_batch_starts_only_when_full() {
        let mut core = core(Config::default());
        assert_eq!(batches(&commit(&mut core, 1, 100)), [[1]]);
        assert!(batches(&commit(&mut core, 2, MAX_WRITE_BYTES / 2)).is_empty(), "not full, and the writer is busy");
        assert!(batches(&commit(&mut core, 3, MAX_WRITE_BYTES / 2 - 1)).is_empty());
        assert_eq!(batches(&commit(&mut core, 4, 1)), [[2, 3, 4]]);
        assert!(batches(&commit(&mut core, 5, MAX_WRITE_BYTES)).is_empty(), "two are enough");
        let effects = written(&mut core, 1);
        assert_eq!((published(&effects), batches(&effects)), (vec![(vec![1], 1)], vec![vec![5]]));
        assert_eq!(published(&written(&mut core, 4)), [(vec![2, 3, 4], 4)]);
    }

    #[test]
    fn failed_batch_is_retried_before_the_batch_behind_it() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            assert_eq!(batches(&commit(&mut core, index, MAX_WRITE_BYTES)), [[u64::from(index)]]);
        }
        assert!(failed(&mut core, "disk full").is_empty());
        let full = Progress::Disk { reason: "disk full".into() };
        assert_eq!(
            (core.next_wake(), &core.snapshot().progress),
            (Some(STUCK_AFTER), &full),
            "no retry before the second batch is answered"
        );
        assert!(failed(&mut core, "commit 1 is not there").is_empty());
        assert_eq!(core.snapshot().progress, full, "the first failure is the cause");
        assert_eq!(core.next_wake(), Some(RETRY.min), "one failure");
        assert_eq!(batches(&retried(&mut core)), [[1]]);
        failed(&mut core, "disk full");
        assert_eq!(core.next_wake(), Some(RETRY.min * 3), "two failures");
        assert_eq!(batches(&retried(&mut core)), [[1]]);
        let effects = written(&mut core, 1);
        assert_eq!((published(&effects), batches(&effects)), (vec![(vec![1], 1)], vec![vec![2]]));
    }

    #[test]
    fn reordered_answers_are_handled() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "disk full");
        assert_eq!(published(&written(&mut core, 1)), [(vec![1], 1)]);
        assert_eq!(core.snapshot().progress, Progress::Disk { reason: "disk full".into() }, "the second batch failed");
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
    fn batch_with_lost_answer_is_published_once_the_store_reports_it() {
        let mut core = core(Config::default());
        for index in [1, 2] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "no answer");
        assert_eq!(published(&written(&mut core, 2)), [(vec![1, 2], 2)]);
        assert!(core.write.error().is_none() && core.write.is_empty());
        // Both answers are lost: the store has more than the retried batch.
        for index in [3, 4] {
            commit(&mut core, index, MAX_WRITE_BYTES);
        }
        failed(&mut core, "no answer");
        failed(&mut core, "no answer");
        assert_eq!(batches(&retried(&mut core)), [[3]]);
        assert_eq!(published(&written(&mut core, 4)), [(vec![3], 3)], "commit 4 waits for its own retry");
        assert_eq!(published(&written(&mut core, 4)), [(vec![4], 4)]);
    }

    #[test]
    fn store_that_lacks_a_written_batch_is_retried_with_backoff_and_shown() {
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
