//! The shell: holds the bytes of verified ranges, starts workers, has ranges written, and publishes them.

use crate::archiver::messages::{CommitsDurable, ListSegments};
use crate::connections::messages::CommitteeChanged;
use crate::peer_heights::messages::{OwnHeight, Pick, Report};
use crate::state_sync::messages::{
    CacheUpdate, ExecutorProgress, FetchProgress, LocalCommit, SubscribeCommittee, Target,
};
use crate::state_sync::{
    commit_feed::CommitFeed,
    history_reader::HistoryReader,
    metrics,
    verified_block_cache::VerifiedBlockCache,
    worker::{Settings, Source, SyncWorker, Task, WorkerMailboxes, WorkerResult},
};
use crate::store_writer::messages::{Apply, Prepend, SkipEpochs};
use crate::verifier::messages::{VerifyEpochProofs, VerifyLocalCommit};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, SpawnHandle};
use soma_protocol::{
    Core,
    peer_heights::NoPeer,
    state_sync::worker::SyncWorker as WorkerCore,
    state_sync::{
        Config, Effect, Input, LocalCommitError, Offered, RangeKey, Snapshot, StateSync as StateSyncCore, Tip,
    },
};
use soma_replay::{Flow, Origin};
use soma_runtime::{
    AskError, CoreHost, Envelope, ExitReason, Heartbeat, LogLimit, Mailbox, OrderedSender, Reply, RuntimeContext,
    Shell, Stop, causality, forward, observe, run_actor,
};
use soma_types::{CertifiedCommit, CommitIndex, CommitRef, EndedEpoch, Epoch, PeerId, TrustedCommit};
use soma_verify::EpochContext;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Mailbox of a worker: it gets no messages but its own futures' results.
const WORKER_MAILBOX: usize = 1;

/// How long a worker may wait for a check beyond the time that a request has: behind those of all other workers, on a
/// slow machine. Who waits longer waits for something that does not come, and is replaced.
const CHECK_ALLOWANCE: Duration = Duration::from_secs(120);

/// How often the log says how far a node has got that follows the chain.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// What the store holds when StateSync starts.
#[derive(Clone, Debug)]
pub(crate) struct StartState {
    /// Last durable commit.
    pub tip: Tip,
    /// The same commit.
    pub last_commit: TrustedCommit,
    /// Whether there are no commits beyond the genesis, or only skipped ones.
    pub is_empty: bool,
    /// Committee of the epoch of the next commit.
    pub committee: Arc<EpochContext>,
}

/// The receivers of StateSync's messages, and its public state.
pub(crate) struct Mailboxes {
    /// For workers.
    pub(crate) workers: WorkerMailboxes,
    pub(crate) pick: Mailbox<Pick>,
    pub(crate) apply: Mailbox<Apply>,
    pub(crate) skip_epochs: Mailbox<SkipEpochs>,
    pub(crate) prepend: Mailbox<Prepend>,
    pub(crate) history: HistoryReader,
    pub(crate) verify_local: Mailbox<VerifyLocalCommit>,
    pub(crate) verify_epochs: Mailbox<VerifyEpochProofs>,
    /// Durable commits, for executors.
    pub(crate) commit_feed: CommitFeed,
    /// Subscribers of the committee, by name.
    pub(crate) committee_subscribers: BTreeMap<&'static str, OrderedSender<CommitteeChanged>>,
    pub(crate) report: OrderedSender<Report>,
    pub(crate) own_height: OrderedSender<OwnHeight>,
    /// To the Archiver, if the node has an archive.
    pub(crate) archive: Option<ArchiverMailboxes>,
}

/// The ways to the Archiver.
pub(crate) struct ArchiverMailboxes {
    pub(crate) list: Mailbox<ListSegments>,
    pub(crate) durable: OrderedSender<CommitsDurable>,
}

/// Where the next epoch begins, and the proofs that lead further.
pub(super) struct Epochs {
    /// The last commit of the epoch before, or the genesis commit.
    pub(super) previous: TrustedCommit,
    /// The verified epochs of one answer, until they are written.
    pub(super) verified: Vec<EndedEpoch>,
}

