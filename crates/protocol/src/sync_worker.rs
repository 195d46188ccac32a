//! SyncWorker: one range of commits from one peer, from the first request to verified commits.
//!
//! ```text
//!   FetchCommits -> CheckCommits -> FetchBlocks x n (some at a time) -> CheckBlocks as they come -> CheckSubDags -> Finish
//! ```
//!
//! Always:
//! - What verified is kept: on any failure the commits whose blocks are all verified, from the start on, are
//!   delivered, and the reason says why not all.
//! - It never holds more than [`Config::max_bytes`]: each request may bring so many bytes and no more.
//! - Blocks are asked for only after a quorum's votes have certified the commits that name them.

use crate::{
    core::{Core, Now},
    state_sync::{Shortfall, Verified},
};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Fault, limits::MAX_BLOCK_BYTES};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What a worker is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// First commit.
    pub start: CommitIndex,
    /// Last commit.
    pub end: CommitIndex,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// Whether these hold any answer of commits that the protocol allows. If not, a peer that cannot serve within them may
    /// have the commits all the same.
    pub holds_any_answer: bool,
    /// Blocks in one request.
    pub blocks_per_request: u32,
    /// Requests for blocks at once.
    pub max_requests: usize,
}

/// A failed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Kind of fault.
    pub fault: Fault,
    /// For logs and status.
    pub reason: String,
    /// When the peer wants to be asked again, if it said so.
    pub retry_after: Option<Duration>,
}

impl From<Failure> for Shortfall {
    fn from(failure: Failure) -> Self {
        let Failure { fault, reason, retry_after } = failure;
        Self::Fault { fault, reason, retry_after }
    }
}

/// What can happen to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the shell, once.
    Start,
    /// Answer to [`Effect::FetchCommits`]: bytes of commits and votes.
    CommitsFetched(Result<u64, Failure>),
    /// Answer to [`Effect::CheckCommits`]: the number of blocks of each commit.
    CommitsChecked(Result<Vec<u32>, Shortfall>),
    /// A part of the answer to [`Effect::FetchBlocks`]: the next blocks of the request.
    BlocksFetched {
        /// The first of them.
        from: u32,
        /// How many came.
        received: u32,
        /// Bytes of them.
        bytes: u64,
        /// Whether this is the last part.
        ended: bool,
        /// Why not all came by then, if not for the bytes allowed.
        failure: Option<Failure>,
    },
    /// Answer to [`Effect::CheckBlocks`].
    BlocksChecked {
        /// The part's first block.
        from: u32,
        /// Whether they are right.
        result: Result<(), Failure>,
    },
    /// Answer to [`Effect::CheckSubDags`].
    SubDagsChecked(Result<Verified, Failure>),
}

/// What the shell is to do. Blocks are counted from 0 over all commits of the range, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the peer for the range's commits.
    FetchCommits,
    /// Have commits and votes checked.
    CheckCommits,
    /// Ask the peer for blocks; stop reading where more than the bytes allowed would come.
    FetchBlocks {
        /// First block.
        from: u32,
        /// Behind the last.
        to: u32,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// Have the blocks of a part checked.
    CheckBlocks {
        /// The part's first block.
        from: u32,
    },
    /// Tell StateSync that nothing more is waited for from the peer.
    TellDownloaded,
    /// Have the first commits checked with their blocks.
    CheckSubDags {
        /// How many.
        commits: u32,
    },
    /// Deliver and end.
    Finish {
        /// What is delivered.
        verified: Option<Verified>,
        /// Why not all.
        shortfall: Option<Shortfall>,
    },
}

#[derive(Serialize, Deserialize)]
enum Part {
    Fetching { to: u32, allowed: u64 },
    Checking { to: u32 },
    Checked { to: u32 },
}

/// The core of a SyncWorker.
#[derive(Serialize, Deserialize)]
pub struct SyncWorker {
    config: Config,
    /// Behind the last block of each commit.
    commit_ends: Vec<u32>,
    /// Blocks not asked for yet, as [from, to).
    queue: VecDeque<(u32, u32)>,
    /// Parts of requests by first block; what is still to come of a request is one of them.
    parts: BTreeMap<u32, Part>,
    bytes: u64,
    shortfall: Option<Shortfall>,
    downloaded: bool,
    finishing: bool,
}

impl SyncWorker {
    /// A worker that has not begun.
    pub fn new(config: Config) -> Self {
        let (queue, parts) = (VecDeque::new(), BTreeMap::new());
        Self {
            config,
            commit_ends: Vec::new(),
            queue,
            parts,
            bytes: 0,
            shortfall: None,
            downloaded: false,
            finishing: false,
        }
    }

    fn on_commits_checked(&mut self, blocks: &[u32]) {
        let mut total = 0;
        for count in blocks {
            total += count;
            self.commit_ends.push(total);
        }
        let step = self.config.blocks_per_request.max(1);
        self.queue = (0..total).step_by(step as usize).map(|from| (from, (from + step).min(total))).collect();
        if (blocks.len() as u64) < u64::from(self.config.end - self.config.start) + 1 {
            self.shortfall = Some(Shortfall::Cut);
        }
    }

