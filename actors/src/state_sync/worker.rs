//! A SyncWorker: fetches one range from one peer and delivers what verified. An actor for one range, then it ends.

use crate::connections::Links;
use crate::state_sync::messages::{FetchProgress, Kept};
use crate::state_sync::salvage::Blocks;
use crate::verifier::messages::{
    BlocksAnswer, Rejection, SubDagsAnswer, VerifiedRange, VerifyBlocks, VerifyCommits, VerifySubDags,
};
use actix::{Actor, ActorContext, AsyncContext, Context, SpawnHandle};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::LocalBoxFuture};
use soma_network::Link;
use soma_network::wire::{
    BlockRefs, Call, CallError, CommitRange, FetchedCommits, Status, limits::MAX_COMMITS_RESPONSE_BYTES,
};
use soma_protocol::{
    Core,
    state_sync::{RangeKey, Shortfall, StateSync},
    sync_worker::{Certified, Config, Effect, Input, SyncWorker as SyncWorkerCore},
};
use soma_replay::{Cause, Origin};
use soma_runtime::{AskError, Mailbox, Reply, causality::current};
use soma_runtime::{CoreHost, Environment, ExitReason, IoTasks, Shell};
use soma_types::{
    BlockRef, CertifiedCommit, ChainId, CommitIndex, Fault, PeerFailure, PeerId, TrustedCommit, VerifiedBlock,
};
use soma_verify::{CheckedCommits, EpochContext};
use std::{collections::BTreeMap, future::ready, sync::Arc, time::Duration};
use tokio::sync::mpsc;

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

/// Bytes of blocks that are handed to the Verifier at once, as soon as they are there: several parts to a range of the usual
/// size, and enough that a part's own cost is nothing.
const PART_BYTES: usize = 1 << 20;

/// What workers are connected to.
#[derive(Clone)]
pub struct WorkerMailboxes {
    /// Live links.
    pub links: Links,
    /// Where calls run.
    pub io: IoTasks,
    /// The Verifier.
    pub verify_commits: Mailbox<VerifyCommits>,
    /// The Verifier.
    pub verify_blocks: Mailbox<VerifyBlocks>,
    /// The Verifier.
    pub verify_sub_dags: Mailbox<VerifySubDags>,
    /// StateSync.
    pub keep: Mailbox<Kept>,
    /// StateSync.
    pub progress: Mailbox<FetchProgress>,
}

/// What one worker is for.
pub(crate) struct Task {
    pub(crate) peer: PeerId,
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
    pub(crate) shortfall: Option<Shortfall>,
}

/// The actor.
pub(crate) struct SyncWorker {
    // Configuration
    key: RangeKey,
    task: Task,
    committee: Arc<EpochContext>,
    /// What StateSync was handling when it started this worker.
    started_by: Option<Cause>,
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
    /// Those that passed, until they are joined.
    checked: BTreeMap<CommitIndex, CheckedCommits>,
    /// Commits of the range, in order, and votes for those that were the last of an answer.
    commits: Vec<(TrustedCommit, Vec<VerifiedBlock>)>,
    /// References of all blocks of all commits, in order; the core counts blocks by position in it.
    refs: Arc<[BlockRef]>,
    received: BTreeMap<u32, Vec<Bytes>>,
    /// Blocks that another worker has verified: not fetched, not checked again.
    salvaged: Blocks,
    /// Those of them that stand for a request.
    taken: BTreeMap<u32, Vec<VerifiedBlock>>,
    blocks: BTreeMap<u32, Vec<VerifiedBlock>>,
    range: Option<VerifiedRange>,
}

