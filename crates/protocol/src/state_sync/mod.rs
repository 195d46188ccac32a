//! StateSync plans which commits to fetch, orders the results, and has them written and handed on.
//!
//! ```text
//!   advertised height --> plan ranges --> select a peer --> worker --> Done (the shell holds the bytes)
//!                            ^  any failure returns the range |          |
//!                            '--------------------------------'   link in order by previous digest
//!                                                                        v
//!   executor, peers <-- applied (durable) <-- Written <-- write batches, in order
//! ```
//!
//! | file | job |
//! |---|---|
//! | `plan` | cut ranges, start them within the budget |
//! | `hedging` | hedged requests for late ranges |
//! | `results` | keep what workers deliver, return the rest to the plan |
//! | `link`, `write` | order verified ranges, write and announce them |
//! | `local` | commits of the node's own consensus |
//! | `archive`, `archive_route` | the archive as a source, for commits that no peer can serve |
//! | `epoch_skip` | the start of a node that does not begin at the genesis |
//! | `backfill` | the commits before that start, backwards |
//! | `executors` | positions of the executors; writes that wait for them |
//! | `flow` | measure sizes and times: range length, window, hedge delays |
//! | `progress`, `cause`, `stuck` | why there is no progress, and since when |
//! | `worker` | one range from one peer |
//!
//! Invariants:
//! - A range leaves the plan only when its commits are linked, fetched or local. The undelivered part
//!   returns to the plan.
//! - Commits are linked, written and announced in index order, each once. `applied` moves only after a durable write.
//! - A range holds at most its reserve, and all ranges together at most the budget, in spite of all peers.
//! - An advertised height only raises the target. Ranges are planned upward from the last linked commit, at most
//!   [`Config::ranges_ahead`] of them, and within [`Config::bytes_in_flight`].
//! - A range is checked only with the committee of its own epoch. While that committee is unknown, the range is held.

mod archive;
mod archive_route;
mod backfill;
mod cause;
mod epoch_skip;
mod executors;
mod flow;
mod hedging;
mod history;
mod interface;
mod link;
mod local;
mod offered;
mod plan;
mod progress;
mod range;
mod results;
mod stuck;
#[cfg(test)]
mod tests;
pub mod worker;
mod write;

pub use archive_route::{ArchiveRoute, ArchiveUse, MAX_ROUTE};
pub use cause::Progress;
pub use executors::FEED_BYTES;
pub use hedging::most_workers;
pub use history::{BackfillProgress, Below, HistoryStart};
pub use interface::{
    Config, Effect, EpochSummary, ExecutorAt, ExecutorFailure, Input, Late, RangeKey, RangeSummary, Snapshot, Start,
    StopReason, Tip,
};
pub use offered::{LocalCommitError, Offered};
pub use range::MAX_ATTEMPTS;
pub use stuck::STUCK_AFTER;

use crate::{
    Backoff,
    core::{Core, Now},
    peer_heights::Target,
};
use range::{Range, RangeState};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, CommitRef, Epoch, TimestampMs, limits::MAX_COMMIT_INDEX};
use std::{collections::BTreeMap, time::Duration};

/// Backoff of failed ranges and writes.
const RETRY: Backoff = Backoff { min: RETRY_MIN, max: RETRY_MAX };

/// First wait before a failed range or write is retried.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest wait before a retry: no failure keeps a range out of play for longer.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Maximum commits in one answer, including those that only prove others.
const MAX_ANSWER_COMMITS: CommitIndex = 100;

/// After a commit of the node's own consensus, peers are asked for the next one only after this time.
const LOCAL_GRACE: Duration = Duration::from_secs(2);

/// Ranges planned beyond the height that half of the proven peers advertise: enough for a peer that is ahead to prove
/// itself.
const UNPROVEN_AHEAD: CommitIndex = 2;

/// The core of StateSync.
#[derive(Serialize, Deserialize)]
pub struct StateSync {
    config: Config,
    /// Last durable commit.
    applied: CommitRef,
    /// Last commit linked in order.
    tip: Tip,
    /// Advertised heights. Hints, which may fall.
    claimed: Target,
    /// Highest commit verified by a worker.
    proven: CommitIndex,
    /// Planned ranges by first commit: contiguous from `tip + 1`, never overlapping.
    ranges: BTreeMap<CommitIndex, Range>,
    /// Known ends of epochs beyond the tip: last commit of an epoch to the epoch after it.
    handovers: BTreeMap<CommitIndex, Epoch>,
    next_key: u64,
    flow: flow::Flow,
    write: write::WriteQueue,
    local: local::LocalCommits,
    executors: executors::Executors,
    stuck: stuck::StuckWatch,
    /// The store holds no commits beyond the genesis.
    is_empty: bool,
    skip: Option<epoch_skip::EpochSkip>,
    archive: archive::ArchiveSource,
    backfill: backfill::Backfill,
    /// Time of the last input. A wait that ended before it needs no wake: something else than time holds it.
    last_now: Duration,
    counters: Counters,
}

#[derive(Default, Serialize, Deserialize)]
struct Counters {
    commits_fetched: u64,
    blocks_fetched: u64,
    bytes_fetched: u64,
    commits_from_archive: u64,
    commits_discarded: u64,
    worker_failures: u64,
}

