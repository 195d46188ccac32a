//! The executor's stream.

use crate::shared::Shared;
use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use soma_actors::state_sync::DurableHead;
use soma_actors::state_sync::messages::ExecutorProgress;
use soma_protocol::state_sync::ExecutorAt;
use soma_replay::{FLOW_TARGET, Flow};
use soma_runtime::Mailbox;
use soma_runtime::{Clock, ExitReason, IoTasks, Offload};
use soma_store::{CorruptReason, Place, Record, Store, StoreError};
use soma_types::{CommitIndex, CommittedSubDag};
use std::{
    fmt,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
    vec,
};
use tokio::{sync::watch, task::coop::consume_budget};
use tokio_util::sync::CancellationToken;
use tracing::debug_span;

/// Bytes of blocks that are read from the store at once.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Commits between two reports of the executor's progress: an executor may always lag by as much.
pub(crate) const TELL_EVERY: CommitIndex = 64;

/// Bytes of blocks between two reports of the executor's progress: how closely StateSync knows what is left in memory.
const TELL_BYTES: usize = 1 << 20;

/// Time after which a slow executor's progress is reported to StateSync.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// A span in the flow that made commits durable says that an executor takes them.
fn executor_takes(batch: &[Arc<CommittedSubDag>], flow: &Flow) {
    if let Some(_entered) = flow.enter() {
        let [first, highest] = [batch.first(), batch.last()].map(|commit| commit.map(|commit| commit.commit_ref.index));
        drop(debug_span!(target: FLOW_TARGET, "executor takes", first, highest));
    }
}

/// The next commits, or why there are none.
type Batch = Result<Vec<Arc<CommittedSubDag>>, StoreError>;

/// An item of the reader.
enum Read {
    Commits(Vec<Arc<CommittedSubDag>>),
    /// The first commit that the node has.
    Begins(CommitIndex),
}

/// Commits with their blocks, in order, each once, without gaps. Ends with the system, or after an error of the store,
/// which is its last item.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime. Nothing runs between the node and the
/// executor: what is at hand is taken from there by the reader itself.
pub struct SyncedCommits {
    /// Index of the commit that the executor asks for next, when it has done with all before.
    next: CommitIndex,
    /// Commits taken over and not given yet.
    held: vec::IntoIter<Arc<CommittedSubDag>>,
    /// What comes after that.
    batches: BoxStream<'static, Result<Read, StoreError>>,
    /// Progress reports to StateSync; none of an observer.
    progress: Option<ProgressTeller>,
}

impl fmt::Debug for SyncedCommits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the commits, which are megabytes of users' transactions.
        f.debug_struct("SyncedCommits")
            .field("next", &self.next)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl SyncedCommits {
    /// A stream that the node waits for.
    pub(crate) fn for_executor(shared: &Arc<Shared>, from: CommitIndex) -> Self {
        let mut stream = Self::read(shared, from, true);
        stream.progress = Some(ProgressTeller::start(shared, stream.next));
        stream
    }

    /// A stream that the node does not wait for.
    pub(crate) fn for_observer(shared: &Arc<Shared>, from: CommitIndex) -> Self {
        Self::read(shared, from, false)
    }

    fn read(shared: &Arc<Shared>, from: CommitIndex, for_executor: bool) -> Self {
        let next = from.max(1);
        let reader = Reader {
            next: Some(next),
            begins: from == 0,
            for_executor,
            batch_commits: shared.channel_capacity,
            latest: shared.commit_feed.subscribe(),
            ahead: None,
            store: shared.store.clone(),
            offload: shared.offload.clone(),
            io: shared.io.clone(),
        };
        let batches = reader.batches().take_until(shared.closing.clone().cancelled_owned()).boxed();
        Self { next, held: Vec::new().into_iter(), batches, progress: None }
    }

    /// The next commit; `None` when the system has stopped.
    pub async fn next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        StreamExt::next(self).await
    }

    /// The next commit, for threads outside any async runtime: it blocks the thread until there is one.
    ///
    /// On a thread of an async runtime it works, too, but holds up every other task of that thread meanwhile; with a
    /// runtime of one thread for ever, if what it waits for runs there. Use [`next`](Self::next) there.
    pub fn blocking_next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        futures::executor::block_on(self.next())
    }
}