impl SyncWorker {
    pub(crate) fn new(
        key: RangeKey,
        task: Task,
        committee: Arc<EpochContext>,
        salvaged: Blocks,
        mailboxes: WorkerMailboxes,
        deliver: Reply<WorkerResult>,
        environment: Environment,
    ) -> Self {
        let config = Config {
            start: task.start,
            end: task.end,
            proof_end: task.proof_end,
            commits_per_fetch: task.settings.commits_per_fetch,
            max_bytes: task.max_bytes,
            largest_answer: MAX_COMMITS_RESPONSE_BYTES as u64,
            blocks_per_request: task.settings.blocks_per_request,
            max_requests: MAX_REQUESTS,
        };
        Self {
            link: mailboxes.links.get(task.peer),
            key,
            task,
            committee,
            started_by: current(),
            mailboxes,
            deliver: Some(deliver),
            host: CoreHost::new(SyncWorkerCore::new(config), environment),
            fetching: BTreeMap::new(),
            fetched: BTreeMap::new(),
            checked: BTreeMap::new(),
            commits: Vec::new(),
            refs: Arc::new([]),
            received: BTreeMap::new(),
            salvaged,
            taken: BTreeMap::new(),
            blocks: BTreeMap::new(),
            range: None,
        }
    }

    fn call(&self) -> Call {
        let settings = &self.task.settings;
        Call { peer: self.task.peer, chain: Some(settings.chain), remote: None, timeout: settings.request_timeout }
    }

