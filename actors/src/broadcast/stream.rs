//! The two tasks of a stream: one writes frames, one reads them.
//!
//! ```text
//!   actor --Outgoing--> writing task (joins what waits) --Frame--> network
//!   network --Frame--> reading task --FrameArrived--> actor; at most FRAMES_AHEAD undecided frames
//! ```

use super::messages::{FrameArrived, FrameWritten, StreamEnded};
use futures::{StreamExt, stream};
use soma_network::wire::{
    Frame, FrameStream,
    limits::{MAX_AUTHORS_PER_FRAME, MAX_IDS_PER_FRAME, MAX_MESSAGES_PER_FRAME},
};
use soma_protocol::broadcast::{Control, StreamKey, frame_bytes};
use soma_runtime::{Delivery, Mailbox};
use soma_types::{MessageId, SignedMessage};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Frames of one stream that are read before the core has decided about the first: 1 MiB of full ones. So the network is
/// not idle while a check waits for those of a sync, which takes about 60 ms on two cores. The core bounds the bytes of
/// all streams that wait for a check.
const FRAMES_AHEAD: usize = 16;

/// Bytes of messages at which a frame is full: large enough that a frame costs nothing, small enough that urgent topics
/// get their turn.
const FRAME_BYTES: usize = 64 << 10;

/// What the core has put into the queue of a stream.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    messages: VecDeque<Arc<SignedMessage>>,
    /// Of those messages.
    payload_bytes: usize,
    control: Control,
}

impl Outgoing {
    pub(crate) fn new(messages: VecDeque<Arc<SignedMessage>>, control: Control) -> Self {
        let payload_bytes = messages.iter().map(|message| message.message().payload.len()).sum();
        Self { messages, payload_bytes, control }
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.control.is_empty()
    }

    fn append(&mut self, mut other: Self) {
        self.messages.append(&mut other.messages);
        self.payload_bytes += other.payload_bytes;
        let (control, more) = (&mut self.control, &mut other.control);
        control.have.append(&mut more.have);
        control.want.append(&mut more.want);
        control.do_not_send.append(&mut more.do_not_send);
        control.graft.append(&mut more.graft);
        control.prune.append(&mut more.prune);
    }

    /// Takes the first frame out, and its bytes as the core counts them.
    fn take_frame(&mut self) -> (Frame, u64) {
        let control = &mut self.control;
        let mut authors = MAX_AUTHORS_PER_FRAME;
        let mut take_authors = |list: &mut Vec<_>| {
            let taken: Vec<_> = list.drain(..list.len().min(authors)).collect();
            authors -= taken.len();
            taken
        };
        let taken = Control {
            have: take_ids(&mut control.have),
            want: take_ids(&mut control.want),
            do_not_send: take_ids(&mut control.do_not_send),
            graft: take_authors(&mut control.graft),
            prune: take_authors(&mut control.prune),
        };
        let (mut messages, mut payloads) = (Vec::new(), 0);
        while payloads < FRAME_BYTES
            && messages.len() < MAX_MESSAGES_PER_FRAME
            && let Some(message) = self.messages.front()
        {
            let bytes = message.message().payload.len();
            // The largest message fits a frame alone.
            if payloads > 0 && payloads + bytes > FRAME_BYTES {
                break;
            }
            payloads += bytes;
            messages.push(SignedMessage::clone(message));
            self.messages.pop_front();
        }
        self.payload_bytes -= payloads;
        let bytes = frame_bytes(payloads as u64, messages.len(), &taken);
        let Control { have, want, do_not_send, graft, prune } = taken;
        (Frame { messages, have, want, do_not_send, graft, prune }, bytes)
    }
}

fn take_ids(ids: &mut Vec<MessageId>) -> Vec<MessageId> {
    ids.drain(..ids.len().min(MAX_IDS_PER_FRAME)).collect()
}

/// The frames to write. Its queue is bounded by the core, which counts what is in it.
pub(crate) fn outgoing(
    stream: StreamKey,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    written: Mailbox<FrameWritten>,
) -> FrameStream {
    struct Writer {
        queue: mpsc::UnboundedReceiver<Outgoing>,
        waiting: Outgoing,
        written: Mailbox<FrameWritten>,
        /// Bytes of the frame that was handed out last.
        bytes: u64,
    }
    let writer = Writer { queue, waiting: Outgoing::default(), written, bytes: 0 };
    stream::unfold(writer, move |mut writer| async move {
        // Asked for the next frame: the network has taken the last one.
        if writer.bytes > 0 {
            let written = FrameWritten { stream, bytes: std::mem::take(&mut writer.bytes) };
            if writer.written.deliver(written).await != Delivery::Accepted {
                return None;
            }
        }
        if writer.waiting.is_empty() {
            writer.waiting = writer.queue.recv().await?;
        }
        while writer.waiting.payload_bytes < FRAME_BYTES
            && writer.waiting.messages.len() < MAX_MESSAGES_PER_FRAME
            && let Ok(more) = writer.queue.try_recv()
        {
            writer.waiting.append(more);
        }
        let (frame, bytes) = writer.waiting.take_frame();
        writer.bytes = bytes;
        Some((Ok(frame), writer))
    })
    .boxed()
}

/// Reads a stream to its end, and tells the actor.
pub(crate) async fn read(
    stream: StreamKey,
    mut frames: FrameStream,
    mut arrived: Mailbox<FrameArrived>,
    mut ended: Mailbox<StreamEnded>,
    closed: CancellationToken,
) {
    let ahead = Arc::new(Semaphore::new(FRAMES_AHEAD));
    let reading = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = ahead.clone().acquire_owned().await else { return None };
            match frames.next().await {
                Some(Ok(frame)) => {
                    if arrived.deliver(FrameArrived { stream, frame, place }).await != Delivery::Accepted {
                        return None;
                    }
                }
                Some(Err(error)) => return Some(error),
                None => return None,
            }
        }
    };
    if let Some(error) = closed.run_until_cancelled(reading).await {
        // An actor that is gone needs no news.
        let _ = ended.deliver(StreamEnded { stream, error }).await;
    }
}
