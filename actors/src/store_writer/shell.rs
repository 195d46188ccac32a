//! The shell: runs writes off the actor thread, one by one, and answers.

use crate::store_writer::messages::{Apply, Archived, Prepend, SkipEpochs, UpdatePeers, WriteError};
use crate::store_writer::metrics;
use actix::{Actor, ActorContext, Context, Handler};
use soma_protocol::{
    Core,
    store_writer::{Effect, Input, PruneStep, Snapshot, StoreWriter as StoreWriterCore},
};
use soma_replay::Origin;
use soma_runtime::{CoreHost, Envelope, Keyed, Offload, Reply, RuntimeContext, Shell, Stop, forward, observe};
use soma_store::{Pruned, Retention, Store, StoreError, Watermarks};
use soma_types::{CertifiedCommit, CommitIndex};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a write may take before it is reported, and how often then: a hundred times what a large one takes.
const SLOW_WRITE: Duration = Duration::from_secs(30);

enum Job {
    Apply(Apply),
    SkipEpochs(SkipEpochs),
    Prepend(Prepend),
    UpdatePeers(UpdatePeers),
}

/// The actor.
pub struct StoreWriter {
    // Configuration
    store: Arc<dyn Store>,
    offload: Offload,
    retention: Retention,
    // State
    host: CoreHost<StoreWriterCore>,
    jobs: Keyed<Job>,
    stopping: Option<Reply<()>>,
}

impl StoreWriter {
    /// A writer of `store`, which keeps of the chain what `retention` says. `archives`: and what the archive lacks.
    pub fn new(
        store: Arc<dyn Store>,
        offload: Offload,
        retention: Retention,
        archives: bool,
        runtime_context: RuntimeContext,
    ) -> Self {
        let core = if archives { StoreWriterCore::with_archive() } else { StoreWriterCore::default() };
        let host = CoreHost::new(core, runtime_context);
        Self { store, offload, retention, host, jobs: Keyed::default(), stopping: None }
    }

    fn submit(&mut self, origin: Origin, job: Job, context: &mut Context<Self>) {
        if self.stopping.is_some() {
            return;
        }
        let job = self.jobs.insert(job);
        self.feed(origin, Input::Submit { job }, context);
    }

    /// Writes off the thread.
    fn writing<R: Send + 'static, W>(&self, write: W) -> impl Future<Output = Result<R, WriteError>> + use<R, W>
    where
        W: FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    {
        let (store, offload) = (self.store.clone(), self.offload.clone());
        async move {
            let mut writing = pin!(offload.run(move || write(&*store)));
            let mut waited = Duration::ZERO;
            let written = loop {
                match timeout(SLOW_WRITE, &mut writing).await {
                    Ok(written) => break written,
                    // A thread that waits for a disk cannot be taken over: another would wait for the same disk.
                    Err(_) => {
                        waited += SLOW_WRITE;
                        metrics::slow();
                        tracing::error!(?waited, "the disk does not answer; look whether it works");
                    }
                }
            };
            match written {
                Ok(result) => result.map_err(WriteError::from),
                Err(exit) => Err(WriteError::Aborted(exit.to_string())),
            }
        }
    }

    /// Runs a write off the thread; answers first, then feeds what the answer tells, and frees the place.
    fn run<R: Send + 'static>(
        &mut self,
        job: u64,
        write: impl FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
        answer: impl FnOnce(Result<R, WriteError>) -> Option<Input> + 'static,
        context: &mut Context<Self>,
    ) {
        let running = self.writing(write);
        let finish =
            move |writer: &mut Self, result: Result<R, WriteError>, origin: Origin, context: &mut Context<Self>| {
                let error = result.as_ref().err().map(ToString::to_string);
                if let Some(error) = &error {
                    metrics::failed();
                    tracing::error!(%error, "write failed; nothing of it counts as stored");
                }
                if let Some(news) = answer(result) {
                    writer.feed(origin.clone(), news, context);
                }
                writer.feed(origin, Input::Done { job, error }, context);
                writer.stop_when_idle(context);
            };
        self.later(running, finish, context);
    }

    /// Commits are being stored, so others may leave the window. A node that stops leaves them to its next start.
    fn on_stored(&mut self, executor: Option<CommitIndex>, origin: Origin, context: &mut Context<Self>) {
        if self.stopping.is_none() {
            self.feed(origin, Input::Stored { executor }, context);
        }
    }

    /// Takes one step of pruning off the thread.
    fn prune(&mut self, executor: Option<CommitIndex>, archived: Option<CommitIndex>, context: &mut Context<Self>) {
        let retention = self.retention;
        let running = self.writing(move |store| {
            let lowest = match executor {
                Some(next) => retention.lowest_kept_for(store, next)?,
                None => retention.lowest_kept(store)?,
            };
            store.prune(archived.map_or(lowest, |first| lowest.min(first)))
        });
        let finish =
            move |writer: &mut Self, result: Result<Pruned, WriteError>, origin, context: &mut Context<Self>| {
                // A node that stops takes no further step: its next start goes on.
                let is_last = writer.stopping.is_some();
                let step = |pruned: Pruned| PruneStep {
                    lowest_available: pruned.watermarks.lowest_available,
                    is_complete: pruned.is_complete || is_last,
                };
                let result = result.map(step).map_err(|error| error.to_string());
                match &result {
                    Ok(step) => metrics::pruned(step.lowest_available),
                    Err(error) => {
                        metrics::failed();
                        tracing::error!(%error, "pruning failed; the next write tries it again");
                    }
                }
                writer.feed(origin, Input::Pruned { result }, context);
                writer.stop_when_idle(context);
            };
        self.later(running, finish, context);
    }

    fn stop_when_idle(&mut self, context: &mut Context<Self>) {
        if self.host.snapshot().queued == 0
            && let Some(reply) = self.stopping.take()
        {
            context.stop();
            reply.send(());
        }
    }
}