    fn on_blocks_fetched(
        &mut self,
        from: u32,
        received: u32,
        bytes: u64,
        ended: bool,
        failure: Option<Failure>,
    ) -> Vec<Effect> {
        let Some(Part::Fetching { to, allowed }) = self.parts.remove(&from) else { return Vec::new() };
        self.bytes += bytes;
        let got = from + received;
        if !ended {
            self.parts.insert(got, Part::Fetching { to, allowed: allowed.saturating_sub(bytes) });
        } else if let Some(failure) = failure {
            self.stop(failure.into());
        } else if got < to && received == 0 {
            // Not even one block fits into what was left for this request.
            self.stop(Shortfall::Cut);
        } else if got < to {
            self.queue.push_front((got, to));
        }
        if received == 0 {
            return Vec::new();
        }
        self.parts.insert(from, Part::Checking { to: got });
        vec![Effect::CheckBlocks { from }]
    }

    fn stop(&mut self, shortfall: Shortfall) {
        self.queue.clear();
        // A fault is worth more to know than a cut; the first fault is the one to report.
        if !matches!(self.shortfall, Some(Shortfall::Fault { .. })) {
            self.shortfall = Some(shortfall);
        }
    }

    /// Starts requests, or the end when none is left.
    fn advance(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.busy_requests() < self.config.max_requests {
            let Some((from, to)) = self.queue.pop_front() else { break };
            let reserved: u64 = self
                .parts
                .values()
                .map(|part| match part {
                    Part::Fetching { allowed, .. } => *allowed,
                    _ => 0,
                })
                .sum();
            let left = self.config.max_bytes.saturating_sub(self.bytes + reserved);
            if left < self.least() {
                self.queue.push_front((from, to));
                if reserved == 0 {
                    self.stop(Shortfall::Cut);
                }
                break;
            }
            // Leave the other requests their share.
            let wanted = u64::from(to - from);
            let waiting: u64 = self.queue.iter().map(|(from, to)| u64::from(to - from)).sum();
            let share = u128::from(left) * u128::from(wanted) / u128::from(wanted + waiting).max(1);
            let allowed = (share as u64).max(self.least());
            self.parts.insert(from, Part::Fetching { to, allowed });
            effects.push(Effect::FetchBlocks { from, to, max_bytes: allowed });
        }
        let idle = self.parts.values().all(|part| matches!(part, Part::Checked { .. }));
        if self.queue.is_empty() && self.busy_requests() == 0 && !self.downloaded && !idle {
            self.downloaded = true;
            effects.push(Effect::TellDownloaded);
        }
        if self.queue.is_empty() && idle && !self.finishing {
            self.finishing = true;
            effects.push(self.finish());
        }
        effects
    }

    /// Bytes that a request must be allowed: one block of the largest size, or what a small range has for one.
    fn least(&self) -> u64 {
        (self.config.max_bytes / 4).min(MAX_BLOCK_BYTES as u64)
    }

    fn busy_requests(&self) -> usize {
        self.parts.values().filter(|part| matches!(part, Part::Fetching { .. })).count()
    }

    fn finish(&mut self) -> Effect {
        let mut verified = 0;
        for (from, part) in &self.parts {
            match part {
                Part::Checked { to } if *from == verified => verified = *to,
                _ => break,
            }
        }
        let commits = self.commit_ends.iter().take_while(|end| **end <= verified).count() as u32;
        if commits == 0 {
            // Neither cut nor failed, and not one commit: there was none to fetch.
            let shortfall = self.shortfall.take().unwrap_or(Shortfall::Cut);
            return Effect::Finish { verified: None, shortfall: Some(shortfall) };
        }
        Effect::CheckSubDags { commits }
    }
}

impl Core for SyncWorker {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = ();

    const NAME: &'static str = "sync-worker";

    fn handle(&mut self, _now: Now, input: Input) -> Vec<Effect> {
        let mut effects = match input {
            Input::Start => return vec![Effect::FetchCommits],
            Input::CommitsFetched(Ok(bytes)) => {
                self.bytes = bytes;
                return vec![Effect::CheckCommits];
            }
            Input::CommitsFetched(Err(failure))
                if failure.fault == Fault::DoesNotHave && !self.config.holds_any_answer =>
            {
                return vec![Effect::Finish { verified: None, shortfall: Some(Shortfall::Cut) }];
            }
            Input::CommitsFetched(Err(failure)) => {
                return vec![Effect::Finish { verified: None, shortfall: Some(failure.into()) }];
            }
            Input::CommitsChecked(Err(shortfall)) => {
                return vec![Effect::Finish { verified: None, shortfall: Some(shortfall) }];
            }
            Input::CommitsChecked(Ok(blocks)) => {
                self.on_commits_checked(&blocks);
                Vec::new()
            }
            Input::BlocksFetched { from, received, bytes, ended, failure } => {
                self.on_blocks_fetched(from, received, bytes, ended, failure)
            }
            Input::BlocksChecked { from, result } => {
                if let Some(Part::Checking { to }) = self.parts.remove(&from) {
                    match result {
                        Ok(()) => drop(self.parts.insert(from, Part::Checked { to })),
                        Err(failure) => self.stop(failure.into()),
                    }
                }
                Vec::new()
            }
            Input::SubDagsChecked(Ok(verified)) => {
                let shortfall = self.shortfall.take();
                return vec![Effect::Finish { verified: Some(verified), shortfall }];
            }
            Input::SubDagsChecked(Err(failure)) => {
                return vec![Effect::Finish { verified: None, shortfall: Some(failure.into()) }];
            }
        };
        effects.append(&mut self.advance());
        effects
    }

    fn snapshot(&self) {}
}

#[cfg(test)]
mod tests;
