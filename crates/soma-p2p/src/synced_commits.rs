//! The executor's stream.

use crate::handle::Shared;
use futures::{Stream, StreamExt, ready};
use soma_actor_state_sync::Latest;
use soma_messages::{Mailbox, state_sync::ExecutorAt};
use soma_store::{CorruptReason, Record, Store, StoreError};
use soma_supervision::Offload;
use soma_types::{CommitIndex, CommittedSubDag};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    vec,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of blocks that are read from the store at once.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Commits after which StateSync is told how far the executor has got: an executor may always lag by as much.
pub(crate) const TELL_EVERY: CommitIndex = 64;

/// What waits for an executor: some commits at once, so that it and the reader do not wake each other for every one.
type Batch = Result<Vec<Arc<CommittedSubDag>>, StoreError>;

/// Commits with their blocks, in order, each once, without gaps. Ends with the system, or after an error of the store.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime.
pub struct SyncedCommits {
    receiver: mpsc::Receiver<Batch>,
    /// What has been received and not been given yet.
    batch: vec::IntoIter<Arc<CommittedSubDag>>,
}

impl fmt::Debug for SyncedCommits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is in the commits, which is megabytes of users' transactions.
        f.debug_struct("SyncedCommits").field("received", &self.batch.len()).finish_non_exhaustive()
    }
}

impl SyncedCommits {
    pub(crate) fn start(shared: &Arc<Shared>, from: CommitIndex) -> Self {
        // One batch waits while another is being taken.
        let (sender, receiver) = mpsc::channel(1);
        let next = from.max(1);
        let reader = Reader {
            next,
            told: None,
            batch_commits: shared.channel_capacity,
            latest: shared.published.subscribe(),
            state_sync: shared.executor_at.clone(),
            number: shared.next_reader.fetch_add(1, Ordering::Relaxed),
            store: shared.store.clone(),
            offload: shared.offload.clone(),
            closing: shared.closing.clone(),
        };
        shared.io.detach(reader.run(sender));
        Self { receiver, batch: Vec::new().into_iter() }
    }

    /// The next commit; `None` when the system has stopped.
    pub async fn next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        StreamExt::next(self).await
    }

    /// The next commit, for threads outside any async runtime. Inside one it panics when it has to wait.
    pub fn blocking_next(&mut self) -> Option<Result<Arc<CommittedSubDag>, StoreError>> {
        loop {
            if let Some(commit) = self.batch.next() {
                return Some(Ok(commit));
            }
            match self.receiver.blocking_recv()? {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Stream for SyncedCommits {
    type Item = Result<Arc<CommittedSubDag>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(commit) = self.batch.next() {
                return Poll::Ready(Some(Ok(commit)));
            }
            match ready!(self.receiver.poll_recv(context)) {
                Some(Ok(batch)) => self.batch = batch.into_iter(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Follows what is published, and fills every gap from the store.
struct Reader {
    next: CommitIndex,
    /// What StateSync was told last.
    told: Option<CommitIndex>,
    /// Most commits that may wait for the executor.
    batch_commits: usize,
    latest: watch::Receiver<Latest>,
    state_sync: Mailbox<ExecutorAt>,
    number: u64,
    store: Arc<dyn Store>,
    offload: Offload,
    closing: CancellationToken,
}

impl Reader {
    async fn run(mut self, sender: mpsc::Sender<Batch>) {
        let closing = self.closing.clone();
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = sender.closed() => {}
            () = self.read(&sender) => {}
        }
        self.tell(None).await;
    }

    /// Tells StateSync how far the executor has got. One that is being restarted waits for no executor until it is told.
    async fn tell(&mut self, next: Option<CommitIndex>) {
        let _ = self.state_sync.deliver(ExecutorAt { reader: self.number, next }).await;
        self.told = next;
    }

    /// Gives commit after commit, until nobody takes them or the store fails.
    async fn read(&mut self, sender: &mpsc::Sender<Batch>) {
        loop {
            if self.told.is_none_or(|told| self.next >= told + TELL_EVERY) {
                self.tell(Some(self.next)).await;
            }
            let (at_hand, highest) = {
                let latest = self.latest.borrow_and_update();
                (latest.holding(self.next), latest.highest())
            };
            if let Some(commits) = at_hand {
                let first = commits.partition_point(|commit| commit.commit.index < self.next);
                let sub_dags = commits[first..].iter().map(|commit| Arc::new(commit.sub_dag()));
                if !self.give(sender, sub_dags).await {
                    return;
                }
            } else if self.next <= highest {
                match self.read_store(highest).await {
                    Ok(commits) => {
                        if !self.give(sender, commits.into_iter()).await {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                }
            } else if self.latest.changed().await.is_err() {
                // The system is gone; the end of this task is on its way.
                std::future::pending().await
            }
        }
    }

    /// Gives the next commits. Whether anybody takes them.
    async fn give(
        &mut self,
        sender: &mpsc::Sender<Batch>,
        mut commits: impl ExactSizeIterator<Item = Arc<CommittedSubDag>>,
    ) -> bool {
        while commits.len() > 0 {
            let batch: Vec<_> = commits.by_ref().take(self.batch_commits).collect();
            let next = self.next + batch.len() as CommitIndex;
            if sender.send(Ok(batch)).await.is_err() {
                return false;
            }
            self.next = next;
        }
        true
    }

    async fn read_store(&self, highest: CommitIndex) -> Result<Vec<Arc<CommittedSubDag>>, StoreError> {
        let (store, first) = (self.store.clone(), self.next);
        let reading = move || {
            let commits = store.sub_dags(first..=highest, READ_AHEAD_BYTES)?;
            if commits.is_empty() {
                return Err(missing(&*store, first));
            }
            Ok(commits.into_iter().map(Arc::new).collect())
        };
        match self.offload.run(reading).await {
            Ok(result) => result,
            // Only a panic while decoding, or the end of the runtime.
            Err(_) => Err(missing(&*self.store, self.next)),
        }
    }
}

/// A commit that must be there is not.
fn missing(store: &dyn Store, index: CommitIndex) -> StoreError {
    StoreError::Corrupt { place: store.place(), record: Record::Commit(index), reason: CorruptReason::Missing }
}
