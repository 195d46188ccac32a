//! SyncWorker: one range of commits from one peer, from the first request to verified commits.
//!
//! ```text
//!   FetchCommits x n -> CheckCommits x n -> JoinCommits
//!                                            `-> FetchBlocks x n (some at a time) -> CheckBlocks as they come ->
//!                                            CheckSubDags -> Finish
//! ```
//!
//! An answer has few commits, and where these are small, few bytes: a range may need several answers. They are asked
//! for at the same time, and each is proved by its own votes.
//!
//! Always:
//! - Verified data is kept: on any failure the commits whose blocks are all verified, from the start on, are
//!   delivered, and the reason says why not all.
//! - It never holds more than [`Config::max_bytes`]: each request has a limit of bytes.
//! - Blocks are asked for only after a quorum's votes have certified the commits that name them.
//! - Answers are joined as far as each follows the one before it by index and digest. What is behind the first that
//!   failed, was cut or does not follow, is left for another worker.

use crate::{
    core::{Core, Now},
    state_sync::{RangeSummary, StopReason},
};
use serde::{Deserialize, Serialize};
use soma_types::{CommitDigest, CommitIndex, Fault, PeerFailure, limits::MAX_BLOCK_BYTES};
use std::collections::{BTreeMap, VecDeque};
use strum::VariantNames;

/// What a worker is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// First commit.
    pub start: CommitIndex,
    /// Last commit.
    pub end: CommitIndex,
    /// How far commits may be asked for to prove the range by. Beyond `end`, all of it is one answer.
    pub proof_end: CommitIndex,
    /// Commits in one answer.
    pub commits_per_fetch: u32,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// Bytes of the largest answer of commits that the protocol allows. A peer that cannot serve within less may have
    /// the commits all the same.
    pub largest_answer: u64,
    /// Blocks in one request.
    pub blocks_per_request: u32,
    /// Requests for blocks at once.
    pub max_requests: usize,
}

/// What the core sees of an answer's commits that a quorum certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// What the first says of the commit before it.
    pub previous: CommitDigest,
    /// Of the last.
    pub last: CommitDigest,
    /// The number of blocks of each.
    pub blocks: Vec<u32>,
}

/// What can happen to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell, once.
    Start,
    /// Answer to [`Effect::FetchCommits`].
    CommitsFetched {
        /// The first commit asked for.
        start: CommitIndex,
        /// Bytes of commits and votes.
        result: Result<u64, PeerFailure>,
    },
    /// Answer to [`Effect::CheckCommits`].
    CommitsChecked {
        /// The first commit asked for.
        start: CommitIndex,
        /// The commits of the range among them.
        result: Result<Certified, StopReason>,
    },
    /// A part of the answer to [`Effect::FetchBlocks`]: the next blocks of the request.
    BlocksFetched {
        /// The first commit.
        from: u32,
        /// How many came.
        received: u32,
        /// Their bytes.
        bytes: u64,
        /// Whether this is the last part.
        ended: bool,
        /// Why not all came by then, if not for the bytes allowed.
        failure: Option<PeerFailure>,
    },
    /// Answer to [`Effect::CheckBlocks`].
    BlocksChecked {
        /// The part's first block.
        from: u32,
        /// How many of its blocks are verified, from the first on. Of a part that takes long, only some at a time.
        verified: u32,
        /// Why the block after them is not.
        failure: Option<PeerFailure>,
    },
    /// Answer to [`Effect::CheckSubDags`].
    SubDagsChecked {
        /// The commits that passed, from the first on.
        verified: Option<RangeSummary>,
        /// Why the commit after them did not.
        failure: Option<PeerFailure>,
    },
}

