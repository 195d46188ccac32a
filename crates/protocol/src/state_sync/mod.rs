//! StateSync: which commits to fetch, in which ranges, and in which order they are written and handed on.
//!
//! ```text
//!   target (a hint) --> plan ranges upward --> pick a peer --> worker --> Done (bytes wait in the shell)
//!                          ^   returned on any failure |                       |
//!                          +---------------------------+        link in order by previous digest
//!                                                                              v
//!   executor, peers <-- applied (durable) <-- Written <-- write batches, one by one
//! ```
//!
//! Always:
//! - A range leaves the plan only as written commits or as somebody else's (local) commits; whatever happens to a
//!   worker, what it did not deliver goes back.
//! - Commits are linked, written and announced in index order, each once. `applied` moves only after a durable write.
//! - Whatever peers send, a range holds no more than it has reserved, and all of them together no more than the budget.
//! - A peer's claim raises the target, nothing else: ranges are planned upward from what is linked, at most
//!   [`Config::ranges_ahead`] of them, and within [`Config::bytes_in_flight`].
//! - A range is checked with the committee of its own epoch or not at all: where the boundary is not known yet, the
//!   range is held until it is.

mod attempt;
mod flow;
mod link;
mod local;
mod plan;
mod progress;
mod stuck;
#[cfg(test)]
mod tests;
pub mod worker;
mod write;

use crate::{
    Backoff,
    core::{Core, Now},
    peer_heights::{NoPeer, Target},
};
pub use attempt::{Late, MAX_ATTEMPTS, most_workers};
pub use local::{LocalCommitError, Offered};
use plan::{Range, RangeState};
pub use progress::Progress;
use serde::{Deserialize, Serialize};
use soma_types::{
    Commit, CommitDigest, CommitIndex, CommitRef, Epoch, PeerFailure, PeerId, TimestampMs, limits::MAX_COMMIT_INDEX,
};
use std::{collections::BTreeMap, time::Duration};
use strum::VariantNames;
pub use stuck::STUCK_AFTER;

/// Waits before what has failed is tried again.
const RETRY: Backoff = Backoff { min: RETRY_MIN, max: RETRY_MAX };

/// First wait before a range is tried again after a failure; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest wait before a range is tried again: no failure takes a range out of play for longer.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Commits in one answer, those that only prove others included.
const MAX_ANSWER_COMMITS: CommitIndex = 100;

/// How long after a commit of the node's own consensus the next one is left to it before peers are asked.
const LOCAL_GRACE: Duration = Duration::from_secs(2);

/// Ranges that are planned beyond what half of the proven peers claim: enough for one that is ahead to prove itself.
const UNPROVEN_AHEAD: CommitIndex = 2;

/// Executors whose progress is followed; there is one, or a few.
const MAX_EXECUTORS: usize = 64;

/// How StateSync works. Defaults are the seed documents' (state_sync.md, "Configuration Parameters").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Commits in one answer, at most 100. A range has up to four times as many; fewer where they are large, or a peer is slow.
    pub commits_per_fetch: u32,
    /// Workers at once, beside those that fetch the next range. The window of bytes on their way decides how many there are.
    pub max_workers: usize,
    /// Ranges beyond the last linked commit up to which new ones are planned: bounds the commits in the reorder
    /// buffer (a range that came in parts is split, but covers no more).
    pub ranges_ahead: usize,
    /// Bytes reserved by workers and waiting to be written, in all.
    pub bytes_in_flight: u64,
    /// Bytes that one worker may ever hold; its range is cut where it would exceed them. It reserves a quarter
    /// until it is known what commits take, twice of that from then on, and all of it where that was too little.
    pub bytes_per_range: u64,
    /// How long a range waits when no peer can serve it.
    pub no_peer_wait: Duration,
    /// Commits that may be durable and not yet given to the slowest executor before fetching waits for it.
    pub max_executor_lag: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commits_per_fetch: 100,
            max_workers: 96,
            ranges_ahead: 256,
            bytes_in_flight: 128 << 20,
            bytes_per_range: 32 << 20,
            no_peer_wait: Duration::from_secs(1),
            max_executor_lag: 10_000,
        }
    }
}

/// The end of what is known to be right: the last commit linked in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Index and digest.
    pub commit: CommitRef,
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// Epoch of the commit that follows it.
    pub next_epoch: Epoch,
}

/// Names one range for as long as it is planned, and the bytes that the shell keeps for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RangeKey(pub u64);

impl RangeKey {
    /// Keys from here up name commits of the node's own consensus; the shell counts them.
    const LOCAL: u64 = 1 << 63;