impl StateSync {
    /// Starts from the tip of the store.
    pub fn new(config: Config, tip: Tip) -> Self {
        Self {
            config,
            applied: tip.commit,
            tip,
            claimed: Target::NONE,
            proven: tip.commit.index,
            ranges: BTreeMap::new(),
            handovers: BTreeMap::new(),
            next_key: 0,
            flow: flow::Flow::default(),
            write: write::WriteQueue::default(),
            local: local::LocalCommits::default(),
            executors: executors::Executors::default(),
            stuck: stuck::StuckWatch::default(),
            is_empty: false,
            skip: None,
            archive: archive::ArchiveSource::default(),
            backfill: backfill::Backfill::default(),
            last_now: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// Highest commit to fetch: advertised, verified or linked.
    fn target(&self) -> CommitIndex {
        self.claimed.highest.min(MAX_COMMIT_INDEX).max(self.proven).max(self.tip.commit.index)
    }

    /// The next commit of the slowest tracked executor.
    pub fn slowest_executor(&self) -> Option<CommitIndex> {
        self.executors.slowest()
    }

    /// Time of the last progress, once there is work and no commit has become durable for [`STUCK_AFTER`].
    pub fn stuck_since_ms(&self) -> Option<TimestampMs> {
        self.stuck.since_ms(self.last_now)
    }

    /// Last commit to plan. The slowest executor limits it, and so does the height that proven peers advertise, plus
    /// [`UNPROVEN_AHEAD`] ranges.
    fn horizon(&self) -> CommitIndex {
        if self.is_skipping() {
            return self.tip.commit.index;
        }
        let limit = self.executor_limit().min(self.limit_of_archive().unwrap_or(CommitIndex::MAX));
        let unproven = match self.claimed.proven.max(self.tip.commit.index) {
            _ if self.claimed.proven == 0 => CommitIndex::MAX,
            proven => proven.saturating_add(UNPROVEN_AHEAD * self.flow.commits(&self.config)),
        };
        self.target().min(limit).min(unproven).max(self.tip.commit.index)
    }

    /// Last commit that may be fetched before the slowest executor has taken more.
    fn executor_limit(&self) -> CommitIndex {
        let next = self.slowest_executor();
        next.map_or(CommitIndex::MAX, |next| next.saturating_add(self.config.max_executor_lag.saturating_sub(1)))
    }

    /// Bytes reserved or waiting to be written.
    pub fn bytes_in_flight(&self) -> u64 {
        let ranges: u64 = self.ranges.values().map(Range::bytes).sum();
        ranges + self.write.bytes() + self.local.bytes() + self.backfill.bytes()
    }
}

impl Core for StateSync {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "state-sync";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            // The steps after every input start workers and writes.
            Input::Wake => {}
            Input::Target(target) => self.on_target(now, target),
            Input::Picked { key, peer } => self.on_picked(now, key, peer, &mut effects),
            Input::WorkerDone { key, verified, shortfall } => {
                self.on_worker_done(now, key, verified, shortfall, &mut effects);
            }
            Input::Progress { key, downloaded } => self.on_progress(now, key, downloaded, &mut effects),
            Input::WorkerFailed { key, reason } => self.on_worker_failed(now, key, reason, &mut effects),
            Input::Executor { reader, at } => {
                self.executors.learn(now, reader, at, |commits| self.flow.expected(commits));
            }
            Input::Written(result) => self.on_written(now, result, &mut effects),
            Input::LocalCommit { key, commit } => self.on_local_commit(key, commit, &mut effects),
            Input::LocalChecked { key, result } => self.on_local_checked(now, key, result, &mut effects),
            Input::EpochsFetched { key, result } => self.on_epochs_fetched(now, key, result, &mut effects),
            Input::EpochsSkipped { key, result } => self.on_epochs_skipped(now, key, result),
            Input::ArchiveListed { key, result } => self.on_archive_listed(now, key, result),
            Input::HistoryRead { key, result } => self.on_history_read(now, key, result),
            Input::Prepended { key, result } => self.on_prepended(now, key, result, &mut effects),
        }
        self.skip_further(now, &mut effects);
        self.link(now, &mut effects);
        self.check_next_local(&mut effects);
        self.use_archive(now, &mut effects);
        self.start_ranges(now, &mut effects);
        self.backfill_further(now, &mut effects);
        self.watch_progress(now);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let retries = self.ranges.values().filter_map(|range| match range.state {
            RangeState::Waiting { not_before } => Some(not_before),
            _ => None,
        });
        let skip = self.skip.as_ref().and_then(epoch_skip::EpochSkip::wake_at);
        let backfill = self.backfill.wake_at().filter(|_| self.config.backfill);
        let held = self.write_held_until(self.last_now);
        let own = [self.write.retry_at(), self.stuck.wake_at(), skip, self.archive.wake_at(), backfill, held];
        retries.chain(own.into_iter().flatten()).chain(self.hedges_at()).filter(|at| *at > self.last_now).min()
    }

    fn snapshot(&self) -> Snapshot {
        let counters = &self.counters;
        Snapshot {
            applied: self.applied.index,
            linked: self.tip.commit.index,
            target: self.target(),
            epoch: self.tip.next_epoch,
            workers: self.ranges.values().map(|range| range.peers().count()).sum(),
            ranges: self.ranges.len(),
            bytes_in_flight: self.bytes_in_flight(),
            commits_fetched: counters.commits_fetched,
            blocks_fetched: counters.blocks_fetched,
            bytes_fetched: counters.bytes_fetched,
            commits_from_archive: counters.commits_from_archive,
            commits_discarded: counters.commits_discarded,
            worker_failures: counters.worker_failures,
            progress: self.progress(),
            stuck_since_ms: self.stuck_since_ms(),
            late: self.late(),
            slowest_executor: self.slowest_executor(),
            executor_failure: self.executors.failure().cloned(),
            backfill: self.backfill.progress(),
        }
    }
}