    /// Runs a call on the I/O runtime and feeds what `finish` makes of its result.
    fn run<R: Send + 'static>(
        &mut self,
        call: impl Future<Output = R> + Send + 'static,
        finish: impl FnOnce(&mut Self, Result<R, ExitReason>) -> Input + 'static,
        context: &mut Context<Self>,
    ) -> SpawnHandle {
        let running = self.mailboxes.io.spawn(call);
        let finish = move |worker: &mut Self, result, origin, context: &mut Context<Self>| {
            let input = finish(worker, result);
            worker.feed(origin, input, context);
        };
        self.later(running, finish, context)
    }

    /// Waits for an answer of the Verifier and feeds what `finish` makes of it.
    fn verify<R: 'static>(
        &mut self,
        asking: impl Future<Output = Result<R, AskError>> + 'static,
        finish: impl FnOnce(&mut Self, Result<R, Rejection>) -> Input + 'static,
        context: &mut Context<Self>,
    ) {
        // A check takes as long as it takes. The Verifier answers, or ends, and then there is no answer.
        let asking = soma_runtime::while_waiting(asking);
        let finish = move |worker: &mut Self, answer: Result<R, AskError>, origin, context: &mut Context<Self>| {
            // No answer: the check was refused, or the Verifier is being restarted. Ours to try again.
            let no_answer = |error| Rejection::Failed(PeerFailure::new(Fault::Ours, format!("no verdict: {error}")));
            let input = finish(worker, answer.map_err(no_answer));
            worker.feed(origin, input, context);
        };
        self.later(asking, finish, context);
    }

    fn fetch_commits(&mut self, start: CommitIndex, end: CommitIndex, max_bytes: u64, context: &mut Context<Self>) {
        let (link, call) = (self.link.clone(), self.call());
        let fetching = async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            let range = CommitRange::new(start, end)?.within(max_bytes);
            link.api().fetch_commits(call, range).await
        };
        let finish = move |worker: &mut Self, result: Result<Result<FetchedCommits, CallError>, ExitReason>| {
            worker.fetching.remove(&start);
            let result = flatten(result).map(|fetched| {
                let bytes = fetched.size() as u64;
                worker.fetched.insert(start, fetched);
                bytes
            });
            Input::CommitsFetched { start, result }
        };
        let call = self.run(fetching, finish, context);
        self.fetching.insert(start, call);
    }

    fn check_commits(&mut self, start: CommitIndex, end: CommitIndex, context: &mut Context<Self>) {
        let mut verifier = self.mailboxes.verify_commits.clone();
        let Some(fetched) = self.fetched.remove(&start) else {
            let result = Err(ours("the answer to check is not here".into()).into());
            return self.feed_later(Input::CommitsChecked { start, result }, context);
        };
        let committee = self.committee.clone();
        let asking = async move {
            let ask = |reply| VerifyCommits { context: committee, start, end, fetched, reply };
            verifier.ask(ask).await
        };
        let finish = move |worker: &mut Self, result: Result<Result<CheckedCommits, Rejection>, Rejection>| {
            let result = result.flatten().map_err(shortfall).map(|mut checked| {
                let wanted = (worker.task.end - start) as usize + 1;
                if checked.commits.len() > wanted {
                    // The rest has proved the range, and so have the votes, which are for its end.
                    checked.commits.truncate(wanted);
                    checked.certifiers.clear();
                }
                let summary = summarize(&checked.commits);
                worker.checked.insert(start, checked);
                summary
            });
            // Answers without commits do not pass.
            let nothing = || Err(ours("checked commits are none".into()).into());
            Input::CommitsChecked { start, result: result.and_then(|summary| summary.map_or_else(nothing, Ok)) }
        };
        self.verify(asking, finish, context);
    }

    fn join_commits(&mut self, answers: usize, context: &mut Context<Self>) {
        // Ending the future ends the call.
        for call in std::mem::take(&mut self.fetching).into_values() {
            context.cancel_future(call);
        }
        for CheckedCommits { commits, certifiers, .. } in std::mem::take(&mut self.checked).into_values().take(answers)
        {
            self.commits.extend(commits.into_iter().map(|commit| (commit, Vec::new())));
            // A later node asks this one for what they prove.
            if let Some((_, votes)) = self.commits.last_mut() {
                *votes = certifiers;
            }
        }
        self.refs = self.commits.iter().flat_map(|(commit, _)| commit.blocks.iter().copied()).collect();
    }

    /// Takes what is there of the blocks from `from` on, up to the first that is missing.
    fn take_salvaged(&mut self, from: u32, to: u32, max_bytes: u64) -> Option<Input> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        for reference in &self.refs[from as usize..to as usize] {
            let size = self.salvaged.get(reference).map_or(u64::MAX, |block| block.bytes().len() as u64);
            if size > max_bytes - bytes {
                break;
            }
            bytes += size;
            taken.extend(self.salvaged.remove(reference));
        }
        let received = taken.len() as u32;
        (received > 0).then(|| {
            self.taken.insert(from, taken);
            Input::BlocksFetched { from, received, bytes, ended: true, failure: None }
        })
    }

    /// Feeds what is known already, after all that is being done now.
    fn feed_later(&mut self, input: Input, context: &mut Context<Self>) {
        let feed = |worker: &mut Self, input, origin, context: &mut Context<Self>| worker.feed(origin, input, context);
        self.later(ready(input), feed, context);
    }

    fn fetch_blocks(&mut self, from: u32, to: u32, max_bytes: u64, context: &mut Context<Self>) {
        if let Some(input) = self.take_salvaged(from, to, max_bytes) {
            return self.feed_later(input, context);
        }
        let (link, call) = (self.link.clone(), self.call());
        // A block may be committed twice, and is asked for once in each request.
        let refs = BlockRefs::leading(&self.refs[from as usize..to as usize]);
        // One part on its way to this actor while the next is read.
        let (sender, parts) = mpsc::channel(1);
        let reading = async move {
            let result = match (link, refs) {
                (Some(link), Ok(refs)) => read_blocks(&link, call, refs, max_bytes, &sender).await,
                (None, _) => Err(CallError::connection_gone()),
                (_, Err(error)) => Err(error),
            };
            if let Err(error) = result {
                // Who does not wait any more needs no reason.
                let _ = sender.send(BlocksPart { blocks: Vec::new(), end: Some(Err(error)) }).await;
            }
        };
        let reading = self.mailboxes.io.spawn(reading).boxed_local();
        self.take_part(from, Download { parts, reading }, context);
    }

    /// Waits for the next blocks of a download, which begin with `from`.
    fn take_part(&mut self, from: u32, mut download: Download, context: &mut Context<Self>) {
        let waiting = async move {
            match download.parts.recv().await {
                Some(BlocksPart { blocks, end: None }) => (blocks, Ok(Some(download))),
                Some(BlocksPart { blocks, end: Some(end) }) => {
                    (blocks, end.map(|()| None).map_err(|error| failure(&error)))
                }
                None => {
                    let exit = download.reading.await.err().unwrap_or(ExitReason::Normal);
                    (Vec::new(), Err(ours(format!("the call {exit}"))))
                }
            }
        };
        let finish = move |worker: &mut Self, part: (Vec<Bytes>, _), origin, context: &mut Context<Self>| {
            let (blocks, rest): (_, Result<Option<Download>, PeerFailure>) = part;
            let received = blocks.len() as u32;
            let bytes = blocks.iter().map(|block| block.len() as u64).sum();
            worker.received.insert(from, blocks);
            let (rest, failure) = match rest {
                Ok(rest) => (rest, None),
                Err(failure) => (None, Some(failure)),
            };
            worker.feed(
                origin,
                Input::BlocksFetched { from, received, bytes, ended: rest.is_none(), failure },
                context,
            );
            if let Some(rest) = rest {
                worker.take_part(from + received, rest, context);
            }
        };
        self.later(waiting, finish, context);
    }

    fn check_blocks(&mut self, from: u32, context: &mut Context<Self>) {
        if let Some(blocks) = self.taken.remove(&from) {
            let verified = blocks.len() as u32;
            self.keep(from, blocks);
            return self.feed_later(Input::BlocksChecked { from, verified, failure: None }, context);
        }
        let blocks = self.received.remove(&from).unwrap_or_default();
        let rest = blocks.clone();
        let refs = self.refs[from as usize..from as usize + blocks.len()].to_vec();
        let (mut verifier, committee) = (self.mailboxes.verify_blocks.clone(), self.committee.clone());
        let asking = async move {
            let ask = |reply| VerifyBlocks { context: committee, refs, blocks, reply };
            verifier.ask(ask).await
        };
        let finish = move |worker: &mut Self, answer: Result<BlocksAnswer, Rejection>| {
            let BlocksAnswer { blocks, rejection } =
                answer.unwrap_or_else(|no_answer| BlocksAnswer { blocks: Vec::new(), rejection: Some(no_answer) });
            let verified = blocks.len() as u32;
            let mut failure = rejection.map(verdict);
            if failure.is_none() && blocks.is_empty() {
                failure = Some(ours("the check was interrupted".into()));
            }
            if failure.is_none() && blocks.len() < rest.len() {
                worker.received.insert(from + verified, rest[blocks.len()..].to_vec());
            }
            worker.keep(from, blocks);
            Input::BlocksChecked { from, verified, failure }
        };
        self.verify(asking, finish, context);
    }

    /// Keeps verified blocks, also for another worker should this one die.
    fn keep(&mut self, from: u32, blocks: Vec<VerifiedBlock>) {
        if blocks.is_empty() {
            return;
        }
        // What StateSync has no time for is fetched again in that case.
        let _ = self.mailboxes.keep.tell(Kept { key: self.key, blocks: blocks.clone() });
        self.blocks.insert(from, blocks);
    }

    /// Joins the first commits with their blocks and has them checked together. If the last of them was not the last of an
    /// answer, it is proved by the answer that it is a part of, and has no votes.
    fn check_sub_dags(&mut self, count: u32, context: &mut Context<Self>) {
        let mut blocks = std::mem::take(&mut self.blocks).into_values().flatten();
        let commits: Vec<_> = std::mem::take(&mut self.commits)
            .into_iter()
            .take(count as usize)
            .map(|(commit, certifiers)| {
                let blocks = blocks.by_ref().take(commit.blocks.len()).collect();
                CertifiedCommit { commit, blocks, certifiers }
            })
            .collect();
        let (mut verifier, committee) = (self.mailboxes.verify_sub_dags.clone(), self.committee.clone());
        let asking = async move {
            let ask = |reply| VerifySubDags { context: committee, commits, reply };
            verifier.ask(ask).await
        };
        let finish = |worker: &mut Self, answer: Result<SubDagsAnswer, Rejection>| {
            let SubDagsAnswer { range, rejection } =
                answer.unwrap_or_else(|no_answer| SubDagsAnswer { range: None, rejection: Some(no_answer) });
            let verified = range.as_ref().map(|range| range.summary);
            worker.range = range;
            Input::SubDagsChecked { verified, failure: rejection.map(verdict) }
        };
        self.verify(asking, finish, context);
    }
}

