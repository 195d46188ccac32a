//! The shell: reads the store and the archive off the actor's thread, and answers.

use super::{
    messages::{CommitsDurable, ListSegments, ReadError, ReadSegment},
    metrics,
};
use crate::store_writer::messages::Archived;
use actix::{Actor, Context, Handler};
use soma_archive::{ArchiveError, Segment, SegmentStorage, first_missing, next_segment};
use soma_protocol::{
    archiver::{Archiver as ArchiverCore, Config, Effect, Input, Snapshot, Written},
    state_sync::{ArchiveRoute, MAX_ROUTE},
};
use soma_replay::Origin;
use soma_runtime::{
    CoreHost, Envelope, ExitReason, IoTasks, Keyed, LogLimit, Offload, OrderedSender, Reply, RuntimeContext, Shell,
    forward, observe, stop_at_once,
};
use soma_store::{Store, StoreError};
use soma_types::{ChainId, CommitIndex, Epoch, SegmentName, SegmentRoute};
use std::{collections::BTreeSet, future::Future, sync::Arc};

/// A read with its asker.
enum Job {
    List(ListSegments),
    Read(ReadSegment),
}

/// What the Archiver works with.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) chain: ChainId,
    pub(crate) storage: Arc<dyn SegmentStorage>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
}

/// The actor.
pub struct Archiver {
    // Configuration
    access: Access,
    // Mailboxes
    archived: OrderedSender<Archived>,
    // State
    host: CoreHost<ArchiverCore>,
    jobs: Keyed<Job>,
    failure_logged: LogLimit,
    is_failing: bool,
}

impl Archiver {
    /// An Archiver of a node whose last durable commit is `highest`.
    pub(crate) fn new(
        config: Config,
        highest: CommitIndex,
        access: Access,
        archived: OrderedSender<Archived>,
        runtime_context: RuntimeContext,
    ) -> Self {
        Self {
            access,
            archived,
            host: CoreHost::new(ArchiverCore::new(config, highest), runtime_context),
            jobs: Keyed::default(),
            failure_logged: LogLimit::default(),
            is_failing: false,
        }
    }

    /// Runs an operation of the archive on the I/O runtime, and feeds its result.
    fn run<R, T>(
        &mut self,
        operation: &'static str,
        task: T,
        input: impl FnOnce(Result<R, String>) -> Input + 'static,
        context: &mut Context<Self>,
    ) where
        R: Send + 'static,
        T: Future<Output = Result<R, ArchiveError>> + Send + 'static,
    {
        let running = self.access.io.spawn(task);
        let finish = move |archiver: &mut Self, result: Result<Result<R, _>, ExitReason>, origin, context: &mut _| {
            let result = match result {
                Ok(result) => result.map_err(|error: ArchiveError| error.to_string()),
                Err(exit) => Err(format!("the operation {exit}")),
            };
            archiver.log(operation, result.as_ref().err());
            archiver.feed(origin, input(result), context);
        };
        self.later(running, finish, context);
    }

    /// Tells the operator of failures now and then, and of the end of failures.
    fn log(&mut self, operation: &'static str, error: Option<&String>) {
        let place = self.access.storage.place();
        let Some(error) = error else {
            if std::mem::take(&mut self.is_failing) {
                tracing::info!(archive = place, "the archive can be used again");
            }
            return;
        };
        metrics::failed(operation);
        self.is_failing = true;
        if let Some(left_out) = self.failure_logged.admit(self.host.now().monotonic) {
            tracing::warn!(archive = place, operation, %error, left_out, "archive failed; the node goes on without it");
        }
    }

    /// Finds the first stored commit that the archive lacks.
    fn locate(&mut self, context: &mut Context<Self>) {
        let access = self.access.clone();
        let locating = async move {
            let lowest = access.read(|store| Ok(store.watermarks()?.lowest_available)).await?;
            let epoch_of = |index| access.read(move |store| Ok(store.commit(index)?.map(|commit| commit.epoch)));
            first_missing(&*access.storage, access.chain, lowest, epoch_of).await
        };
        self.run("list", locating, |result| Input::Located { result }, context);
    }

    /// Writes the segment that begins with `first`, if it is complete.
    fn write(&mut self, first: CommitIndex, context: &mut Context<Self>) {
        let access = self.access.clone();
        let writing = async move {
            let Some(segment) = access.read(move |store| next_segment(store, first, false)).await? else {
                return Ok(Written::NotYet);
            };
            let (last, bytes) = (segment.last(), segment.size() as u64);
            let is_new = access.storage.put(&segment).await?;
            if is_new {
                metrics::written(bytes);
            }
            Ok(Written::Segment { last, bytes, is_new })
        };
        self.run("write", writing, |result| Input::Written { result }, context);
    }