impl Stream for SyncedCommits {
    type Item = Result<Arc<CommittedSubDag>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(commit) = this.held.next() {
                if let Some(progress) = &mut this.progress {
                    progress.tell_now_and_then(this.next, &commit);
                }
                this.next = this.next.saturating_add(1);
                return Poll::Ready(Some(Ok(commit)));
            }
            match this.batches.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(Read::Commits(batch)))) => this.held = batch.into_iter(),
                Poll::Ready(Some(Ok(Read::Begins(next)))) => this.next = next,
                Poll::Ready(Some(Err(error))) => {
                    if let Some(progress) = &mut this.progress {
                        progress.tell(ExecutorAt::Failed { next: this.next, reason: error.to_string() });
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    // It waits, and has done with all before.
                    if let Some(progress) = &mut this.progress {
                        progress.tell(ExecutorAt::Next(this.next));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Tells StateSync how far an executor has got: exactly when it waits, and now and then while it works.
struct ProgressTeller {
    told: watch::Sender<ExecutorAt>,
    told_at: Duration,
    /// Bytes of the blocks given since then.
    bytes: usize,
    clock: Clock,
}

impl ProgressTeller {
    fn start(shared: &Arc<Shared>, next: CommitIndex) -> Self {
        let (told, telling) = watch::channel(ExecutorAt::Next(next));
        let number = shared.next_reader.fetch_add(1, Ordering::Relaxed);
        shared.io.detach(tell(shared.executor_at.clone(), number, telling, shared.closing.clone()));
        Self { told, told_at: shared.clock.monotonic(), bytes: 0, clock: shared.clock }
    }

    fn tell(&mut self, at: ExecutorAt) {
        let is_new = self.told.send_if_modified(|told| {
            let is_new = *told != at;
            *told = at;
            is_new
        });
        if is_new {
            (self.told_at, self.bytes) = (self.clock.monotonic(), 0);
        }
    }

    /// Tells if it was long ago, in commits, bytes or time, and gives `commit`, which is next.
    fn tell_now_and_then(&mut self, next: CommitIndex, commit: &CommittedSubDag) {
        let is_far = match &*self.told.borrow() {
            ExecutorAt::Next(told) => next >= told.saturating_add(TELL_EVERY),
            _ => true,
        };
        if is_far || self.bytes >= TELL_BYTES || self.clock.monotonic() >= self.told_at + TELL_INTERVAL {
            self.tell(ExecutorAt::Next(next));
        }
        self.bytes += commit.blocks.iter().map(|block| block.bytes().len()).sum::<usize>();
    }
}

/// Tells StateSync how far the executor has got, to the end of its stream or of the system. One that is being restarted
/// waits for no executor until it is told.
async fn tell(
    mut state_sync: Mailbox<ExecutorProgress>,
    reader: u64,
    mut told: watch::Receiver<ExecutorAt>,
    closing: CancellationToken,
) {
    let telling = async {
        loop {
            let at = told.borrow_and_update().clone();
            let has_failed = matches!(at, ExecutorAt::Failed { .. });
            let _ = state_sync.deliver(ExecutorProgress { reader, at }).await;
            if has_failed || told.changed().await.is_err() {
                return has_failed;
            }
        }
    };
    let has_failed = tokio::select! {
        biased;
        () = closing.cancelled() => false,
        has_failed = telling => has_failed,
    };
    if !has_failed {
        let _ = state_sync.deliver(ExecutorProgress { reader, at: ExecutorAt::Ended }).await;
    }
}

/// Follows published commits, and fills every gap from the store.
struct Reader {
    /// `None` behind the last index that there can be.
    next: Option<CommitIndex>,
    /// Nothing was read, and the first commit is the first that the node has.
    begins: bool,
    for_executor: bool,
    /// Maximum recent commits that are taken over at once.
    batch_commits: usize,
    latest: watch::Receiver<DurableHead>,
    /// The next read of the store, while the executor is busy with the last one.
    ahead: Option<BoxFuture<'static, Option<Batch>>>,
    store: watch::Receiver<Option<Arc<dyn Store>>>,
    offload: Offload,
    io: IoTasks,
}

impl Reader {
    /// Batch after batch, to the end of the system; an error is the last.
    fn batches(self) -> impl Stream<Item = Result<Read, StoreError>> {
        stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            let read = match reader.batch().await? {
                Err(StoreError::Pruned { lowest, .. }) if reader.begins => {
                    (reader.next, reader.ahead) = (Some(lowest), None);
                    Ok(Read::Begins(lowest))
                }
                batch => {
                    reader.begins = false;
                    batch.map(Read::Commits)
                }
            };
            let rest = read.is_ok().then_some(reader);
            Some((read, rest))
        })
    }

    /// The next commits, at least one; `None` after the last.
    async fn batch(&mut self) -> Option<Batch> {
        // With all commits in memory, nothing else makes an executor's task yield.
        consume_budget().await;
        loop {
            let next = self.next?;
            if let Some(reading) = self.ahead.take() {
                let batch = reading.await?;
                self.advance(batch.as_ref().map_or(0, Vec::len));
                self.ahead = self.missed().and_then(|range| self.read_store(range));
                return Some(batch);
            }
            let at_hand = self.latest.borrow_and_update().holding_with_flow(next);
            if let Some((commits, flow)) = at_hand {
                let first = commits.partition_point(|commit| commit.commit.index < next);
                let taken = commits[first..].iter().take(self.batch_commits);
                let batch: Vec<_> = taken.map(|commit| Arc::new(commit.sub_dag())).collect();
                self.advance(batch.len());
                if self.for_executor {
                    executor_takes(&batch, &flow);
                }
                return Some(Ok(batch));
            }
            if let Some(range) = self.missed() {
                // Without a store the system has stopped.
                self.ahead = Some(self.read_store(range)?);
            } else if self.latest.changed().await.is_err() {
                return None;
            }
        }
    }

    fn advance(&mut self, commits: usize) {
        let commits = CommitIndex::try_from(commits).ok();
        self.next = self.next.zip(commits).and_then(|(next, commits)| next.checked_add(commits));
    }

    /// The durable commits from the next one on, if they are no longer in memory.
    fn missed(&self) -> Option<RangeInclusive<CommitIndex>> {
        let (next, latest) = (self.next?, self.latest.borrow());
        (next <= latest.highest() && latest.holding(next).is_none()).then(|| next..=latest.highest())
    }

    /// Reads the first commits of the range; begins at once. `None` if the system ends meanwhile, or has ended.
    fn read_store(&self, range: RangeInclusive<CommitIndex>) -> Option<BoxFuture<'static, Option<Batch>>> {
        let (store, offload, first) = (self.store.borrow().clone()?, self.offload.clone(), *range.start());
        let place = store.place();
        let begins = self.begins;
        let reading = move || {
            if begins {
                // Backfill stores earlier commits, which are not where this node began.
                let lowest = store.began_at()?;
                if first < lowest {
                    return Err(StoreError::Pruned { place: store.place(), index: first, lowest });
                }
            }
            let commits = store.sub_dags(range, READ_AHEAD_BYTES)?;
            if commits.is_empty() {
                return Err(missing(store.place(), first));
            }
            Ok(commits.into_iter().map(Arc::new).collect())
        };
        let reading = self.io.spawn(async move { offload.run(reading).await });
        let read = async move {
            match reading.await.and_then(|read| read) {
                Ok(batch) => Some(batch),
                Err(ExitReason::Cancelled) => None,
                // Only a panic while decoding.
                Err(_) => Some(Err(missing(place, first))),
            }
        };
        Some(read.boxed())
    }
}

/// A commit that must be there is not.
fn missing(place: Place, index: CommitIndex) -> StoreError {
    StoreError::Corrupt { place, record: Record::Commit(index), reason: CorruptReason::Missing }
}
