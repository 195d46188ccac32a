//! The executor's stream.

use crate::handle::Shared;
use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    ready,
    stream::{self, BoxStream},
};
use soma_actor_state_sync::Latest;
use soma_messages::{Mailbox, state_sync::ExecutorAt};
use soma_store::{CorruptReason, Place, Record, Store, StoreError};
use soma_supervision::{ExitReason, IoTasks, Offload};
use soma_types::{CommitIndex, CommittedSubDag};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    vec,
};
use tokio::{sync::watch, task::coop::consume_budget};
use tokio_util::sync::CancellationToken;

/// Bytes of blocks that are read from the store at once.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Commits after which StateSync is told how far the executor has got: an executor may always lag by as much.
pub(crate) const TELL_EVERY: CommitIndex = 64;

/// The next commits, or why there are none.
type Batch = Result<Vec<Arc<CommittedSubDag>>, StoreError>;

/// Commits with their blocks, in order, each once, without gaps. Ends with the system, or after an error of the store.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime. Nothing runs between the node and the
/// executor: what is at hand is taken from there by whoever asks.
pub struct SyncedCommits {
    /// Index of the commit that the executor asks for next, when it has done with all before.
    next: CommitIndex,
    /// What has been taken over and not been given yet.
    held: vec::IntoIter<Arc<CommittedSubDag>>,
    /// What comes after that.
    batches: BoxStream<'static, Batch>,
    /// What StateSync is told of `next`.
    told: watch::Sender<CommitIndex>,
}

impl fmt::Debug for SyncedCommits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is in the commits, which is megabytes of users' transactions.
        f.debug_struct("SyncedCommits")
            .field("next", &self.next)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl SyncedCommits {
    pub(crate) fn start(shared: &Arc<Shared>, from: CommitIndex) -> Self {
        let next = from.max(1);
        let reader = Reader {
            next,
            batch_commits: shared.channel_capacity,
            latest: shared.published.subscribe(),
            ahead: None,
            store: shared.store.clone(),
            offload: shared.offload.clone(),
            io: shared.io.clone(),
        };
        let (told, telling) = watch::channel(next);
        let number = shared.next_reader.fetch_add(1, Ordering::Relaxed);
        shared.io.detach(tell(shared.executor_at.clone(), number, telling, shared.closing.clone()));
        let batches = reader.batches().take_until(shared.closing.clone().cancelled_owned()).boxed();
        Self { next, held: Vec::new().into_iter(), batches, told }
    }

    /// The next commit; `None` when the system has stopped.
    pub async fn next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        StreamExt::next(self).await
    }

    /// The next commit, for threads outside any async runtime: it blocks the thread until there is one.
    pub fn blocking_next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        futures::executor::block_on(self.next())
    }
}

impl Stream for SyncedCommits {
    type Item = Result<Arc<CommittedSubDag>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.next;
        self.told.send_if_modified(|told| {
            let far = next >= *told + TELL_EVERY;
            if far {
                *told = next;
            }
            far
        });
        loop {
            if let Some(commit) = self.held.next() {
                self.next += 1;
                return Poll::Ready(Some(Ok(commit)));
            }
            match ready!(self.batches.poll_next_unpin(context)) {
                Some(Ok(batch)) => self.held = batch.into_iter(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Tells StateSync how far the executor has got, to the end of its stream or of the system. One that is being restarted
/// waits for no executor until it is told.
async fn tell(
    mut state_sync: Mailbox<ExecutorAt>,
    reader: u64,
    mut told: watch::Receiver<CommitIndex>,
    closing: CancellationToken,
) {
    let telling = async {
        loop {
            let next = *told.borrow_and_update();
            let _ = state_sync.deliver(ExecutorAt { reader, next: Some(next) }).await;
            if told.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = telling => {}
    }
    let _ = state_sync.deliver(ExecutorAt { reader, next: None }).await;
}

/// Follows what is published, and fills every gap from the store.
struct Reader {
    next: CommitIndex,
    /// Most commits at hand that are taken over at once.
    batch_commits: usize,
    latest: watch::Receiver<Latest>,
    /// What is being read from the store while the executor is busy with what was read before.
    ahead: Option<BoxFuture<'static, Option<Batch>>>,
    store: Arc<dyn Store>,
    offload: Offload,
    io: IoTasks,
}

impl Reader {
    /// Batch after batch, to the end of the system; an error is the last.
    fn batches(self) -> impl Stream<Item = Batch> {
        stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            let batch = reader.batch().await?;
            let rest = batch.is_ok().then_some(reader);
            Some((batch, rest))
        })
    }

    /// The next commits, at least one; `None` when there will be no more.
    async fn batch(&mut self) -> Option<Batch> {
        // While all is at hand nothing else makes an executor's task let others have their turn.
        consume_budget().await;
        loop {
            if let Some(reading) = self.ahead.take() {
                let batch = reading.await?;
                self.next += batch.as_ref().map_or(0, Vec::len) as CommitIndex;
                self.ahead = self.missed().map(|highest| self.read_store(highest));
                return Some(batch);
            }
            let at_hand = self.latest.borrow_and_update().holding(self.next);
            if let Some(commits) = at_hand {
                let first = commits.partition_point(|commit| commit.commit.index < self.next);
                let taken = commits[first..].iter().take(self.batch_commits);
                let batch: Vec<_> = taken.map(|commit| Arc::new(commit.sub_dag())).collect();
                self.next += batch.len() as CommitIndex;
                return Some(Ok(batch));
            }
            if let Some(highest) = self.missed() {
                self.ahead = Some(self.read_store(highest));
            } else if self.latest.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The highest durable commit, if the next one is not at hand any more.
    fn missed(&self) -> Option<CommitIndex> {
        let latest = self.latest.borrow();
        (self.next <= latest.highest() && latest.holding(self.next).is_none()).then(|| latest.highest())
    }

    /// Reads the next commits, up to `highest`; begins at once. `None` if the system ends meanwhile.
    fn read_store(&self, highest: CommitIndex) -> BoxFuture<'static, Option<Batch>> {
        let (store, offload, first) = (self.store.clone(), self.offload.clone(), self.next);
        let place = self.store.place();
        let reading = move || {
            let commits = store.sub_dags(first..=highest, READ_AHEAD_BYTES)?;
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
        read.boxed()
    }
}

/// A commit that must be there is not.
fn missing(place: Place, index: CommitIndex) -> StoreError {
    StoreError::Corrupt { place, record: Record::Commit(index), reason: CorruptReason::Missing }
}