/// The actor.
pub struct StateSync {
    // Configuration
    pub(super) settings: Settings,
    pub(super) mailboxes: Mailboxes,
    // State
    pub(super) host: CoreHost<StateSyncCore>,
    /// Verified commits that are not durable yet.
    pub(super) held: BTreeMap<RangeKey, Arc<Vec<CertifiedCommit>>>,
    /// Committees of the epochs at work: the current one and, near its end, the next.
    pub(super) committees: BTreeMap<Epoch, Arc<EpochContext>>,
    /// Committee of the commits below the stored history.
    pub(super) committee_below: Option<Arc<EpochContext>>,
    /// The epoch of the commit after the last durable one.
    pub(super) epoch: Epoch,
    pub(super) epochs: Epochs,
    local_replies: BTreeMap<RangeKey, Reply<Result<(), LocalCommitError>>>,
    next_local: u64,
    running: BTreeMap<RangeKey, SpawnHandle>,
    verified_blocks: VerifiedBlockCache,
    /// The cause that the metric shows.
    pub(super) shown: Option<&'static str>,
    /// The cause that the log told last, and how often it may.
    pub(super) logged: Option<&'static str>,
    pub(super) progress_logged: LogLimit,
    pub(super) summary_logged: LogLimit,
    /// The last durable commit when that was last said.
    pub(super) applied_logged: CommitIndex,
    /// The log has said that the node is stuck.
    pub(super) stuck_logged: bool,
}