/// Answers a write that moves the beginning of the stored chain, and tells the core where it is.
fn tell_beginning(
    result: Result<Watermarks, WriteError>,
    reply: Reply<Result<Watermarks, WriteError>>,
) -> Option<Input> {
    let begins = result.as_ref().ok().map(|watermarks| watermarks.lowest_available);
    reply.send(result);
    begins.map(|lowest_available| Input::Begins { lowest_available })
}

impl Actor for StoreWriter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let reading = self.writing(|store| store.watermarks());
        let finish = |writer: &mut Self, read: Result<Watermarks, WriteError>, origin, context: &mut Context<Self>| {
            // A store that cannot be read shows it with the next write.
            if let Ok(Watermarks { highest_synced, lowest_available }) = read {
                metrics::found(highest_synced.index);
                writer.feed(origin, Input::Begins { lowest_available }, context);
            }
        };
        self.later(reading, finish, context);
    }
}

impl Shell for StoreWriter {
    type Core = StoreWriterCore;

    fn host(&mut self) -> &mut CoreHost<StoreWriterCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        let clock = self.host.clock();
        match effect {
            Effect::Run(job) => match self.jobs.remove(job) {
                Some(Job::Apply(Apply { commits, executor, reply })) => {
                    let write = move |store: &dyn Store| {
                        let stored = store.watermarks()?;
                        // A batch that is asked for again, because whoever asked did not live to hear the answer,
                        // may be stored in part: what is there counts as written.
                        let ranges = commits.iter().flat_map(|range| range.iter());
                        let batch: Vec<&CertifiedCommit> =
                            ranges.filter(|certified| certified.commit.index > stored.highest_synced.index).collect();
                        if batch.is_empty() {
                            return Ok(stored);
                        }
                        let begun = clock.monotonic();
                        let watermarks = store.apply_refs(&batch)?;
                        let took = clock.monotonic().saturating_sub(begun);
                        metrics::applied(batch.len(), watermarks.highest_synced.index, took);
                        Ok(watermarks)
                    };
                    let answer = |result| {
                        reply.send(result);
                        None
                    };
                    self.run(job, write, answer, context);
                    if !self.retention.keeps_all() {
                        self.later(std::future::ready(executor), Self::on_stored, context);
                    }
                }
                Some(Job::SkipEpochs(SkipEpochs { ended, reply })) => {
                    let write = move |store: &dyn Store| {
                        let stored = store.watermarks()?;
                        // After a lost answer, epochs may be skipped already.
                        let later =
                            ended.partition_point(|ended| ended.last_commit.index <= stored.highest_synced.index);
                        if later == ended.len() { Ok(stored) } else { store.skip_epochs(&ended[later..]) }
                    };
                    self.run(job, write, |result| tell_beginning(result, reply), context);
                }
                Some(Job::Prepend(Prepend { commits, reply })) => {
                    let write = move |store: &dyn Store| {
                        let stored = store.watermarks()?;
                        // After a lost answer, some or all of them may be stored already.
                        let lower = commits.iter().filter(|lower| lower.commit.index < stored.lowest_available);
                        let batch: Vec<&CertifiedCommit> = lower.collect();
                        if batch.is_empty() {
                            return Ok(stored);
                        }
                        let begun = clock.monotonic();
                        let watermarks = store.prepend(&batch)?;
                        let took = clock.monotonic().saturating_sub(begun);
                        metrics::prepended(batch.len(), watermarks.lowest_available, took);
                        Ok(watermarks)
                    };
                    self.run(job, write, |result| tell_beginning(result, reply), context);
                }
                Some(Job::UpdatePeers(UpdatePeers { list, put, remove })) => {
                    self.run(job, move |store| store.update_peers(list, &put, &remove), |_| None, context);
                }
                None => {}
            },
            Effect::Prune { executor, archived } => self.prune(executor, archived, context),
            Effect::Refuse(job) => {
                let refused = self.jobs.remove(job);
                if let Some(
                    Job::Apply(Apply { reply, .. })
                    | Job::SkipEpochs(SkipEpochs { reply, .. })
                    | Job::Prepend(Prepend { reply, .. }),
                ) = refused
                {
                    reply.send(Err(WriteError::Busy));
                }
            }
        }
    }
}

impl Handler<Envelope<Apply>> for StoreWriter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Apply>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::Apply(envelope.message), context);
    }
}

impl Handler<Envelope<SkipEpochs>> for StoreWriter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<SkipEpochs>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::SkipEpochs(envelope.message), context);
    }
}

impl Handler<Envelope<Prepend>> for StoreWriter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Prepend>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::Prepend(envelope.message), context);
    }
}

impl Handler<Envelope<UpdatePeers>> for StoreWriter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<UpdatePeers>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::UpdatePeers(envelope.message), context);
    }
}

forward! {
    StoreWriter {
        Archived { next } => Input::Archived { next },
    }
}

observe!(StoreWriter, Snapshot);

impl Handler<Envelope<Stop>> for StoreWriter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        tracing::debug!(actor = StoreWriterCore::NAME, "finishing what is queued");
        self.stopping = Some(envelope.message.0);
        self.stop_when_idle(context);
    }
}