    /// The key of the `n`th commit of the node's own consensus.
    pub fn local(n: u64) -> Self {
        Self(Self::LOCAL | n)
    }

    fn is_local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }
}

/// What the core sees of verified commits whose bytes the shell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Index of the first.
    pub first: CommitIndex,
    /// The last.
    pub last: CommitRef,
    /// What the first says of the commit before it.
    pub previous: CommitDigest,
    /// Timestamp of the first. Whether it is right depends on the commit before it, too.
    pub first_timestamp_ms: TimestampMs,
    /// Timestamp of the leader of the first.
    pub first_leader_timestamp_ms: TimestampMs,
    /// Timestamp of the last.
    pub last_timestamp_ms: TimestampMs,
    /// Epoch of them all.
    pub epoch: Epoch,
    /// Whether the last is the last of its epoch; the next committee is then known.
    pub ends_epoch: bool,
    /// Bytes of commits, blocks and votes.
    pub bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// Why a worker stopped before the end of its range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shortfall {
    /// The peer answered with fewer commits than asked, as it may, or the range's byte budget was reached.
    Cut,
    /// The commit at this index is of another epoch than its context was for.
    OtherEpoch {
        /// Which commit.
        index: CommitIndex,
        /// The epoch it says.
        found: Epoch,
    },
    /// Something went wrong.
    Failed(PeerFailure),
}

impl Shortfall {
    /// Whether the peer alone is to blame, beyond doubt.
    pub(crate) fn bans(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.fault.bans())
    }
}

impl From<PeerFailure> for Shortfall {
    fn from(failure: PeerFailure) -> Self {
        Self::Failed(failure)
    }
}

/// What can happen to StateSync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From PeerHeights: what peers claim, or that they became able to serve.
    Target(Target),
    /// From PeerHeights, answering [`Effect::Pick`].
    Picked {
        /// The range.
        key: RangeKey,
        /// Who is to serve it, or why nobody can.
        peer: Result<PeerId, NoPeer>,
    },
    /// From a worker: what it verified (the shell holds the bytes) and why it ended before its range did.
    WorkerDone {
        /// The range.
        key: RangeKey,
        /// Commits verified from the start of the range on.
        verified: Option<Verified>,
        /// Why not all.
        shortfall: Option<Shortfall>,
    },
    /// From a worker: its peer has brought something.
    Progress {
        /// Its key.
        key: RangeKey,
        /// Whether that was all, and is being checked.
        downloaded: bool,
    },
    /// From the supervisor or the shell: a worker ended without a result, or could not be started.
    WorkerFailed {
        /// The range.
        key: RangeKey,
        /// Why.
        reason: String,
    },
    /// From the reader of an executor's stream.
    Executor {
        /// Which reader.
        reader: u64,
        /// What became of it.
        at: ExecutorAt,
    },
    /// From the StoreWriter, answering [`Effect::Write`].
    Written(Result<CommitRef, String>),
    /// From the node's own consensus.
    LocalCommit {
        /// Under which the shell holds the bytes.
        key: RangeKey,
        /// The commit, as it says itself.
        commit: Offered,
    },
    /// From the Verifier, answering [`Effect::CheckLocal`].
    LocalChecked {
        /// The commit.
        key: RangeKey,
        /// Whether it passed.
        result: Result<Verified, LocalCommitError>,
    },
}

/// How far an executor has got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorAt {
    /// It is given this commit next, and has done with all before.
    Next(CommitIndex),
    /// Its stream has ended with the system, or was dropped.
    Ended,
    /// Its stream has ended because a commit cannot be read.
    Failed {
        /// The commit.
        next: CommitIndex,
        /// The store's error.
        reason: String,
    },
}

