//! Objects of other nodes, by their digests.
//!
//! ```text
//!   ids --requests of a few hundred--> Objects --results--> task --one batch at a time--> stream
//!          '-- so many at once that their results take about WINDOW_BYTES --'
//! ```

use crate::{handle::Handle, shared::Shared};
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{SelectAll, poll_fn},
};
use soma_actors::objects::messages::{FetchError, FetchObjects, ObjectResults};
use soma_runtime::{Delivery, Mailbox};
use soma_types::{ObjectId, ObjectKind, PeerId};
use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes of results that one stream aims to have under way. What has been asked for is taken in any case.
const WINDOW_BYTES: usize = 16 << 20;

/// Objects that one stream has under way.
const WINDOW: (usize, usize) = (4, 8_000);

/// Objects that a stream has under way at first, when it does not know their size. They grow with those that arrive.
const FIRST_WINDOW: usize = 16;

/// Objects in one request to the actor.
const PER_REQUEST: usize = 1_000;

/// The longest time that a stream waits. It keeps sums of times far from what a clock can hold.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long to wait for an actor that is being restarted, or has too much to do, before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Handle {
    /// Gets objects of one kind from peers, by their ids: the digests of their bytes.
    ///
    /// The stream has each id once, in the order of arrival, with the object's bytes or the reason why there are none.
    /// It begins at once, and ends after the last id, at the latest after `within` or 30 days. Dropping it ends what is under way.
    /// A slow reader slows the calls to peers down, within a window of 16 MiB.
    ///
    /// The bytes are what the id says. Certificates are valid, too: signed by their sender and certified by a quorum of
    /// the present epoch's or the previous one's committee. Nothing else about the content is checked.
    pub fn fetch(&self, kind: ObjectKind, ids: impl IntoIterator<Item = ObjectId>, within: Duration) -> FetchedObjects {
        self.fetch_first_from(None, kind, ids, within)
    }

    /// As [`fetch`](Self::fetch); this peer is asked first, for instance because it sent the reference.
    pub fn fetch_first_from(
        &self,
        peer: impl Into<Option<PeerId>>,
        kind: ObjectKind,
        ids: impl IntoIterator<Item = ObjectId>,
        within: Duration,
    ) -> FetchedObjects {
        FetchedObjects::start(&self.shared, kind, ids.into_iter().collect(), within, peer.into(), None)
    }

    /// As [`fetch`](Self::fetch), for objects whose length is known.
    pub(crate) fn fetch_sized(
        &self,
        kind: ObjectKind,
        ids: Vec<ObjectId>,
        within: Duration,
        bytes: usize,
    ) -> FetchedObjects {
        FetchedObjects::start(&self.shared, kind, ids, within, None, Some(bytes))
    }
}

/// The end of a wait that begins now.
pub(crate) fn deadline(within: Duration) -> Instant {
    Instant::now() + within.min(LONGEST_WAIT)
}

/// Objects as they arrive.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime.
#[derive(Debug)]
pub struct FetchedObjects {
    batches: mpsc::Receiver<ObjectResults>,
    /// Of the last batch.
    ready: VecDeque<(ObjectId, Result<Bytes, FetchError>)>,
    _dropped: DropGuard,
}

impl FetchedObjects {
    fn start(
        shared: &Arc<Shared>,
        kind: ObjectKind,
        ids: Vec<ObjectId>,
        within: Duration,
        first_from: Option<PeerId>,
        known_bytes: Option<usize>,
    ) -> Self {
        let (results, batches) = mpsc::channel(1);
        let dropped = CancellationToken::new();
        let mut seen = HashSet::with_capacity(ids.len());
        let fetching = Fetching {
            objects: shared.fetch_objects.clone(),
            kind,
            deadline: deadline(within),
            first_from,
            unasked: ids.into_iter().filter(|id| seen.insert(*id)).collect(),
            unanswered: HashSet::new(),
            known_bytes,
            found: (0, 0),
            dropped: dropped.clone(),
            results,
        };
        let closing = shared.closing.clone();
        shared.io.detach(async move {
            let ended = fetching.dropped.clone();
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = fetching.run(closing) => {}
            }
        });
        Self { batches, ready: VecDeque::new(), _dropped: dropped.drop_guard() }
    }

    /// The next object; `None` after the last one.
    pub async fn next(&mut self) -> Option<(ObjectId, Result<Bytes, FetchError>)> {
        StreamExt::next(self).await
    }

    /// The next object, for threads outside any async runtime. Panics inside one, as blocking there would.
    pub fn blocking_next(&mut self) -> Option<(ObjectId, Result<Bytes, FetchError>)> {
        while self.ready.is_empty() {
            self.ready = self.batches.blocking_recv()?.into();
        }
        self.ready.pop_front()
    }
}

