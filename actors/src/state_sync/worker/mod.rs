//! A SyncWorker: an actor for one range. It fetches the range from one peer, or from a segment of the archive, delivers
//! the verified part, and ends.

mod check;
mod download;
mod failure;
mod fetch;
mod segment;

pub(super) use failure::call_outcome;

use crate::archiver::messages::ReadSegment;
use crate::connections::Links;
use crate::state_sync::messages::{CacheUpdate, FetchProgress};
use crate::state_sync::metrics;
use crate::state_sync::verified_block_cache::Blocks;
use crate::verifier::messages::{VerifiedRange, VerifyBlocks, VerifyCommits, VerifySubDags};
use actix::{Actor, ActorContext, AsyncContext, Context, SpawnHandle};
use bytes::Bytes;
use soma_network::Link;
use soma_network::wire::{Call, FetchedCommits, limits::MAX_COMMITS_RESPONSE_BYTES};
use soma_protocol::{
    Core,
    state_sync::worker::{Config, Effect, Input, SyncWorker as SyncWorkerCore},
    state_sync::{RangeKey, StateSync, StopReason},
};
use soma_replay::Origin;
use soma_runtime::{CoreHost, IoTasks, RuntimeContext, Shell};
use soma_runtime::{Mailbox, Reply, causality};
use soma_types::{BlockRef, ChainId, CommitIndex, PeerId, SegmentName, TrustedCommit, VerifiedBlock};
use soma_verify::{CheckedCommits, EpochContext};
use std::{collections::BTreeMap, future::ready, sync::Arc, time::Duration};

/// How peers are called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's chain.
    pub chain: ChainId,
    /// How long one request of a worker may take.
    pub request_timeout: Duration,
    /// Commits in one answer.
    pub commits_per_fetch: u32,
    /// Blocks in one request.
    pub blocks_per_request: u32,
}

/// Requests for blocks that one worker has open at once: all of a usual range, so that it takes one round trip.
const MAX_REQUESTS: usize = 4;

/// What workers are connected to.
#[derive(Clone)]
pub(crate) struct WorkerMailboxes {
    /// Live links.
    pub links: Links,
    /// Where calls run.
    pub io: IoTasks,
    /// The Archiver, if the node has an archive.
    pub read_segment: Option<Mailbox<ReadSegment>>,
    /// The Verifier.
    pub verify_commits: Mailbox<VerifyCommits>,
    /// The Verifier.
    pub verify_blocks: Mailbox<VerifyBlocks>,
    /// The Verifier.
    pub verify_sub_dags: Mailbox<VerifySubDags>,
    /// StateSync.
    pub cache_update: Mailbox<CacheUpdate>,
    /// StateSync.
    pub progress: Mailbox<FetchProgress>,
}

/// Where a worker gets its range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Peer(PeerId),
    /// One segment of the archive. It is one answer with all its commits, and brings their blocks.
    Archive(SegmentName),
}

impl Source {
    /// Its kind, for metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::Archive(_) => "archive",
        }
    }
}

/// What one worker is for.
pub(crate) struct Task {
    pub(crate) source: Source,
    pub(crate) start: CommitIndex,
    pub(crate) end: CommitIndex,
    /// How far commits may be asked for to prove the range by.
    pub(crate) proof_end: CommitIndex,
    pub(crate) max_bytes: u64,
    pub(crate) settings: Settings,
}

/// What a worker delivers.
pub(crate) struct WorkerResult {
    pub(crate) verified: Option<VerifiedRange>,
    pub(crate) shortfall: Option<StopReason>,
}

/// The actor.
pub(crate) struct SyncWorker {
    // Configuration
    key: RangeKey,
    task: Task,
    committee: Arc<EpochContext>,
    /// What StateSync was handling when it started this worker.
    started_by: Origin,
    /// When, by the node's monotonic clock.
    started_at: Duration,
    // Mailboxes
    mailboxes: WorkerMailboxes,
    deliver: Option<Reply<WorkerResult>>,
    // State
    host: CoreHost<SyncWorkerCore>,
    link: Option<Link>,
    /// Calls for commits by first commit.
    fetching: BTreeMap<CommitIndex, SpawnHandle>,
    /// Answers by first commit, until they are checked.
    fetched: BTreeMap<CommitIndex, FetchedCommits>,
    /// Blocks of the segment from the first commit of the range on, in the order of the references.
    segment_blocks: Vec<Bytes>,
    /// Those that passed, until they are joined.
    checked: BTreeMap<CommitIndex, CheckedCommits>,
    /// Commits of the range, in order, and votes for those that were the last of an answer.
    commits: Vec<(TrustedCommit, Vec<VerifiedBlock>)>,
    /// References of all blocks of all commits, in order; the core counts blocks by position in it.
    refs: Arc<[BlockRef]>,
    received: BTreeMap<u32, Vec<Bytes>>,
    /// Blocks that another worker has verified: not fetched, not checked again.
    cached: Blocks,
    /// The parts that stand for a request.
    taken: BTreeMap<u32, Vec<VerifiedBlock>>,
    blocks: BTreeMap<u32, Vec<VerifiedBlock>>,
    range: Option<VerifiedRange>,
}