/// An executor's stream that ended with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorFailure {
    /// The commit that it was to be given.
    pub next: CommitIndex,
    /// The store's error.
    pub reason: String,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask PeerHeights for a peer that has the range's start.
    Pick {
        /// The range.
        key: RangeKey,
        /// Its first commit.
        start: CommitIndex,
        /// Peers that serve it now, or just failed to.
        tried: Vec<PeerId>,
        /// Whether others serve it now: then it is for a peer that proved itself, if there is one.
        hedge: bool,
        /// Whether all other ranges wait for this one.
        next: bool,
    },
    /// Start a worker.
    Fetch {
        /// The range.
        key: RangeKey,
        /// From whom.
        peer: PeerId,
        /// First commit.
        start: CommitIndex,
        /// Last commit.
        end: CommitIndex,
        /// How far commits may be asked for to prove these by: beyond `end` once the range could not be had as it is,
        /// for who has its commits need not have votes for the last.
        proof_end: CommitIndex,
        /// Whose committee certifies them.
        epoch: Epoch,
        /// Bytes that the worker may hold.
        max_bytes: u64,
    },
    /// Tell PeerHeights how a peer did.
    Report {
        /// Who.
        peer: PeerId,
        /// The range's first commit.
        start: CommitIndex,
        /// Whose fault it was that not all came, if anyone's.
        outcome: Outcome,
    },
    /// End the worker with this key: another one was faster.
    Cancel(RangeKey),
    /// Drop the bytes held under a key.
    Discard(RangeKey),
    /// Write the commits held under these keys, in this order, in one batch.
    Write(Vec<RangeKey>),
    /// Hand the commits held under these keys to the executor and drop them: they are durable.
    Publish {
        /// In order.
        keys: Vec<RangeKey>,
        /// The highest of them.
        highest: CommitRef,
    },
    /// Tell PeerHeights (and through it the peers) what this node has.
    Announce(CommitIndex),
    /// Have the commit of the node's own consensus checked that is held under this key.
    CheckLocal {
        /// The commit.
        key: RangeKey,
        /// Whose committee certifies it.
        epoch: Epoch,
    },
    /// Answer the node's consensus.
    LocalAnswer {
        /// Its commit.
        key: RangeKey,
        /// Taken, or why not.
        result: Result<(), LocalCommitError>,
    },
}

/// How a peer served one range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It delivered verified commits up to this index.
    Served {
        /// The last verified commit.
        last: CommitIndex,
        /// Bytes of commits, blocks and votes.
        bytes: u64,
    },
    /// It took so long that another peer was asked as well, and that one was faster.
    LostHedge {
        /// It had brought nothing, or nothing for long.
        silent: bool,
    },
    /// Nobody's doing: the range was not needed any more, or failed on our side.
    Unused,
    /// It did not.
    Failed(PeerFailure),
}

impl Outcome {
    /// Bytes that the peer served in the time of this range, if that tells how fast it is: who refuses or lies is done at
    /// once, and what is ours is none of its time.
    pub(crate) fn served(&self) -> Option<u64> {
        match self {
            Self::Served { bytes, .. } => Some(*bytes),
            Self::LostHedge { .. } => Some(0),
            Self::Unused | Self::Failed(_) => None,
        }
    }
}

/// StateSync's state as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Highest durable commit.
    pub applied: CommitIndex,
    /// Highest commit verified and linked, written or not.
    pub linked: CommitIndex,
    /// Highest commit that a peer claims.
    pub target: CommitIndex,
    /// Epoch of the next commit.
    pub epoch: Epoch,
    /// Workers at work.
    pub workers: usize,
    /// Ranges planned and not yet linked.
    pub ranges: usize,
    /// Bytes reserved and waiting to be written.
    pub bytes_in_flight: u64,
    /// Commits verified by workers since start, kept or not.
    pub commits_fetched: u64,
    /// Blocks verified by workers since start, kept or not.
    pub blocks_fetched: u64,
    /// Bytes of them.
    pub bytes_fetched: u64,
    /// Commits verified but not needed any more when they came.
    pub commits_discarded: u64,
    /// Workers that ended without a result since start.
    pub worker_failures: u64,
    /// What it is doing.
    pub progress: Progress,
    /// Since when no commit has become durable although there is something to do, in milliseconds since 1970. Set once
    /// that is [`STUCK_AFTER`] ago.
    pub stuck_since_ms: Option<TimestampMs>,
    /// Peers that hold up the next commit.
    pub late: Option<Late>,
    /// The commit that the executor furthest behind asks for next.
    pub slowest_executor: Option<CommitIndex>,
    /// The last executor's stream that ended with an error, until an executor gets past the commit at fault.
    pub executor_failure: Option<ExecutorFailure>,
}

/// The core of StateSync.
#[derive(Serialize, Deserialize)]
pub struct StateSync {
    config: Config,
    /// Last durable commit.
    applied: CommitRef,
    /// Last commit linked in order.
    tip: Tip,
    /// What peers claim: a hint, which may fall.
    claimed: Target,
    /// Highest commit that a worker verified.
    proven: CommitIndex,
    /// Planned ranges by first commit: contiguous from `tip + 1`, never overlapping.
    ranges: BTreeMap<CommitIndex, Range>,
    /// Known ends of epochs beyond the tip: last commit of an epoch, and the epoch after it.
    handovers: BTreeMap<CommitIndex, Epoch>,
    next_key: u64,
    flow: flow::Flow,
    write: write::WriteQueue,
    local: local::LocalCommits,
    /// The next commit of each executor.
    executors: BTreeMap<u64, CommitIndex>,
    executor_failure: Option<ExecutorFailure>,
    stuck: stuck::StuckWatch,
    /// Time of the last input: waits that are over are limited by something else than time.
    last_now: Duration,
    counters: Counters,
}

