//! The executor's stream.

use crate::handle::Shared;
use futures::Stream;
use soma_store::{CorruptReason, Record, Store, StoreError};
use soma_supervision::Offload;
use soma_types::{CommitIndex, CommittedSubDag};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Bytes of blocks after which a read of the store is enough for now.
const READ_AHEAD_BYTES: usize = 1 << 20;

type Item = Result<Arc<CommittedSubDag>, StoreError>;

/// Commits with their blocks, in order, each once, without gaps. Ends with the system, or after an error of the store.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime.
#[derive(Debug)]
pub struct SyncedCommits {
    receiver: mpsc::Receiver<Item>,
}

impl SyncedCommits {
    pub(crate) fn start(shared: &Arc<Shared>, from: CommitIndex) -> Self {
        let (sender, receiver) = mpsc::channel(shared.channel_capacity);
        let reader = Reader {
            next: from.max(1),
            latest: shared.published.sub_dags.subscribe(),
            highest: shared.published.highest.subscribe(),
            store: shared.store.clone(),
            offload: shared.offload.clone(),
            closing: shared.closing.clone(),
        };
        shared.io.detach(reader.run(sender));
        Self { receiver }
    }

    /// The next commit; `None` when the system has stopped.
    pub async fn next(&mut self) -> Option<Item> {
        self.receiver.recv().await
    }

    /// The next commit, for threads outside any async runtime. Panics inside one, as blocking there would.
    pub fn blocking_next(&mut self) -> Option<Item> {
        self.receiver.blocking_recv()
    }
}

impl Stream for SyncedCommits {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.receiver.poll_recv(context)
    }
}

/// Follows what is published, and fills every gap from the store.
struct Reader {
    next: CommitIndex,
    latest: broadcast::Receiver<Arc<CommittedSubDag>>,
    highest: watch::Receiver<CommitIndex>,
    store: Arc<dyn Store>,
    offload: Offload,
    closing: CancellationToken,
}

impl Reader {
    async fn run(mut self, sender: mpsc::Sender<Item>) {
        let closing = self.closing.clone();
        let reading = async {
            loop {
                let commits = match self.read().await {
                    Ok(commits) => commits,
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                };
                for commit in commits {
                    if sender.send(Ok(commit)).await.is_err() {
                        return;
                    }
                    self.next += 1;
                }
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = sender.closed() => {}
            () = reading => {}
        }
    }

    /// Commits from `next` on, at least one; waits for it if it is not there yet.
    async fn read(&mut self) -> Result<Vec<Arc<CommittedSubDag>>, StoreError> {
        loop {
            let published = match self.latest.try_recv() {
                // Nothing to read: wait for the next one. It may have been published just before this reader
                // subscribed; then only the watermark tells of it.
                Err(broadcast::error::TryRecvError::Empty) if self.next > *self.highest.borrow_and_update() => {
                    tokio::select! {
                        biased;
                        published = self.latest.recv() => published.ok(),
                        _ = self.highest.changed() => None,
                    }
                }
                // The system is gone; the end of this task is on its way.
                Err(broadcast::error::TryRecvError::Closed) => std::future::pending().await,
                other => other.ok(),
            };
            match published {
                Some(commit) if commit.commit_ref.index == self.next => return Ok(vec![commit]),
                // Read from the store before it was published.
                Some(commit) if commit.commit_ref.index < self.next => {}
                // Ahead of us, or nothing in the ring: what is next is in the store, if it is anywhere.
                _ if self.next <= *self.highest.borrow() => return self.read_store().await,
                _ => {}
            }
        }
    }

    async fn read_store(&self) -> Result<Vec<Arc<CommittedSubDag>>, StoreError> {
        let (store, first, highest) = (self.store.clone(), self.next, *self.highest.borrow());
        let reading = move || {
            let mut commits = Vec::new();
            let mut bytes = 0;
            for index in first..=highest {
                let commit = store.sub_dag(index)?.ok_or_else(|| missing(&*store, index))?;
                bytes += commit.blocks.iter().map(|block| block.bytes().len()).sum::<usize>();
                commits.push(Arc::new(commit));
                if bytes >= READ_AHEAD_BYTES {
                    break;
                }
            }
            Ok(commits)
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