impl SyncWorker {
    pub(crate) fn new(
        key: RangeKey,
        task: Task,
        committee: Arc<EpochContext>,
        cached: Blocks,
        mailboxes: WorkerMailboxes,
        deliver: Reply<WorkerResult>,
        runtime_context: RuntimeContext,
    ) -> Self {
        let commits_per_fetch = match task.source {
            Source::Peer(_) => task.settings.commits_per_fetch,
            Source::Archive(_) => CommitIndex::MAX,
        };
        let config = Config {
            start: task.start,
            end: task.end,
            proof_end: task.proof_end,
            commits_per_fetch,
            max_bytes: task.max_bytes,
            largest_answer: MAX_COMMITS_RESPONSE_BYTES as u64,
            blocks_per_request: task.settings.blocks_per_request,
            max_requests: MAX_REQUESTS,
        };
        Self {
            link: match task.source {
                Source::Peer(peer) => mailboxes.links.get(peer),
                Source::Archive(_) => None,
            },
            key,
            task,
            committee,
            started_by: causality::origin(StateSync::NAME),
            started_at: runtime_context.now().monotonic,
            mailboxes,
            deliver: Some(deliver),
            host: CoreHost::new(SyncWorkerCore::new(config), runtime_context),
            fetching: BTreeMap::new(),
            fetched: BTreeMap::new(),
            segment_blocks: Vec::new(),
            checked: BTreeMap::new(),
            commits: Vec::new(),
            refs: Arc::new([]),
            received: BTreeMap::new(),
            cached,
            taken: BTreeMap::new(),
            blocks: BTreeMap::new(),
            range: None,
        }
    }

    fn call(&self, peer: PeerId) -> Call {
        let settings = &self.task.settings;
        Call { peer, chain: Some(settings.chain), remote: None, timeout: settings.request_timeout }
    }

    fn join_commits(&mut self, answers: usize, context: &mut Context<Self>) {
        // Ending the future ends the call.
        for call in std::mem::take(&mut self.fetching).into_values() {
            context.cancel_future(call);
        }
        for CheckedCommits { commits, certifiers, .. } in std::mem::take(&mut self.checked).into_values().take(answers)
        {
            self.commits.extend(commits.into_iter().map(|commit| (commit, Vec::new())));
            // A later node asks this one for the commits that these blocks prove.
            if let Some((_, votes)) = self.commits.last_mut() {
                *votes = certifiers;
            }
        }
        self.refs = self.commits.iter().flat_map(|(commit, _)| commit.blocks.iter().copied()).collect();
    }

    /// Feeds known results after the present input.
    fn feed_later(&mut self, input: Input, context: &mut Context<Self>) {
        let feed = |worker: &mut Self, input, origin, context: &mut Context<Self>| worker.feed(origin, input, context);
        self.later(ready(input), feed, context);
    }

    /// Keeps verified blocks, also for another worker should this one die.
    fn keep(&mut self, from: u32, blocks: Vec<VerifiedBlock>) {
        if blocks.is_empty() {
            return;
        }
        // What StateSync has no time for is fetched again in that case.
        let _ = self.mailboxes.cache_update.tell(CacheUpdate { key: self.key, blocks: blocks.clone() });
        self.blocks.insert(from, blocks);
    }
}

impl Actor for SyncWorker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.feed(self.started_by.clone(), Input::Start, context);
    }
}

impl Shell for SyncWorker {
    type Core = SyncWorkerCore;

    fn host(&mut self) -> &mut CoreHost<SyncWorkerCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::FetchCommits { start, end, max_bytes } => match self.task.source {
                Source::Peer(peer) => self.fetch_commits(peer, start, end, max_bytes, context),
                Source::Archive(segment) => self.read_segment(segment, start, max_bytes, context),
            },
            Effect::CheckCommits { start, end } => self.check_commits(start, end, context),
            Effect::JoinCommits { answers } => self.join_commits(answers, context),
            Effect::FetchBlocks { from, to, max_bytes } => match self.task.source {
                Source::Peer(peer) => self.fetch_blocks(peer, from, to, max_bytes, context),
                Source::Archive(_) => self.take_segment_blocks(from, to, max_bytes, context),
            },
            Effect::CheckBlocks { from } => self.check_blocks(from, context),
            // What StateSync has no time for leads to a second worker at worst.
            Effect::TellProgress { downloaded } => {
                if downloaded {
                    let took = self.host.now().monotonic.saturating_sub(self.started_at);
                    metrics::fetched(self.task.source.name(), took);
                }
                let _ = self.mailboxes.progress.tell(FetchProgress { key: self.key, downloaded });
            }
            Effect::CheckSubDags { commits } => self.check_sub_dags(commits, context),
            Effect::Finish { verified, shortfall } => {
                let verified = verified.and_then(|_| self.range.take());
                if let Some(deliver) = self.deliver.take() {
                    deliver.send(WorkerResult { verified, shortfall });
                }
                tracing::trace!(worker = SyncWorkerCore::NAME, start = self.task.start, "done");
                context.stop();
            }
        }
    }
}
