//! The frames of `Broadcast`, and the two directions of a stream of them.
//!
//! ```text
//!   frames of this side --outgoing--> cut to the limits --> the peer
//!   frames of the peer  --checked---> incoming
//!                          \ Tie: both end together
//! ```

use crate::wire::{
    CallError, Status,
    error::malformed,
    limits::{MAX_AUTHORS_PER_FRAME, MAX_BATCH_BYTES, MAX_IDS_PER_FRAME, MAX_MESSAGES_PER_FRAME},
};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use soma_types::{
    Author, MessageId, SignedMessage, Topic,
    limits::{MAX_COMMITTEE_SIZE, MAX_MESSAGE_BYTES},
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// The first frame of each side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The topic of the stream, the same in both hellos.
    pub topic: Topic,
    /// Bytes of the payload of one message that the side accepts, at most [`MAX_MESSAGE_BYTES`].
    pub max_message_bytes: u32,
}

impl Hello {
    /// Checks the limit. A limit above the protocol's is lowered to it.
    ///
    /// # Errors
    /// Fails if the side accepts no messages at all.
    pub fn checked(self) -> Result<Self, CallError> {
        if self.max_message_bytes == 0 {
            return Err(malformed("a hello that accepts no messages".into()));
        }
        Ok(Self { max_message_bytes: self.max_message_bytes.min(MAX_MESSAGE_BYTES as u32), ..self })
    }

    /// Checks that the responder's hello fits this one, which is the caller's.
    ///
    /// # Errors
    /// Fails if the topics differ.
    pub fn answered_by(self, other: Self) -> Result<Self, CallError> {
        if self.topic != other.topic {
            return Err(malformed(format!("a stream of {} was answered with {}", self.topic, other.topic)));
        }
        other.checked()
    }
}

/// What one side sends at once. All messages are of the stream's topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Messages with their content. Their form is right; nothing else is checked.
    pub messages: Vec<SignedMessage>,
    /// Messages that the sender has.
    pub have: Vec<MessageId>,
    /// Messages that the sender asks for.
    pub want: Vec<MessageId>,
    /// Large messages that the sender has or is about to get.
    pub do_not_send: Vec<MessageId>,
    /// Authors whose messages the receiver is to send at once.
    pub graft: Vec<Author>,
    /// Authors of whose messages the receiver is to send ids only.
    pub prune: Vec<Author>,
}

/// Frames of one side of a stream. Nothing follows an error. Dropping the stream ends both directions.
pub type FrameStream = BoxStream<'static, Result<Frame, CallError>>;