/// What the core is to know of certified commits; there is at least one.
fn summarize(commits: &[TrustedCommit]) -> Option<Certified> {
    let (first, last) = commits.first().zip(commits.last())?;
    Some(Certified {
        previous: first.previous_digest,
        last: last.reference().digest,
        blocks: commits.iter().map(|commit| commit.blocks.len() as u32).collect(),
    })
}

/// Blocks on their way from a peer to the actor.
struct BlocksPart {
    blocks: Vec<Bytes>,
    /// How the answer ended, if these are its last.
    end: Option<Result<(), CallError>>,
}

/// A request for blocks that is being answered. Dropping it ends the call.
struct Download {
    parts: mpsc::Receiver<BlocksPart>,
    reading: LocalBoxFuture<'static, Result<(), ExitReason>>,
}

/// Reads a block stream to its end, or to where more than `max_bytes` would come, and hands on what comes in parts. What
/// came before a failure counts.
async fn read_blocks(
    link: &Link,
    call: Call,
    refs: BlockRefs,
    max_bytes: u64,
    parts: &mpsc::Sender<BlocksPart>,
) -> Result<(), CallError> {
    let mut wanted = refs.as_slice().len();
    let mut left = max_bytes;
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let mut stream = link.api().fetch_blocks(call, refs).await?;
    let end = 'reading: loop {
        let chunk = match stream.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => break Err(error),
            None => break Err(CallError::new(Status::NotFound, "the answer ended before the last block")),
        };
        if chunk.len() > wanted {
            break Err(CallError::new(Status::MalformedAnswer, "more blocks than were asked for"));
        }
        for block in chunk {
            let Some(rest) = left.checked_sub(block.len() as u64) else { break 'reading Ok(()) };
            left = rest;
            bytes += block.len();
            wanted -= 1;
            blocks.push(block);
        }
        if wanted == 0 {
            break Ok(());
        }
        if bytes >= PART_BYTES {
            bytes = 0;
            let part = BlocksPart { blocks: std::mem::take(&mut blocks), end: None };
            if parts.send(part).await.is_err() {
                return Ok(());
            }
        }
    };
    // Whoever does not wait any more has ended.
    let _ = parts.send(BlocksPart { blocks, end: Some(end) }).await;
    Ok(())
}