impl StateSync {
    /// Starts from what the store holds.
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        start: StartState,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        let epoch = start.tip.next_epoch;
        let committees = BTreeMap::from([(epoch, start.committee)]);
        mailboxes.commit_feed.begin(start.tip.commit.index);
        let core = StateSyncCore::new(config, start.tip);
        let core = if start.is_empty { core.with_empty_store() } else { core };
        Self {
            settings,
            mailboxes,
            host: CoreHost::new(core, runtime_context),
            held: BTreeMap::new(),
            committees,
            committee_below: None,
            epoch,
            epochs: Epochs { previous: start.last_commit, verified: Vec::new() },
            local_replies: BTreeMap::new(),
            next_local: 0,
            running: BTreeMap::new(),
            verified_blocks: VerifiedBlockCache::default(),
            shown: None,
            logged: None,
            progress_logged: LogLimit::default(),
            summary_logged: LogLimit::once_in(SUMMARY_INTERVAL),
            applied_logged: start.tip.commit.index,
            stuck_logged: false,
        }
    }

    fn ask_for_peer(
        &mut self,
        key: RangeKey,
        message: impl FnOnce(Reply<Result<PeerId, NoPeer>>) -> Pick + 'static,
        context: &mut Context<Self>,
    ) {
        let mut pick = self.mailboxes.pick.clone();
        let asking = async move { pick.ask(message).await };
        let finish = move |sync: &mut Self, answer: Result<_, AskError>, origin, context: &mut Context<Self>| {
            // While PeerHeights is being restarted, no peer counts as connected.
            let peer = answer.unwrap_or(Err(NoPeer::NotConnected));
            sync.feed(origin, Input::Picked { key, peer }, context);
            sync.show_progress();
        };
        self.later(asking, finish, context);
    }

    fn start_worker(&mut self, key: RangeKey, task: Task, epoch: Epoch, context: &mut Context<Self>) {
        let below = self.committee_below.as_ref().filter(|below| below.epoch() == epoch);
        let Some(committee) = self.committees.get(&epoch).or(below).cloned() else {
            // Every handover that the core knows of came with its committee.
            let reason = format!("the committee of epoch {epoch} is not known: a bug of this node");
            let missing = async move { Input::WorkerFailed { key, reason } };
            self.later(missing, |sync, input, origin, context| sync.feed(origin, input, context), context);
            return;
        };
        let (deliver, delivered) = Reply::channel();
        let cached = self.verified_blocks.start_worker(key, task.start, task.end);
        let worker = SyncWorker::new(
            key,
            task,
            committee,
            cached,
            self.mailboxes.workers.clone(),
            deliver,
            self.host.runtime_context(),
        );
        let runtime_context = self.host.runtime_context();
        let running = run_actor(worker, WORKER_MAILBOX, Heartbeat::Inputs, &runtime_context);
        let allowance = self.settings.request_timeout + CHECK_ALLOWANCE;
        let outcome = async move {
            let exit = running.watched(allowance).await;
            if exit != ExitReason::Normal {
                runtime_context.record_end(WorkerCore::NAME, &exit);
            }
            delivered.answer(WorkerCore::NAME).await.ok_or_else(|| exit.to_string())
        };
        let finish = move |sync: &mut Self, result, origin, context: &mut Context<Self>| {
            sync.running.remove(&key);
            sync.on_worker_ended(origin, key, result, context);
        };
        let handle = self.later(outcome, finish, context);
        self.running.insert(key, handle);
    }

    fn on_worker_ended(
        &mut self,
        origin: Origin,
        key: RangeKey,
        result: Result<WorkerResult, String>,
        context: &mut Context<Self>,
    ) {
        let input = match result {
            Ok(WorkerResult { verified, shortfall }) => {
                self.verified_blocks.remove_worker(key);
                if let Some(shortfall) = &shortfall {
                    metrics::shortfall(shortfall);
                }
                let is_earlier = self.host.core().is_backfilling(key);
                let summary = verified.map(|range| {
                    metrics::verified(&range.summary);
                    // The committee after an earlier epoch is known.
                    if let Some(next) = range.next_committee.filter(|_| !is_earlier) {
                        self.learn_committee(next);
                    }
                    self.held.insert(key, Arc::new(range.commits));
                    range.summary
                });
                Input::WorkerDone { key, verified: summary, shortfall }
            }
            Err(reason) => {
                metrics::worker_failed();
                self.verified_blocks.keep_for_next_worker(key);
                tracing::error!(
                    range = key.0,
                    reason,
                    "sync worker ended without a result; its range is fetched again"
                );
                Input::WorkerFailed { key, reason }
            }
        };
        self.feed(origin, input, context);
        metrics::in_flight(self.host.core().bytes_in_flight());
        self.show_progress();
    }

    /// Has a commit of the node's own consensus checked.
    fn check_local(&mut self, key: RangeKey, epoch: Epoch, context: &mut Context<Self>) {
        let commit = self.held.get(&key).cloned();
        let (mut verifier, committee) = (self.mailboxes.verify_local.clone(), self.committees.get(&epoch).cloned());
        let checking = async move {
            // Without commit or committee this incarnation has lost the offer: consensus may repeat it.
            let (commit, context) = commit.zip(committee).ok_or(LocalCommitError::Unavailable)?;
            let answer = verifier.ask(|reply| VerifyLocalCommit { context, commits: commit, reply }).await;
            answer.unwrap_or(Err(LocalCommitError::Unavailable))
        };
        let finish = move |sync: &mut Self, result: Result<_, _>, origin, context: &mut Context<Self>| {
            let end = sync.held.get(&key).and_then(|commits| commits.first()).and_then(CertifiedCommit::end_of_epoch);
            if let (Ok(_), Some(end)) = (&result, end.cloned()) {
                sync.learn_committee(end.next_committee);
            }
            sync.feed(origin, Input::LocalChecked { key, result }, context);
            sync.show_progress();
        };
        self.later(checking, finish, context);
    }

    fn write(&mut self, keys: &[RangeKey], context: &mut Context<Self>) {
        let commits: Vec<_> = keys.iter().filter_map(|key| self.held.get(key).cloned()).collect();
        // Now: of two batches, the first must arrive first.
        let executor = self.host.core().slowest_executor();
        let asked = self.mailboxes.apply.ask_now(move |reply| Apply { commits, executor, reply });
        let writing = async move {
            match asked.await {
                Ok((Ok(watermarks), _)) => Ok(watermarks.highest_synced),
                Ok((Err(error), _)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let finish = |sync: &mut Self, result, origin, context: &mut Context<Self>| {
            sync.feed(origin, Input::Written(result), context);
            sync.show_progress();
        };
        self.later(writing, finish, context);
    }

    fn publish(&mut self, keys: &[RangeKey], highest: CommitRef) {
        let commits: Vec<_> = keys.iter().filter_map(|key| self.held.remove(key)).collect();
        if let Some(last) = commits.iter().rev().find_map(|commits| commits.last()) {
            let epoch = last.commit.epoch;
            self.committees.retain(|known, _| *known >= epoch);
            self.enter_epoch(epoch + Epoch::from(last.end_of_epoch().is_some()));
        }
        self.tell_archiver(&commits, highest);
        // Only an executor takes them. Without one, the flow would last as long as the commits stay in memory.
        let flow = self.host.core().slowest_executor().map_or(Flow::NONE, |_| causality::flow());
        self.mailboxes.commit_feed.extend(commits, highest, &flow);
        self.verified_blocks.prune(highest.index);
        tracing::debug!(index = highest.index, "commits applied");
    }
}

impl Actor for StateSync {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.mailboxes.committee_subscribers.values().for_each(|subscriber| self.tell_committee(subscriber));
        if self.mailboxes.archive.is_some() {
            // A node without peers gets no message, and has its archive.
            let wake = |sync: &mut Self, (), origin, context: &mut _| sync.feed(origin, Input::Wake, context);
            self.later(std::future::ready(()), wake, context);
        }
    }
}

impl Shell for StateSync {
    type Core = StateSyncCore;

    fn host(&mut self) -> &mut CoreHost<StateSyncCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Pick { key, start, tried, hedge, next } => {
                self.ask_for_peer(key, move |reply| Pick { start, tried, hedge, next, reply }, context);
            }
            Effect::Fetch { key, peer, start, end, proof_end, epoch, max_bytes } => {
                let settings = self.settings.clone();
                let source = Source::Peer(peer);
                self.start_worker(key, Task { source, start, end, proof_end, max_bytes, settings }, epoch, context);
            }
            Effect::ListArchive { key, epoch, next, avoid } => {
                self.list_archive(key, epoch, next, avoid, context);
            }
            Effect::FetchSegment { key, segment, start, end, epoch, max_bytes } => {
                let (source, proof_end) = (Source::Archive(segment), segment.last);
                let settings = self.settings.clone();
                self.start_worker(key, Task { source, start, end, proof_end, max_bytes, settings }, epoch, context);
            }
            Effect::SegmentFault { segment, reason } => {
                metrics::segment_fault();
                tracing::error!(%segment, reason, "the archive has a wrong object, which is left out for a while; remove it");
            }
            // A lost report leaves a peer's load or score off by one until it reconnects, and its speed too low.
            Effect::Report { peer, start, outcome } => {
                let _ = self.mailboxes.report.post(Report { peer, start, outcome });
            }
            Effect::Cancel(key) => {
                // Ending the future ends the worker, and that its calls.
                if let Some(worker) = self.running.remove(&key) {
                    context.cancel_future(worker);
                }
                self.verified_blocks.remove_worker(key);
            }
            Effect::Discard(key) => drop(self.held.remove(&key)),
            Effect::Write(keys) => self.write(&keys, context),
            Effect::Publish { keys, highest } => self.publish(&keys, highest),
            Effect::Announce(index) => drop(self.mailboxes.own_height.post(OwnHeight(index))),
            Effect::FetchEpochs { key, peer, from } => self.fetch_epochs(key, peer, from, context),
            Effect::SkipEpochs { key, count } => self.skip_epochs(key, count, context),
            Effect::ReadHistory(key) => self.read_history(key, context),
            Effect::Prepend(key) => self.prepend(key, context),
            Effect::CheckLocal { key, epoch } => self.check_local(key, epoch, context),
            Effect::LocalAnswer { key, result } => {
                if let Some(reply) = self.local_replies.remove(&key) {
                    reply.send(result);
                }
            }
        }
    }
}

