//! Messages that Broadcast takes, and what it hands to the embedder.

use soma_network::wire::{CallError, Frame, FrameStream, Hello};
use soma_protocol::broadcast::StreamKey;
use soma_runtime::Reply;
use soma_types::{PeerId, SignedMessage, Topic};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// From the handle: spread these messages. They are signed.
#[derive(Debug)]
pub struct Publish {
    /// The messages.
    pub messages: Vec<SignedMessage>,
    /// Answered when they are in the queues, and there is room for further ones.
    pub reply: Reply<()>,
}

/// From the handle: hand over the messages of a topic from now on.
#[derive(Debug)]
pub struct FollowMessages {
    /// The topic.
    pub topic: Topic,
    /// Where they go.
    pub queue: MessageQueue,
    /// Answered when the queue is in use.
    pub reply: Reply<()>,
}

/// From the gRPC adapter: a peer opens a stream.
pub struct StreamArrived {
    /// The peer.
    pub peer: PeerId,
    /// Its hello.
    pub hello: Hello,
    /// What it sends.
    pub frames: FrameStream,
    /// This node's hello, and what it sends.
    pub reply: Reply<Result<(Hello, FrameStream), CallError>>,
}

impl std::fmt::Debug for StreamArrived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamArrived({}, {:?})", self.peer.short(), self.hello)
    }
}

/// From a reading task: a frame.
#[derive(Debug)]
pub struct FrameArrived {
    /// The stream.
    pub stream: StreamKey,
    /// The frame.
    pub frame: Frame,
    /// Lets the task read a further frame when it is dropped.
    pub place: OwnedSemaphorePermit,
}

/// From a writing task: the network has taken so many bytes.
#[derive(Debug)]
pub struct FrameWritten {
    /// The stream.
    pub stream: StreamKey,
    /// The bytes.
    pub bytes: u64,
}

/// From a reading task: the stream has ended.
#[derive(Debug)]
pub struct StreamEnded {
    /// The stream.
    pub stream: StreamKey,
    /// Why, unless the peer ended it.
    pub error: Option<CallError>,
}

/// What a reader of a topic gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageEvent {
    /// An accepted message.
    Message(Arc<SignedMessage>),
    /// An author has filled one slot with two messages, both with its signature.
    Equivocation {
        /// The message that was delivered before. `None` if it was longer ago than this node keeps messages.
        first: Option<Arc<SignedMessage>>,
        /// The other one, which is not delivered.
        second: Arc<SignedMessage>,
    },
    /// Messages are missing here.
    Gap {
        /// How many, because the reader was too slow. 0: it is not known, because Broadcast was restarted.
        missed: u64,
    },
}

/// Bytes of messages that wait for one reader.
const QUEUE_BYTES: usize = 32 << 20;

/// Messages that wait for one reader.
const QUEUE_MESSAGES: usize = 32_768;

/// Bytes that an event counts besides its payloads.
const EVENT_BYTES: usize = 256;

/// An event in a queue. It takes its place until it is read.
type Queued = (MessageEvent, OwnedSemaphorePermit);

/// A queue of messages for one reader. No actor waits for the reader: it gets a gap in the place of what it missed.
/// Clones are the same queue.
#[derive(Clone, Debug)]
pub struct MessageQueue {
    events: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    missed: Arc<AtomicU64>,
}

/// The reading end of a [`MessageQueue`].
#[derive(Debug)]
pub struct MessageReader(mpsc::Receiver<Queued>);

impl MessageReader {
    /// The next event; `None` when the queue has ended.
    pub async fn next(&mut self) -> Option<MessageEvent> {
        self.0.recv().await.map(|(event, _)| event)
    }

    /// As [`next`](Self::next), for threads outside any async runtime.
    pub fn blocking_next(&mut self) -> Option<MessageEvent> {
        self.0.blocking_recv().map(|(event, _)| event)
    }

    /// As [`next`](Self::next), for streams.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<MessageEvent>> {
        self.0.poll_recv(context).map(|queued| queued.map(|(event, _)| event))
    }
}

impl MessageQueue {
    /// An empty queue and its reading end.
    pub fn new() -> (Self, MessageReader) {
        Self::with_room(QUEUE_MESSAGES, QUEUE_BYTES)
    }

    fn with_room(messages: usize, bytes: usize) -> (Self, MessageReader) {
        let (events, reader) = mpsc::channel(messages);
        (Self { events, room: Arc::new(Semaphore::new(bytes)), missed: Arc::default() }, MessageReader(reader))
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Resolves when the reader is gone.
    pub async fn closed(&self) {
        self.events.closed().await;
    }

    /// Puts an event in, after the gap before it. If there is no room, the event becomes a part of the gap. Returns
    /// whether it is in.
    pub fn push(&self, event: MessageEvent) -> bool {
        // One actor at a time pushes.
        let missed = self.missed.load(Ordering::Relaxed);
        if missed > 0 && self.try_push(MessageEvent::Gap { missed }) {
            self.missed.store(0, Ordering::Relaxed);
        }
        let is_in = self.missed.load(Ordering::Relaxed) == 0 && self.try_push(event);
        if !is_in {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        is_in
    }

    fn try_push(&self, event: MessageEvent) -> bool {
        let payload = |message: &Arc<SignedMessage>| message.message().payload.len();
        let bytes = EVENT_BYTES
            + match &event {
                MessageEvent::Message(message) => payload(message),
                MessageEvent::Equivocation { first, second } => first.as_ref().map_or(0, payload) + payload(second),
                MessageEvent::Gap { .. } => 0,
            };
        let Ok(place) = self.room.clone().try_acquire_many_owned(bytes as u32) else { return false };
        self.events.try_send((event, place)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use soma_types::{Author, ChainId, Message, SigningKey};

    fn message(number: u8, bytes: usize) -> MessageEvent {
        let payload = Bytes::from(vec![number; bytes]);
        let message = Message { topic: Topic::Transactions, epoch: 0, author: Author::Authority(0), payload };
        MessageEvent::Message(Arc::new(message.sign(ChainId([0; 32]), &SigningKey::from_bytes(&[1; 32]))))
    }

    #[test]
    fn slow_reader_gets_a_gap_in_the_place_of_what_it_missed() {
        let (queue, mut reader) = MessageQueue::with_room(2, 1 << 20);
        for number in 1..=5 {
            queue.push(message(number, 10));
        }
        assert_eq!(reader.0.try_recv().unwrap().0, message(1, 10));
        assert_eq!(reader.0.try_recv().unwrap().0, message(2, 10));
        queue.push(message(6, 10));
        assert_eq!(reader.0.try_recv().unwrap().0, MessageEvent::Gap { missed: 3 });
        assert_eq!(reader.0.try_recv().unwrap().0, message(6, 10));
    }

    #[test]
    fn large_messages_fill_a_queue_by_their_bytes() {
        let (queue, mut reader) = MessageQueue::with_room(1_000, 100_000);
        for number in 1..=10 {
            queue.push(message(number, 40_000));
        }
        let mut read = 0;
        while reader.0.try_recv().is_ok() {
            read += 1;
        }
        assert_eq!(read, 2);
        queue.push(message(11, 40_000));
        assert_eq!(reader.0.try_recv().unwrap().0, MessageEvent::Gap { missed: 8 });
        assert_eq!(reader.0.try_recv().unwrap().0, message(11, 40_000));
    }
}