    fn read(&mut self, job: u64, context: &mut Context<Self>) {
        let access = self.access.clone();
        match self.jobs.remove(job) {
            Some(Job::List(ListSegments { epoch, next, avoid, reply })) => {
                let listing = async move { access.route(epoch, next, avoid.into_iter().collect()).await };
                self.answer("list", job, listing, reply, |_| 0, context);
            }
            Some(Job::Read(ReadSegment { name, reply })) => {
                let reading = async move { access.storage.get(&name).await };
                let size = |segment: &Segment| {
                    let bytes = segment.size() as u64;
                    metrics::read(bytes);
                    bytes
                };
                self.answer("read", job, reading, reply, size, context);
            }
            None => {}
        }
    }

    /// Runs a read, answers its asker, and feeds its end.
    fn answer<R: Send + 'static>(
        &mut self,
        operation: &'static str,
        job: u64,
        task: impl Future<Output = Result<R, ArchiveError>> + Send + 'static,
        reply: Reply<Result<R, ReadError>>,
        size: impl FnOnce(&R) -> u64 + 'static,
        context: &mut Context<Self>,
    ) {
        let running = self.access.io.spawn(task);
        let finish = move |archiver: &mut Self, result: Result<Result<R, _>, ExitReason>, origin, context: &mut _| {
            let result = match result {
                Ok(result) => result.map_err(|error: ArchiveError| match error.is_of_object() {
                    true => ReadError::Object(error.to_string()),
                    false => ReadError::Unavailable(error.to_string()),
                }),
                Err(exit) => Err(ReadError::Unavailable(format!("the operation {exit}"))),
            };
            let error = result.as_ref().err().map(ToString::to_string);
            archiver.log(operation, error.as_ref());
            let bytes = result.as_ref().map_or(0, size);
            reply.send(result);
            archiver.feed(origin, Input::ReadDone { job, bytes, error }, context);
        };
        self.later(running, finish, context);
    }

    fn submit(&mut self, origin: Origin, job: Job, context: &mut Context<Self>) {
        let job = self.jobs.insert(job);
        self.feed(origin, Input::Read { job }, context);
    }
}

impl Access {
    /// Reads the store off the I/O threads.
    fn read<R, F>(&self, read: F) -> impl Future<Output = Result<R, StoreError>> + Send + use<R, F>
    where
        R: Send + 'static,
        F: FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    {
        let (store, offload) = (self.store.clone(), self.offload.clone());
        let place = store.place();
        let aborted = move |exit: ExitReason| StoreError::Io {
            path: place.to_string().into(),
            doing: "read commits for the archive",
            source: std::io::Error::other(exit.to_string()),
        };
        async move { offload.run(move || read(&*store)).await.map_err(aborted)? }
    }

    /// The segments of an epoch that lead on from a commit.
    async fn route(
        &self,
        epoch: Epoch,
        next: CommitIndex,
        avoid: BTreeSet<SegmentName>,
    ) -> Result<ArchiveRoute, ArchiveError> {
        let listed = self.storage.segments(self.chain, epoch).await?;
        let listed: Vec<_> = listed.into_iter().filter(|(name, _)| !avoid.contains(name)).collect();
        let route = SegmentRoute::new(listed.iter().map(|(name, _)| *name), next);
        let size = |name: SegmentName| {
            let at = listed.partition_point(|(listed, _)| *listed < name);
            listed.get(at).map(|(_, bytes)| (name, *bytes))
        };
        let has_gap = route.names.is_empty() && route.has_later;
        Ok(ArchiveRoute { segments: route.names.into_iter().take(MAX_ROUTE).filter_map(size).collect(), has_gap })
    }
}

impl Actor for Archiver {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        metrics::begin();
        // The core has something to do before the first message.
        self.arm(context);
    }
}

impl Shell for Archiver {
    type Core = ArchiverCore;

    fn host(&mut self) -> &mut CoreHost<ArchiverCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Locate => self.locate(context),
            Effect::Write { first } => self.write(first, context),
            Effect::Archived { next } => {
                metrics::archived(next);
                // The next message repeats what gets lost.
                let _ = self.archived.post(Archived { next });
            }
            Effect::Run(job) => self.read(job, context),
            Effect::Refuse(job) => {
                let busy = || ReadError::Unavailable("too many reads of the archive wait".into());
                match self.jobs.remove(job) {
                    Some(Job::List(ListSegments { reply, .. })) => reply.send(Err(busy())),
                    Some(Job::Read(ReadSegment { reply, .. })) => reply.send(Err(busy())),
                    None => {}
                }
            }
        }
    }
}

forward! {
    Archiver {
        CommitsDurable { highest, bytes, ended } => Input::Durable { highest, bytes, ended },
    }
}

impl Handler<Envelope<ListSegments>> for Archiver {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<ListSegments>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::List(envelope.message), context);
    }
}

impl Handler<Envelope<ReadSegment>> for Archiver {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<ReadSegment>, context: &mut Context<Self>) {
        self.submit(envelope.origin, Job::Read(envelope.message), context);
    }
}

observe!(Archiver, Snapshot);
// A segment on its way is written by the next start: an archive takes each name once.
stop_at_once!(Archiver);
