//! StoreWriter: one write at a time, in the order asked, and a bound on what waits.
//!
//! Address-book updates wait behind commits; both go through here, so the store has one writer.
//!
//! ```text
//!   Submit --> waiting --> Run --> Done         one at a time
//!   Stored --> due     --> Prune --> Pruned     a step after each write, more while nothing waits
//! ```
//!
//! Pruning keeps pace with a sync: one step removes more commits than one write adds.

use crate::core::{Core, Now};
use serde::{Deserialize, Serialize};
use soma_types::CommitIndex;
use std::{collections::VecDeque, time::Duration};
use strum::VariantNames;

/// Writes waiting behind the one at work. StateSync asks for two batches at a time and Discovery for one update each
/// interval, so more than a few means that the disk hangs.
const MAX_WAITING: usize = 16;

/// Time after which a node that no executor has asked for commits prunes as if it had none. Until then an executor may
/// still begin where it stopped.
const EXECUTOR_WAIT: Duration = Duration::from_secs(60);

/// What can happen to the StoreWriter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From StateSync and Discovery: write this.
    Submit {
        /// Under which the shell keeps data and answer's address.
        job: u64,
    },
    /// From the disk.
    Done {
        /// Which.
        job: u64,
        /// The store's error, if it failed.
        error: Option<String>,
    },
    /// From the shell of a node that prunes: commits are being stored.
    Stored {
        /// The next commit of the slowest executor, if there is one.
        executor: Option<CommitIndex>,
    },
    /// From the Archiver of a node that writes an archive.
    Archived {
        /// The first commit that the archive lacks.
        next: CommitIndex,
    },
    /// From the disk: one step of pruning has ended.
    Pruned {
        /// The result.
        result: Result<PruneStep, String>,
    },
    /// From the disk, at the start, and after epochs were skipped or earlier commits written: where the stored chain begins.
    Begins {
        /// The lowest commit that peers and executors can get.
        lowest_available: CommitIndex,
    },
}

/// One step of pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneStep {
    /// The lowest commit that peers and executors can get now.
    pub lowest_available: CommitIndex,
    /// Whether nothing is left to remove.
    pub is_complete: bool,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Write.
    Run(u64),
    /// Tell the asker that too many writes wait.
    Refuse(u64),
    /// Remove some commits outside the window.
    Prune {
        /// The next commit of the slowest executor, if there is one: the window is behind it.
        executor: Option<CommitIndex>,
        /// The first commit that the archive lacks, if the node writes one: it and later ones stay.
        archived: Option<CommitIndex>,
    },
}

/// The StoreWriter as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Writes under way (0 or 1) and waiting.
    pub queued: usize,
    /// Writes done since start.
    pub done: u64,
    /// Writes failed since start.
    pub failed: u64,
    /// The last error, until a write succeeds.
    pub last_error: Option<String>,
    /// The lowest commit that is kept: where the node's history begins.
    pub lowest_available: Option<CommitIndex>,
    /// The last error of pruning, until a step succeeds.
    pub pruning_error: Option<String>,
}

/// The core of the StoreWriter.
#[derive(Default, Serialize, Deserialize)]
pub struct StoreWriter {
    running: Option<u64>,
    waiting: VecDeque<u64>,
    done: u64,
    failed: u64,
    last_error: Option<String>,
    pruning: Pruning,
}

/// The state of pruning.
#[derive(Default, Serialize, Deserialize)]
struct Pruning {
    /// When this writer first stored commits.
    since: Option<Duration>,
    /// The next commit of the slowest executor. Stays when its stream ends, because it may return.
    executor: Option<CommitIndex>,
    /// The node writes an archive: nothing is removed before the archive has it.
    needs_archive: bool,
    /// The first commit that the archive lacks.
    archived: Option<CommitIndex>,
    is_due: bool,
    is_running: bool,
    lowest_available: Option<CommitIndex>,
    error: Option<String>,
}

impl Pruning {
    fn on_stored(&mut self, now: Now, executor: Option<CommitIndex>) {
        self.executor = executor.or(self.executor);
        let since = *self.since.get_or_insert(now.monotonic);
        let knows_executor = self.executor.is_some() || now.monotonic.saturating_sub(since) >= EXECUTOR_WAIT;
        let knows_archive = self.archived.is_some() || !self.needs_archive;
        self.is_due = knows_executor && knows_archive;
    }

    fn on_pruned(&mut self, result: Result<PruneStep, String>) {
        self.is_running = false;
        // A failed step is tried again after the next write.
        self.is_due = result.as_ref().is_ok_and(|step| !step.is_complete);
        match result {
            Ok(step) => (self.lowest_available, self.error) = (Some(step.lowest_available), None),
            Err(error) => self.error = Some(error),
        }
    }
}

impl StoreWriter {
    /// A writer of a node that writes an archive: it prunes no commit that the archive lacks.
    pub fn with_archive() -> Self {
        Self { pruning: Pruning { needs_archive: true, ..Pruning::default() }, ..Self::default() }
    }

    /// What to do next, if nothing is under way. Writes and steps of pruning take turns.
    fn next(&mut self, has_pruned: bool) -> Vec<Effect> {
        if self.running.is_some() || self.pruning.is_running {
            return Vec::new();
        }
        if self.pruning.is_due && (!has_pruned || self.waiting.is_empty()) {
            self.pruning.is_running = true;
            let Pruning { executor, archived, .. } = self.pruning;
            return vec![Effect::Prune { executor, archived }];
        }
        self.running = self.waiting.pop_front();
        self.running.map(Effect::Run).into_iter().collect()
    }
}

impl Core for StoreWriter {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "store-writer";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let has_pruned = matches!(input, Input::Pruned { .. });
        match input {
            Input::Submit { job } if self.waiting.len() >= MAX_WAITING => return vec![Effect::Refuse(job)],
            Input::Submit { job } => self.waiting.push_back(job),
            Input::Done { job, error } => {
                if self.running == Some(job) {
                    self.running = None;
                }
                self.done += 1;
                self.failed += u64::from(error.is_some());
                self.last_error = error;
            }
            Input::Stored { executor } => self.pruning.on_stored(now, executor),
            Input::Archived { next } => self.pruning.archived = Some(next),
            Input::Begins { lowest_available } => self.pruning.lowest_available = Some(lowest_available),
            Input::Pruned { result } => self.pruning.on_pruned(result),
        }
        self.next(has_pruned)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            queued: self.waiting.len() + usize::from(self.running.is_some() || self.pruning.is_running),
            done: self.done,
            failed: self.failed,
            last_error: self.last_error.clone(),
            lowest_available: self.pruning.lowest_available,
            pruning_error: self.pruning.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