fn failure(error: &CallError) -> PeerFailure {
    PeerFailure { fault: error.fault(), reason: error.to_string(), retry_after: error.retry_after }
}

fn ours(reason: String) -> PeerFailure {
    PeerFailure::new(Fault::Ours, reason)
}

fn flatten<R>(result: Result<Result<R, CallError>, ExitReason>) -> Result<R, PeerFailure> {
    match result {
        Ok(answer) => answer.map_err(|error| failure(&error)),
        Err(exit) => Err(ours(format!("the call {exit}"))),
    }
}

fn shortfall(rejection: Rejection) -> Shortfall {
    match rejection {
        Rejection::Failed(failure) => Shortfall::Failed(failure),
        Rejection::OtherEpoch { index, found } => Shortfall::OtherEpoch { index, found },
    }
}

fn verdict(rejection: Rejection) -> PeerFailure {
    match rejection {
        Rejection::Failed(failure) => failure,
        other @ Rejection::OtherEpoch { .. } => ours(other.to_string()),
    }
}

impl Actor for SyncWorker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let origin = Origin { sender: StateSync::NAME, cause: self.started_by };
        self.feed(origin, Input::Start, context);
    }
}

impl Shell for SyncWorker {
    type Core = SyncWorkerCore;

    fn host(&mut self) -> &mut CoreHost<SyncWorkerCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::FetchCommits { start, end, max_bytes } => self.fetch_commits(start, end, max_bytes, context),
            Effect::CheckCommits { start, end } => self.check_commits(start, end, context),
            Effect::JoinCommits { answers } => self.join_commits(answers, context),
            Effect::FetchBlocks { from, to, max_bytes } => self.fetch_blocks(from, to, max_bytes, context),
            Effect::CheckBlocks { from } => self.check_blocks(from, context),
            // What StateSync has no time for leads to a second worker at worst.
            Effect::TellProgress { downloaded } => {
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
