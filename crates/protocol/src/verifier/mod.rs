//! Verifier: how much may be on the CPU pool at once, what waits for it, and which signatures are checked together.
//!
//! ```text
//!   Submit --> high | normal --Run--> pool --Done-----------------------------> (answered)
//!                                       `---Checked(signatures)--> to be joined --RunBatch--> pool --BatchDone-->
//!                                       (answered)
//! ```
//!
//! A job runs when fewer than [`Config::permits`] do; up to [`Config::max_waiting`] wait, those that others wait for
//! first; further ones are refused, and the asker tries again later.
//!
//! Signatures cost the less each, the more are checked together. They are joined across jobs until there are
//! [`Config::batch_signatures`], or until a thread has had nothing to do for [`Config::batch_delay`]: while all threads
//! are busy, waiting costs nothing; and when nothing else is under way, nothing can come that would be worth a wait.
//!
//! A job that stays at one place for long, say in a transaction verifier of the node's own, keeps its thread and
//! gives back its permit, so that others go on. It is shown as a [`SlowCheck`] until it ends; its verdict counts
//! whenever it comes.

use crate::core::{Core, Now};
use serde::{Deserialize, Serialize};
use soma_types::{BlockRef, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::Duration,
};
use strum::VariantNames;

/// How the Verifier works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Threads of the pool.
    pub threads: usize,
    /// Jobs and batches on the pool at once: one for each thread and one more that is ready when it ends.
    pub permits: usize,
    /// Jobs waiting for a permit or for their signatures. Each holds at most one answer's bytes.
    pub max_waiting: usize,
    /// Signatures that are enough for a batch.
    pub batch_signatures: usize,
    /// How long signatures wait for others while a thread has nothing to do.
    pub batch_delay: Duration,
}

/// How soon a job is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// A range's commits and votes: nothing of the range can go on without.
    High,
    /// Blocks and node infos.
    Normal,
}

/// What can happen to the Verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From workers and Discovery: check this.
    Submit {
        /// Under which the shell keeps job and answer's address.
        job: u64,
        /// How soon.
        priority: Priority,
    },
    /// From the pool: the job is done and answered, or panicked.
    Done {
        /// Which.
        job: u64,
        /// Whether it panicked.
        panicked: bool,
    },
    /// From the pool: the job is right but for its signatures.
    Checked {
        /// Which.
        job: u64,
        /// How many signatures there are to check.
        signatures: usize,
    },
    /// From the pool: the job has been at one place for long.
    Slow {
        /// Which.
        job: u64,
        /// The transaction that it is at, if it is at one.
        at: Option<TransactionPlace>,
    },
    /// From the pool: the batch is done and its jobs answered, or it panicked.
    BatchDone {
        /// Which.
        batch: u64,
        /// Whether it panicked.
        panicked: bool,
    },
}

/// A transaction of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionPlace {
    /// The block.
    pub block: BlockRef,
    /// Position in it, from 0.
    pub position: u32,
}

impl fmt::Display for TransactionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} of block {}", self.position, self.block)
    }
}

/// A check that stays at one place for long, or does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowCheck {
    /// The transaction that it is at, if it is at one.
    pub at: Option<TransactionPlace>,
    /// When it was noticed, in milliseconds since 1970.
    pub noticed_ms: TimestampMs,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Put the job on the pool.
    Run(u64),
    /// Put the signatures of these jobs on the pool, together.
    RunBatch {
        /// The batch's number.
        batch: u64,
        /// The jobs, in the order in which they came.
        jobs: Vec<u64>,
    },
    /// Tell the asker that too many checks wait.
    Refuse(u64),
}

/// The Verifier as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Jobs and batches on the pool.
    pub running: usize,
    /// Jobs waiting for the pool or for their signatures.
    pub waiting: usize,
    /// Jobs done since start.
    pub done: u64,
    /// Jobs refused since start.
    pub refused: u64,
    /// Jobs and batches that panicked since start.
    pub panicked: u64,
    /// Signatures checked in batches since start.
    pub signatures: u64,
    /// Batches since start.
    pub batches: u64,
    /// Checks that stay at one place for long.
    pub slow: Vec<SlowCheck>,
}

/// A job with signatures that wait for others.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Unsigned {
    job: u64,
    signatures: usize,
    since: Duration,
}