impl Frame {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        let Self { messages, have, want, do_not_send, graft, prune } = self;
        messages.is_empty() && [have, want, do_not_send].iter().all(|ids| ids.is_empty()) && {
            graft.is_empty() && prune.is_empty()
        }
    }

    /// Bytes of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.messages.iter().map(payload_bytes).sum()
    }

    /// Checks the limits of a frame that came over a stream. `own` is this side's hello.
    ///
    /// # Errors
    /// Fails if the frame is empty, exceeds a limit, or has a message of another topic.
    pub fn checked(self, own: Hello) -> Result<Self, CallError> {
        if self.is_empty() {
            return Err(malformed("a frame with nothing in it".into()));
        }
        let authors = [self.graft.len(), self.prune.len()];
        check_counts(self.messages.len(), [self.have.len(), self.want.len(), self.do_not_send.len()], authors)?;
        self.graft.iter().chain(&self.prune).try_for_each(check_author)?;
        let payloads = self.payload_bytes();
        if self.messages.len() > 1 && payloads > MAX_BATCH_BYTES {
            let message = format!("{payloads} bytes of several messages: at most {MAX_BATCH_BYTES} are allowed");
            return Err(malformed(message));
        }
        for message in &self.messages {
            let (bytes, limit) = (payload_bytes(message), own.max_message_bytes as usize);
            if bytes > limit {
                return Err(malformed(format!("a message of {bytes} bytes: at most {limit} are accepted")));
            }
            let topic = message.message().topic;
            if topic != own.topic {
                return Err(malformed(format!("a message of the topic {topic} in a stream of {}", own.topic)));
            }
            check_author(&message.message().author)?;
        }
        Ok(self)
    }

    /// Whether the frame is within the limits as it is.
    fn fits(&self) -> bool {
        let lists = [self.have.len(), self.want.len(), self.do_not_send.len()];
        let authors = [self.graft.len(), self.prune.len()];
        check_counts(self.messages.len(), lists, authors).is_ok()
            && (self.messages.len() < 2 || self.payload_bytes() <= MAX_BATCH_BYTES)
    }

    /// Cuts a frame of any size into frames within the limits. The order of each list stays. An empty frame is none.
    pub fn cut(mut self) -> Vec<Self> {
        if self.is_empty() {
            return Vec::new();
        }
        if self.fits() {
            return vec![self];
        }
        let mut frames = Vec::new();
        while !self.is_empty() {
            let mut bytes = 0;
            let mut fits = |message: &SignedMessage| {
                bytes += payload_bytes(message);
                bytes <= MAX_BATCH_BYTES
            };
            let batch = self.messages.iter().take(MAX_MESSAGES_PER_FRAME).take_while(|message| fits(message)).count();
            let graft = take_front(&mut self.graft, MAX_AUTHORS_PER_FRAME);
            let prune = take_front(&mut self.prune, MAX_AUTHORS_PER_FRAME - graft.len());
            frames.push(Self {
                messages: take_front(&mut self.messages, batch.max(1)),
                have: take_front(&mut self.have, MAX_IDS_PER_FRAME),
                want: take_front(&mut self.want, MAX_IDS_PER_FRAME),
                do_not_send: take_front(&mut self.do_not_send, MAX_IDS_PER_FRAME),
                graft,
                prune,
            });
        }
        frames
    }
}

fn payload_bytes(message: &SignedMessage) -> usize {
    message.message().payload.len()
}

fn take_front<T>(list: &mut Vec<T>, at_most: usize) -> Vec<T> {
    let rest = list.split_off(list.len().min(at_most));
    std::mem::replace(list, rest)
}

/// Checks the lengths of the lists of a frame, which costs nothing, before any entry is converted.
pub(super) fn check_counts(messages: usize, ids: [usize; 3], authors: [usize; 2]) -> Result<(), CallError> {
    let ids = ids.into_iter().max().unwrap_or(0);
    let authors = authors.into_iter().sum();
    for (what, count, limit) in [
        ("messages", messages, MAX_MESSAGES_PER_FRAME),
        ("ids in a list", ids, MAX_IDS_PER_FRAME),
        ("authors", authors, MAX_AUTHORS_PER_FRAME),
    ] {
        if count > limit {
            return Err(malformed(format!("{count} {what} in a frame: at most {limit} are allowed")));
        }
    }
    Ok(())
}

/// Checks that the index of an authority can be one.
pub(super) fn check_author(author: &Author) -> Result<(), CallError> {
    match author {
        Author::Authority(index) if *index as usize >= MAX_COMMITTEE_SIZE => {
            Err(malformed(format!("authority {index}: a committee has at most {MAX_COMMITTEE_SIZE} members")))
        }
        _ => Ok(()),
    }
}

/// The limit of frames that come over a stream: this side's hello.
#[derive(Clone)]
pub(crate) struct Limit {
    topic: Topic,
    own: Arc<OnceLock<Hello>>,
}

impl Limit {
    /// A caller's limit.
    pub(crate) fn of_caller(hello: Hello) -> Self {
        Self { topic: hello.topic, own: Arc::new(hello.into()) }
    }

    /// A responder's limit: the protocol's until the responder has said its own.
    pub(crate) fn of_responder(topic: Topic) -> Self {
        Self { topic, own: Arc::default() }
    }