/// What the shell is to do. Blocks are counted from 0 over all commits of the range, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the peer for commits.
    FetchCommits {
        /// First commit.
        start: CommitIndex,
        /// Last commit.
        end: CommitIndex,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// Have an answer's commits and votes checked.
    CheckCommits {
        /// The first commit asked for.
        start: CommitIndex,
        /// The last one.
        end: CommitIndex,
    },
    /// Go on with the commits of the first answers, in order, and no others; stop asking for those.
    JoinCommits {
        /// How many answers.
        answers: usize,
    },
    /// Ask the peer for blocks; stop reading where more than the bytes allowed would come.
    FetchBlocks {
        /// First block.
        from: u32,
        /// Behind the last.
        to: u32,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// Have the unchecked blocks of a part checked.
    CheckBlocks {
        /// The first block.
        from: u32,
    },
    /// Tell StateSync that the peer has brought something.
    TellProgress {
        /// Whether nothing more is waited for from it.
        downloaded: bool,
    },
    /// Have the first commits checked with their blocks.
    CheckSubDags {
        /// How many.
        commits: u32,
    },
    /// Deliver and end.
    Finish {
        /// The verified part.
        verified: Option<RangeSummary>,
        /// Why not all.
        shortfall: Option<StopReason>,
    },
}

/// An answer with commits.
#[derive(Serialize, Deserialize)]
enum Answer {
    Fetching { end: CommitIndex },
    Checking,
    Certified(Certified),
    Failed(StopReason),
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
    /// By first commit, until they are joined.
    answers: BTreeMap<CommitIndex, Answer>,
    /// Behind the last block of each commit.
    commit_ends: Vec<u32>,
    /// Blocks not asked for yet, as [from, to).
    queue: VecDeque<(u32, u32)>,
    /// Parts of requests by first block; what is still to come of a request is one of them.
    parts: BTreeMap<u32, Part>,
    bytes: u64,
    shortfall: Option<StopReason>,
    downloaded: bool,
    finishing: bool,
}

impl SyncWorker {
    /// A worker that has not begun.
    pub fn new(config: Config) -> Self {
        let (queue, parts) = (VecDeque::new(), BTreeMap::new());
        Self {
            config,
            answers: BTreeMap::new(),
            commit_ends: Vec::new(),
            queue,
            parts,
            bytes: 0,
            shortfall: None,
            downloaded: false,
            finishing: false,
        }
    }

    fn fetch_commits(&mut self) -> Vec<Effect> {
        let Config { start, end, proof_end, commits_per_fetch, .. } = self.config;
        let step = if proof_end > end { CommitIndex::MAX } else { commits_per_fetch.max(1) };
        let starts: Vec<_> = (start..=proof_end).step_by(step as usize).collect();
        let end_of = |start: CommitIndex| start.saturating_add(step - 1).min(proof_end);
        self.answers = starts.iter().map(|start| (*start, Answer::Fetching { end: end_of(*start) })).collect();
        let max_bytes = self.bytes_per_answer();
        starts.into_iter().map(|start| Effect::FetchCommits { start, end: end_of(start), max_bytes }).collect()
    }

    fn bytes_per_answer(&self) -> u64 {
        self.config.max_bytes / self.answers.len().max(1) as u64
    }

    fn on_commits_fetched(&mut self, start: CommitIndex, result: Result<u64, PeerFailure>) -> Vec<Effect> {
        let Some(Answer::Fetching { end }) = self.answers.get(&start) else { return Vec::new() };
        let end = *end;
        match result {
            Ok(bytes) => {
                self.bytes += bytes;
                self.answers.insert(start, Answer::Checking);
                vec![Effect::CheckCommits { start, end }, Effect::TellProgress { downloaded: false }]
            }
            Err(failure) => {
                // Later commits it need not have; the first ones it may have, in more bytes than were allowed.
                let is_no_fault = start > self.config.start || self.bytes_per_answer() < self.config.largest_answer;
                let shortfall = match failure.fault {
                    Fault::DoesNotHave if is_no_fault => StopReason::Cut,
                    _ => failure.into(),
                };
                self.answers.insert(start, Answer::Failed(shortfall));
                self.join_commits()
            }
        }
    }

    fn on_commits_checked(&mut self, start: CommitIndex, result: Result<Certified, StopReason>) -> Vec<Effect> {
        let Some(Answer::Checking) = self.answers.get(&start) else { return Vec::new() };
        self.answers.insert(start, result.map_or_else(Answer::Failed, Answer::Certified));
        self.join_commits()
    }

    /// Joins the answers as far as they follow each other, unless one is waited for that may be the next.
    fn join_commits(&mut self) -> Vec<Effect> {
        let (mut ends, mut total, mut last) = (Vec::new(), 0, None);
        let (mut joined, mut next) = (0, self.config.start);
        let mut shortfall = None;
        for (start, answer) in &self.answers {
            // The one before was cut.
            if *start != next {
                break;
            }
            let certified = match answer {
                Answer::Fetching { .. } | Answer::Checking => return Vec::new(),
                Answer::Certified(certified) => certified,
                Answer::Failed(failed) => {
                    shortfall = Some(failed.clone());
                    break;
                }
            };
            // A quorum certified both. StateSync decides when it links them.
            if last.is_some_and(|last| last != certified.previous) {
                break;
            }
            for count in &certified.blocks {
                total += count;
                ends.push(total);
            }
            next = next.saturating_add(certified.blocks.len() as u32);
            last = Some(certified.last);
            joined += 1;
        }
        let is_cut = (ends.len() as u64) < u64::from(self.config.end - self.config.start) + 1;
        // What proves a peer hostile counts wherever it stands.
        let lie = self.answers.values().find_map(|answer| match answer {
            Answer::Failed(failed) if failed.bans() => Some(failed.clone()),
            _ => None,
        });
        let shortfall = lie.or(shortfall).or(is_cut.then_some(StopReason::Cut));
        self.answers.clear();
        if joined == 0 {
            return vec![Effect::Finish { verified: None, shortfall }];
        }
        self.shortfall = shortfall;
        self.commit_ends = ends;
        let step = self.config.blocks_per_request.max(1);
        self.queue = (0..total).step_by(step as usize).map(|from| (from, (from + step).min(total))).collect();
        let mut effects = vec![Effect::JoinCommits { answers: joined }];
        effects.append(&mut self.advance());
        effects
    }

    fn on_blocks_fetched(
        &mut self,
        from: u32,
        received: u32,
        bytes: u64,
        ended: bool,
        failure: Option<PeerFailure>,
    ) -> Vec<Effect> {
        let Some(Part::Fetching { to, allowed }) = self.parts.remove(&from) else { return Vec::new() };
        self.bytes += bytes;
        let got = from + received;
        if !ended {
            self.parts.insert(got, Part::Fetching { to, allowed: allowed.saturating_sub(bytes) });
        } else if got < to
            && self.busy_requests() > 0
            && failure.as_ref().is_some_and(|failure| failure.fault == Fault::Overloaded)
        {
            // The peer answers no more requests at once than are under way.
            self.config.max_requests = self.busy_requests();
            self.queue.push_front((got, to));
        } else if let Some(failure) = failure {
            self.stop(failure.into());
        } else if got < to && received == 0 {
            // The rest of this request's bytes cannot hold one block.
            self.stop(StopReason::Cut);
        } else if got < to {
            self.queue.push_front((got, to));
        }
        if received == 0 {
            return Vec::new();
        }
        self.parts.insert(from, Part::Checking { to: got });
        let mut effects = vec![Effect::CheckBlocks { from }];
        if !ended || !self.queue.is_empty() || self.busy_requests() > 0 {
            effects.push(Effect::TellProgress { downloaded: false });
        }
        effects
    }

    fn on_blocks_checked(&mut self, from: u32, verified: u32, failure: Option<PeerFailure>) -> Vec<Effect> {
        let Some(Part::Checking { to }) = self.parts.remove(&from) else { return Vec::new() };
        let end = from.saturating_add(verified).min(to);
        if end > from {
            self.parts.insert(from, Part::Checked { to: end });
        }
        match failure {
            Some(failure) => self.stop(failure.into()),
            None if end < to => {
                self.parts.insert(end, Part::Checking { to });
                return vec![Effect::CheckBlocks { from: end }];
            }
            None => {}
        }
        Vec::new()
    }

    fn stop(&mut self, shortfall: StopReason) {
        self.queue.clear();
        // A fault is worth more to know than a cut, and most of all one that proves a peer hostile; of several the
        // first.
        let is_known = match &self.shortfall {
            Some(known @ StopReason::Failed(_)) => known.bans() || !shortfall.bans(),
            _ => false,
        };
        if !is_known {
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
                    self.stop(StopReason::Cut);
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
            effects.push(Effect::TellProgress { downloaded: true });
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
            let shortfall = self.shortfall.take().unwrap_or(StopReason::Cut);
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
            Input::Start => return self.fetch_commits(),
            Input::CommitsFetched { start, result } => return self.on_commits_fetched(start, result),
            Input::CommitsChecked { start, result } => return self.on_commits_checked(start, result),
            Input::BlocksFetched { from, received, bytes, ended, failure } => {
                self.on_blocks_fetched(from, received, bytes, ended, failure)
            }
            Input::BlocksChecked { from, verified, failure } => self.on_blocks_checked(from, verified, failure),
            Input::SubDagsChecked { verified, failure } => {
                if let Some(failure) = failure {
                    self.stop(failure.into());
                }
                let shortfall = self.shortfall.take();
                return vec![Effect::Finish { verified, shortfall }];
            }
        };
        effects.append(&mut self.advance());
        effects
    }

    fn snapshot(&self) {}
}

#[cfg(test)]
mod tests;
