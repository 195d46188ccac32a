//! The node's executors, and the commit feed from which they take durable commits in memory.
//!
//! ```text
//!   write queue --> batch --> durable: commit feed (at most FEED_BYTES) --> slowest executor
//!        ^                                  |
//!        '-- held while a batch would push unread commits out of the feed
//! ```
//!
//! An executor that falls out of the feed reads the store and decodes every block again. That costs the CPU time that
//! the sync needs, so the executor falls behind further. A sync cannot outrun its executor for long anyway, so writes
//! wait for a quick one. A slow executor may lag by `max_executor_lag`: its reads of the store cost little, and the
//! node gets its history.

use super::{ExecutorAt, ExecutorFailure, StateSync};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::CommitIndex;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Bytes of durable commits that the commit feed keeps until every executor has taken them: one batch that is read, and
/// two at the StoreWriter. An executor that lags further reads the store.
pub const FEED_BYTES: u64 = 24 << 20;

/// Maximum number of tracked executors; a node has one or a few.
const MAX_EXECUTORS: usize = 64;

/// An executor is quick if it takes this much within [`QUICK_TIME`]: 10 MiB/s. Reading the store for a slower one costs
/// a few percent of a core.
const QUICK_BYTES: u64 = 1 << 20;

/// Longest time in which a quick executor takes [`QUICK_BYTES`]. A stalled executor delays a write by this much, once.
const QUICK_TIME: Duration = Duration::from_millis(100);

/// Maximum lag of a quick executor that writes wait for until it is back in the feed. At 10 MiB/s they wait 7 s.
const CATCH_UP_BYTES: u64 = 64 << 20;

/// Positions of the executors, and the content of the commit feed.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Executors {
    /// The next commit of each executor.
    next: BTreeMap<u64, CommitIndex>,
    failure: Option<ExecutorFailure>,
    /// Ranges in the feed: last commit and bytes, in order.
    feed: VecDeque<(CommitIndex, u64)>,
    feed_bytes: u64,
    /// First commit in the feed or after it.
    feed_start: CommitIndex,
    pace: Pace,
}

/// Whether the slowest executor is quick.
#[derive(Serialize, Deserialize)]
struct Pace {
    is_quick: bool,
    /// When the executor last completed [`QUICK_BYTES`], or got its first commit after it had taken all.
    since: Duration,
    /// Estimated bytes taken after that.
    taken: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { is_quick: true, since: Duration::ZERO, taken: 0 }
    }
}

impl Pace {
    /// The executor has taken about so many bytes more.
    fn take(&mut self, now: Now, bytes: u64) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= QUICK_BYTES {
            *self = Self { is_quick: now.monotonic <= self.quick_until(), since: now.monotonic, taken: 0 };
        }
    }

    fn quick_until(&self) -> Duration {
        self.since + QUICK_TIME
    }
}

impl Executors {
    /// The next commit of the slowest executor.
    pub(super) fn slowest(&self) -> Option<CommitIndex> {
        self.next.values().min().copied()
    }

    /// The last failure of an executor's stream.
    pub(super) fn failure(&self) -> Option<&ExecutorFailure> {
        self.failure.as_ref()
    }

    /// Learns the position of an executor. `bytes` estimates the bytes of this many commits.
    pub(super) fn learn(&mut self, now: Now, reader: u64, at: ExecutorAt, bytes: impl Fn(CommitIndex) -> u64) {
        let before = self.slowest();
        match at {
            ExecutorAt::Next(next) => {
                self.failure.take_if(|failure| failure.next < next);
                if self.next.len() < MAX_EXECUTORS || self.next.contains_key(&reader) {
                    self.next.insert(reader, next);
                }
            }
            ExecutorAt::Ended => drop(self.next.remove(&reader)),
            ExecutorAt::Failed { next, reason } => {
                self.next.remove(&reader);
                self.failure = Some(ExecutorFailure { next, reason });
            }
        }
        let Some(slowest) = self.slowest() else { return };
        while let Some((last, _)) = self.feed.front()
            && *last < slowest
        {
            self.drop_first();
        }
        let taken = slowest.saturating_sub(before.unwrap_or(slowest));
        if taken > 0 {
            self.pace.take(now, bytes(taken));
        }
    }

    /// Commits up to `last` are in the feed. It drops its first ones where they do not fit, and nothing is counted
    /// without an executor.
    pub(super) fn publish(&mut self, now: Now, last: CommitIndex, bytes: u64) {
        if self.feed.is_empty() {
            self.pace = Pace { since: now.monotonic, ..Pace::default() };
        }
        self.feed.push_back((last, bytes));
        self.feed_bytes += bytes;
        while self.feed_bytes > FEED_BYTES || (self.next.is_empty() && !self.feed.is_empty()) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((last, bytes)) = self.feed.pop_front() {
            self.feed_bytes -= bytes;
            self.feed_start = last.saturating_add(1);
        }
    }

    /// Until when a batch waits for the slowest executor, unless that takes more. `queued` are the bytes at the
    /// StoreWriter and of the batch, `lag` are about the bytes that the executor has not taken.
    fn holds_until(&self, now: Duration, queued: u64, lag: u64) -> Option<Duration> {
        let next = self.slowest()?;
        let is_behind = next < self.feed_start;
        // An empty feed loses nothing.
        let is_full = !self.feed.is_empty() && self.feed_bytes + queued > FEED_BYTES;
        let waits = if is_behind { lag <= CATCH_UP_BYTES } else { is_full };
        let until = self.pace.quick_until();
        (waits && self.pace.is_quick && now < until).then_some(until)
    }
}