    /// Sets what the responder has said.
    pub(crate) fn set(&self, hello: Hello) {
        let _ = self.own.set(hello);
    }

    pub(crate) fn hello(&self) -> Hello {
        let largest = Hello { topic: self.topic, max_message_bytes: MAX_MESSAGE_BYTES as u32 };
        self.own.get().copied().unwrap_or(largest)
    }
}

/// Ties both directions of a stream: when one ends, the other one does.
#[derive(Clone)]
pub(crate) struct Tie {
    end: CancellationToken,
    /// The peer's mistake that ended the stream, for the peer.
    mistake: Arc<OnceLock<CallError>>,
    is_caller: bool,
}

impl Tie {
    /// The tie of a caller.
    pub(crate) fn of_caller() -> Self {
        Self { end: CancellationToken::new(), mistake: Arc::default(), is_caller: true }
    }

    /// The tie of a responder, which also ends when its listener is `stopping`.
    pub(crate) fn of_responder(stopping: &CancellationToken) -> Self {
        Self { end: stopping.child_token(), mistake: Arc::default(), is_caller: false }
    }

    /// Ends both directions when it is dropped, unless it is disarmed: a request that fails leaves nothing behind.
    pub(crate) fn guard(&self) -> DropGuard {
        self.end.clone().drop_guard()
    }

    /// Frames of the peer, which are checked already.
    pub(crate) fn incoming(&self, frames: FrameStream) -> FrameStream {
        let noted = self.clone();
        let frames = frames.inspect(move |frame| {
            if let Err(error) = frame
                && error.status == Status::MalformedAnswer
            {
                let _ = noted.mistake.set(CallError::new(Status::InvalidArgument, error.message.clone()));
            }
        });
        self.half(frames.boxed(), true).boxed()
    }

    /// Frames of this side, cut to the limits of the protocol. The last item tells the peer its mistake, if that ends
    /// the stream.
    pub(crate) fn outgoing(&self, frames: FrameStream) -> FrameStream {
        let cut = frames.flat_map(|frame| match frame {
            Ok(frame) => stream::iter(frame.cut()).map(Ok).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        let mistake = self.mistake.clone();
        let last = stream::once(async move { mistake.get().cloned().map(Err) }).filter_map(std::future::ready);
        self.half(cut.boxed(), !self.is_caller).chain(last).boxed()
    }

    fn half(&self, frames: FrameStream, ends_when_dropped: bool) -> Half {
        let frames = Arc::new(Mutex::new(Some(frames)));
        // At the end the frames are dropped, although nothing may poll this half: their other side sees the end.
        let (end, dropped) = (self.end.clone(), frames.clone());
        tokio::spawn(async move {
            end.cancelled().await;
            drop(take(&dropped));
        });
        let ended = Box::pin(self.end.clone().cancelled_owned());
        Half { frames, ended, end: self.end.clone(), ends_when_dropped }
    }
}

/// One direction of a stream.
struct Half {
    /// `None` after the end. Only polled or taken, so nothing waits for the lock.
    frames: Arc<Mutex<Option<FrameStream>>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends the other direction.
    end: CancellationToken,
    /// The network drops a caller's frames when the responder has ended the stream. What the responder sent before then
    /// still arrives.
    ends_when_dropped: bool,
}

impl Drop for Half {
    fn drop(&mut self) {
        drop(take(&self.frames));
        if self.ends_when_dropped {
            self.end.cancel();
        }
    }
}

fn take(frames: &Mutex<Option<FrameStream>>) -> Option<FrameStream> {
    frames.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Stream for Half {
    type Item = Result<Frame, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => None,
            Poll::Pending => match &mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(frames) => ready!(frames.poll_next_unpin(context)),
                None => None,
            },
        };
        if !matches!(next, Some(Ok(_))) {
            drop(take(&self.frames));
            self.end.cancel();
        }
        Poll::Ready(next)
    }
}