#[derive(Default, Serialize, Deserialize)]
struct Counters {
    commits_fetched: u64,
    blocks_fetched: u64,
    bytes_fetched: u64,
    commits_discarded: u64,
    worker_failures: u64,
}

impl StateSync {
    /// Starts from what the store holds.
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
            executors: BTreeMap::new(),
            executor_failure: None,
            stuck: stuck::StuckWatch::default(),
            last_now: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// How far peers have got.
    fn target(&self) -> CommitIndex {
        self.claimed.highest.min(MAX_COMMIT_INDEX).max(self.proven).max(self.tip.commit.index)
    }

    /// The commit that the executor furthest behind asks for next, of those that are followed.
    pub fn slowest_executor(&self) -> Option<CommitIndex> {
        self.executors.values().min().copied()
    }

    /// Since when no commit has become durable although there is something to do, once that is [`STUCK_AFTER`] ago.
    pub fn stuck_since_ms(&self) -> Option<TimestampMs> {
        self.stuck.since_ms(self.last_now)
    }

    /// How far to plan: no further ahead than the slowest executor allows, and beyond what proven peers claim only so far that
    /// others can prove themselves.
    fn horizon(&self) -> CommitIndex {
        let limit = self.slowest_executor();
        let limit =
            limit.map_or(CommitIndex::MAX, |next| next.saturating_add(self.config.max_executor_lag.saturating_sub(1)));
        let unproven = match self.claimed.proven.max(self.tip.commit.index) {
            _ if self.claimed.proven == 0 => CommitIndex::MAX,
            proven => proven.saturating_add(UNPROVEN_AHEAD * self.flow.commits(&self.config)),
        };
        self.target().min(limit).min(unproven).max(self.tip.commit.index)
    }

    fn on_executor(&mut self, reader: u64, at: ExecutorAt) {
        match at {
            ExecutorAt::Next(next) => {
                self.executor_failure.take_if(|failure| failure.next < next);
                if self.executors.len() < MAX_EXECUTORS || self.executors.contains_key(&reader) {
                    self.executors.insert(reader, next);
                }
            }
            ExecutorAt::Ended => drop(self.executors.remove(&reader)),
            ExecutorAt::Failed { next, reason } => {
                self.executors.remove(&reader);
                self.executor_failure = Some(ExecutorFailure { next, reason });
            }
        }
    }

    /// Bytes reserved and waiting to be written.
    pub fn bytes_in_flight(&self) -> u64 {
        let ranges: u64 = self.ranges.values().map(plan::Range::bytes).sum();
        ranges + self.write.bytes() + self.local.bytes()
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
            // Nothing to do but what follows every input: start and write what may be started and written now.
            Input::Wake => {}
            Input::Target(target) => self.on_target(now, target),
            Input::Picked { key, peer } => self.on_picked(now, key, peer, &mut effects),
            Input::WorkerDone { key, verified, shortfall } => {
                self.on_worker_done(now, key, verified, shortfall, &mut effects);
            }
            Input::Progress { key, downloaded } => self.on_progress(now, key, downloaded, &mut effects),
            Input::WorkerFailed { key, reason } => self.on_worker_failed(now, key, reason, &mut effects),
            Input::Executor { reader, at } => self.on_executor(reader, at),
            Input::Written(result) => self.on_written(now, result, &mut effects),
            Input::LocalCommit { key, commit } => self.on_local_commit(key, commit, &mut effects),
            Input::LocalChecked { key, result } => self.on_local_checked(now, key, result, &mut effects),
        }
        self.link(now, &mut effects);
        self.check_next_local(&mut effects);
        self.start_ranges(now, &mut effects);
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
        let own = [self.write.retry_at(), self.stuck.wake_at()].into_iter().flatten();
        retries.chain(own).chain(self.hedges_at()).filter(|at| *at > self.last_now).min()
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
            commits_discarded: counters.commits_discarded,
            worker_failures: counters.worker_failures,
            progress: self.progress(),
            stuck_since_ms: self.stuck_since_ms(),
            late: self.late(),
            slowest_executor: self.slowest_executor(),
            executor_failure: self.executor_failure.clone(),
        }
    }
}