impl Stream for FetchedObjects {
    type Item = (ObjectId, Result<Bytes, FetchError>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.ready.is_empty() {
            match ready!(self.batches.poll_recv(context)) {
                Some(batch) => self.ready = batch.into(),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(self.ready.pop_front())
    }
}

/// The task behind a stream of objects.
struct Fetching {
    objects: Mailbox<FetchObjects>,
    kind: ObjectKind,
    deadline: Instant,
    first_from: Option<PeerId>,
    unasked: VecDeque<ObjectId>,
    unanswered: HashSet<ObjectId>,
    /// Of each object, if it is known.
    known_bytes: Option<usize>,
    /// Objects that have arrived, and their bytes.
    found: (usize, usize),
    dropped: CancellationToken,
    results: mpsc::Sender<ObjectResults>,
}

impl Fetching {
    async fn run(mut self, closing: CancellationToken) {
        let stopped = tokio::select! {
            biased;
            () = closing.cancelled() => true,
            () = self.fetch() => false,
        };
        let left = std::mem::take(&mut self.unanswered).into_iter().chain(std::mem::take(&mut self.unasked));
        let why = if stopped { FetchError::Stopped } else { FetchError::Late { asked: 0 } };
        let left: ObjectResults = left.map(|id| (id, Err(why.clone()))).collect();
        if !left.is_empty() {
            let _ = self.results.send(left).await;
        }
    }

    async fn fetch(&mut self) {
        let mut answers = SelectAll::new();
        while !(self.unasked.is_empty() && self.unanswered.is_empty()) {
            while let Some(ids) = self.next_request() {
                match self.ask(ids).await {
                    Some(mut results) => answers.push(poll_fn(move |context| results.poll_recv(context))),
                    None => sleep(ASK_AGAIN).await,
                }
                if self.is_late() {
                    return;
                }
            }
            match answers.next().await {
                Some(batch) => self.take(batch).await,
                None => {
                    // The actor was restarted, or refused: what it has not answered is asked for again.
                    self.unasked.extend(std::mem::take(&mut self.unanswered));
                    if self.is_late() {
                        return;
                    }
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The next objects to ask for, if there is room for their results.
    fn next_request(&self) -> Option<usize> {
        let (count, bytes) = self.found;
        // The first objects show how long they are.
        let most = if self.known_bytes.is_some() { WINDOW.1 } else { FIRST_WINDOW + 2 * count };
        let size = self.known_bytes.or_else(|| bytes.checked_div(count)).unwrap_or(0).max(1);
        let window = (WINDOW_BYTES / size).clamp(WINDOW.0, WINDOW.1).min(most);
        let room = window.saturating_sub(self.unanswered.len());
        // Few large requests cost less than many small ones.
        let is_enough = self.unanswered.is_empty() || room >= window / 4;
        let ids = room.min(PER_REQUEST).min(self.unasked.len());
        (is_enough && ids > 0).then_some(ids)
    }

    /// Asks the actor for the next objects.
    async fn ask(&mut self, ids: usize) -> Option<mpsc::UnboundedReceiver<ObjectResults>> {
        let ids: Vec<_> = self.unasked.drain(..ids).collect();
        let (results, receiver) = mpsc::unbounded_channel();
        let message = FetchObjects {
            kind: self.kind,
            ids: ids.clone(),
            within: self.deadline.saturating_duration_since(Instant::now()),
            first_from: self.first_from,
            results,
            dropped: self.dropped.clone(),
        };
        match self.objects.deliver(message).await {
            Delivery::Accepted => {
                self.unanswered.extend(ids);
                Some(receiver)
            }
            Delivery::Busy | Delivery::Closed => {
                self.unasked.extend(ids);
                None
            }
        }
    }

    async fn take(&mut self, batch: ObjectResults) {
        for (id, result) in &batch {
            self.unanswered.remove(id);
            if let Ok(bytes) = result {
                self.found = (self.found.0 + 1, self.found.1 + bytes.len());
            }
        }
        // A reader that is gone has cancelled this task.
        let _ = self.results.send(batch).await;
    }
}