impl Handler<Envelope<Target>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Target>, context: &mut Context<Self>) {
        self.feed(envelope.origin, Input::Target(envelope.message.0), context);
        self.show_progress();
    }
}

impl Handler<Envelope<SubscribeCommittee>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<SubscribeCommittee>, _: &mut Context<Self>) {
        if let Some(subscriber) = self.mailboxes.committee_subscribers.get(envelope.message.subscriber) {
            self.tell_committee(subscriber);
        }
    }
}

impl Handler<Envelope<ExecutorProgress>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<ExecutorProgress>, context: &mut Context<Self>) {
        let ExecutorProgress { reader, at } = envelope.message;
        self.feed(envelope.origin, Input::Executor { reader, at }, context);
        if let Some(next) = self.host.core().slowest_executor() {
            self.mailboxes.commit_feed.taken(next);
        }
        self.show_progress();
    }
}

impl Handler<Envelope<CacheUpdate>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<CacheUpdate>, _: &mut Context<Self>) {
        let CacheUpdate { key, blocks } = envelope.message;
        self.verified_blocks.add(key, blocks);
    }
}

forward! {
    StateSync {
        FetchProgress { key, downloaded } => Input::Progress { key, downloaded },
    }
}

observe!(StateSync, Snapshot);

impl Handler<Envelope<LocalCommit>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<LocalCommit>, context: &mut Context<Self>) {
        let LocalCommit { commit, reply } = envelope.message;
        let offered = Offered {
            commit: commit.commit.reference(),
            previous: commit.commit.previous_digest,
            epoch: commit.commit.epoch,
            bytes: commit.size() as u64,
        };
        self.next_local += 1;
        let key = RangeKey::local(self.next_local);
        self.held.insert(key, Arc::new(vec![commit]));
        self.local_replies.insert(key, reply);
        self.feed(envelope.origin, Input::LocalCommit { key, commit: offered }, context);
        self.show_progress();
    }
}

impl Handler<Envelope<Stop>> for StateSync {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        // Ending the futures ends the workers: what they hold is fetched again by whoever comes after. Batches that
        // the StoreWriter has are written by it, which stops later.
        for (_, worker) in std::mem::take(&mut self.running) {
            context.cancel_future(worker);
        }
        context.stop();
        envelope.message.0.send(());
        tracing::debug!(actor = StateSyncCore::NAME, "workers ended");
    }
}