/// The core of the Verifier.
#[derive(Serialize, Deserialize)]
pub struct Verifier {
    config: Config,
    running: BTreeSet<u64>,
    /// Jobs that keep a thread for long. They hold no permit.
    slow: BTreeMap<u64, SlowCheck>,
    /// Batches on the pool: how many jobs each has.
    batches: BTreeMap<u64, usize>,
    next_batch: u64,
    high: VecDeque<u64>,
    normal: VecDeque<u64>,
    unsigned: VecDeque<Unsigned>,
    /// Signatures of those.
    waiting_signatures: usize,
    done: u64,
    refused: u64,
    panicked: u64,
    signatures: u64,
}

impl Verifier {
    /// Starts idle.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            running: BTreeSet::new(),
            slow: BTreeMap::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            high: VecDeque::new(),
            normal: VecDeque::new(),
            unsigned: VecDeque::new(),
            waiting_signatures: 0,
            done: 0,
            refused: 0,
            panicked: 0,
            signatures: 0,
        }
    }

    fn on_pool(&self) -> usize {
        self.running.len() + self.batches.len()
    }

    /// The job has left the pool.
    fn end(&mut self, job: u64) {
        self.running.remove(&job);
        self.slow.remove(&job);
    }

    fn waiting(&self) -> usize {
        self.high.len() + self.normal.len() + self.unsigned.len()
    }

    /// Whether to check the waiting signatures now.
    fn is_batch_due(&self, now: Now) -> bool {
        let Some(oldest) = self.unsigned.front() else { return false };
        let waited = now.monotonic.saturating_sub(oldest.since) >= self.config.batch_delay;
        let alone = self.on_pool() == 0 && self.normal.is_empty();
        self.waiting_signatures >= self.config.batch_signatures
            || alone
            || (waited && self.on_pool() < self.config.threads)
    }

    /// The next batch: all waiting signatures, up to a full batch.
    fn take_batch(&mut self) -> Effect {
        let (mut jobs, mut signatures) = (Vec::new(), 0);
        while signatures < self.config.batch_signatures
            && let Some(unsigned) = self.unsigned.pop_front()
        {
            signatures += unsigned.signatures;
            jobs.push(unsigned.job);
        }
        self.waiting_signatures -= signatures;
        self.signatures += signatures as u64;
        let batch = self.next_batch;
        self.next_batch += 1;
        self.batches.insert(batch, jobs.len());
        Effect::RunBatch { batch, jobs }
    }

    fn next(&mut self, now: Now) -> Option<Effect> {
        let run = |job: &mut VecDeque<u64>, running: &mut BTreeSet<u64>| {
            let job = job.pop_front()?;
            running.insert(job);
            Some(Effect::Run(job))
        };
        run(&mut self.high, &mut self.running)
            .or_else(|| self.is_batch_due(now).then(|| self.take_batch()))
            .or_else(|| run(&mut self.normal, &mut self.running))
    }
}

impl Core for Verifier {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "verifier";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            // Nothing to do but what follows every input.
            Input::Wake => {}
            Input::Submit { job, .. } if self.waiting() >= self.config.max_waiting => {
                self.refused += 1;
                effects.push(Effect::Refuse(job));
            }
            Input::Submit { job, priority: Priority::High } => self.high.push_back(job),
            Input::Submit { job, priority: Priority::Normal } => self.normal.push_back(job),
            Input::Done { job, panicked } => {
                self.end(job);
                self.done += 1;
                self.panicked += u64::from(panicked);
            }
            Input::Checked { job, signatures } => {
                self.end(job);
                self.unsigned.push_back(Unsigned { job, signatures, since: now.monotonic });
                self.waiting_signatures += signatures;
            }
            // A job may get on to another place and stay there.
            Input::Slow { job, at } if self.running.remove(&job) || self.slow.contains_key(&job) => {
                self.slow.insert(job, SlowCheck { at, noticed_ms: now.unix_ms });
            }
            Input::Slow { .. } => {}
            Input::BatchDone { batch, panicked } => {
                self.done += self.batches.remove(&batch).unwrap_or(0) as u64;
                self.panicked += u64::from(panicked);
            }
        }
        while self.on_pool() < self.config.permits {
            let Some(effect) = self.next(now) else { break };
            effects.push(effect);
        }
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let oldest = self.unsigned.front().filter(|_| self.on_pool() < self.config.threads)?;
        Some(oldest.since + self.config.batch_delay)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            running: self.on_pool(),
            waiting: self.waiting(),
            done: self.done,
            refused: self.refused,
            panicked: self.panicked,
            signatures: self.signatures,
            batches: self.next_batch,
            slow: self.slow.values().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