impl StateSync {
    /// Until when the next batch waits for the slowest executor. Commits of the node's own consensus never wait.
    pub(super) fn write_held_until(&self, now: Duration) -> Option<Duration> {
        let batch = self.write.next_batch_bytes().filter(|_| !self.write.has_local())?;
        let next = self.executors.slowest()?;
        let lag = self.flow.expected((self.applied.index + 1).saturating_sub(next));
        self.executors.holds_until(now, self.write.bytes_at_writer() + batch, lag)
    }

    /// Whether a full batch waits for the slowest executor. More ranges would only fill the memory.
    pub(super) fn is_full_batch_held(&self, now: Duration) -> bool {
        self.write.is_batch_full() && self.write_held_until(now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Config, Effect, Input, RangeKey,
            tests::{at, core, digest, local, started, target, verified},
        },
        *,
    };
    use crate::core::Core;
    use soma_types::CommitRef;

    /// Bytes of each commit.
    const COMMIT: u64 = 1 << 20;

    /// A sync that always has commits to write, a disk that writes at once, and an executor.
    struct Sync {
        core: StateSync,
        now_ms: u64,
        linked: CommitIndex,
        executor: CommitIndex,
    }

    impl Sync {
        fn start() -> Self {
            let mut core = core(Config::default());
            core.handle(at(0), Input::Executor { reader: 1, at: ExecutorAt::Next(1) });
            Self { core, now_ms: 0, linked: 0, executor: 1 }
        }

        fn handle(&mut self, input: Input) -> Vec<Effect> {
            self.core.handle(at(self.now_ms), input)
        }

        /// Links and writes as much as the executor allows, at most `commits`.
        fn write(&mut self, commits: CommitIndex) {
            for _ in 0..commits {
                if self.core.write.is_batch_full() && self.core.write_held_until(self.core.last_now).is_some() {
                    return;
                }
                self.linked += 1;
                let key = RangeKey(u64::from(self.linked));
                self.core.advance(key, &verified(self.linked, self.linked, COMMIT));
                self.handle(Input::Wake);
                self.end_writes();
            }
        }

        fn end_writes(&mut self) {
            while let Some(index) = self.core.write.last_at_writer() {
                self.handle(Input::Written(Ok(CommitRef { index, digest: digest(index) })));
            }
        }

        /// The executor takes up to so many commits.
        fn execute(&mut self, commits: CommitIndex) {
            self.executor = (self.executor + commits).min(self.core.applied.index + 1);
            self.handle(Input::Executor { reader: 1, at: ExecutorAt::Next(self.executor) });
            self.end_writes();
        }

        fn wait(&mut self, ms: u64) {
            self.now_ms += ms;
            self.handle(Input::Wake);
            self.end_writes();
        }

        fn reads_store(&self) -> bool {
            self.executor < self.core.executors.feed_start
        }

        /// Durable commits that the executor has not taken.
        fn lag(&self) -> CommitIndex {
            self.core.applied.index + 1 - self.executor
        }
    }

    #[test]
    fn quick_executor_never_reads_the_store() {
        let mut sync = Sync::start();
        for _ in 0..2_000 {
            sync.write(1_000);
            assert!(!sync.reads_store(), "commit {} left the feed", sync.executor);
            sync.wait(40);
            sync.execute(1);
        }
        assert!(sync.executor > 1_900 && u64::from(sync.lag()) <= FEED_BYTES / COMMIT);
    }

    #[test]
    fn slow_executor_lags_and_delays_one_write() {
        let mut sync = Sync::start();
        sync.write(1_000);
        assert!(u64::from(sync.lag()) <= FEED_BYTES / COMMIT);
        let held = sync.core.next_wake().unwrap();
        assert!(held <= QUICK_TIME, "{held:?}");
        sync.now_ms = held.as_millis() as u64;
        sync.wait(0);
        sync.write(1_000);
        assert!(sync.lag() > 900, "{}", sync.lag());
        // One MiB in 150 ms is slow.
        for _ in 0..10 {
            sync.wait(150);
            sync.execute(1);
            let before = sync.lag();
            sync.write(10);
            assert!(sync.lag() >= before, "nothing waits");
        }
    }

    #[test]
    fn quick_executor_gets_back_into_the_feed() {
        let mut sync = Sync::start();
        sync.write(30);
        sync.wait(1_000);
        sync.write(20);
        assert!(sync.reads_store(), "it has stalled");
        while sync.reads_store() {
            sync.wait(10);
            sync.execute(1);
            sync.write(3);
            assert!(sync.now_ms < 2_000, "writes wait until it is back");
        }
        for _ in 0..100 {
            sync.write(3);
            assert!(!sync.reads_store());
            sync.wait(10);
            sync.execute(1);
        }
    }

    #[test]
    fn commit_of_own_consensus_never_waits_for_an_executor() {
        let mut sync = Sync::start();
        sync.write(1_000);
        assert!(sync.core.write_held_until(Duration::ZERO).is_some());
        let index = sync.linked + 1;
        local(&mut sync.core, at(0), RangeKey::local(1), verified(index, index, COMMIT));
        sync.end_writes();
        assert_eq!(sync.core.applied.index, index);
    }

    #[test]
    fn full_batch_that_waits_starts_no_range_but_the_next() {
        let mut sync = Sync::start();
        sync.write(1_000);
        assert!(sync.core.is_full_batch_held(Duration::ZERO));
        let effects = sync.handle(target(10_000));
        assert_eq!(started(&mut sync.core, &effects).len(), 1);
        sync.execute(1_000);
        assert!(!sync.core.is_full_batch_held(Duration::ZERO));
        assert!(sync.core.workers() > 1);
    }
}
