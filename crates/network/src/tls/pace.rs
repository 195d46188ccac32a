//! Keeps a stream of frames below the rate at which the peer counts it as a flood.
//!
//! The transport puts all frames that are ready into one piece of data, and sends the piece when no further frame is
//! ready. A sender of many tiny frames could so exceed the peer's limit on small pieces
//! ([`frames`](super::frames)). Beyond a rate far above any use, a stream therefore waits a little before the next
//! piece, which then has all frames that have become ready.

use super::frames::{Bucket, PAID_DATA, Rate};
use crate::wire::{Frame, FrameStream};
use futures::{Stream, StreamExt};
use soma_types::Signature;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Small pieces of one stream. Those of all topics together are below the limit of a peer.
const PIECES: Rate = Rate { per_second: 4_000, burst: 10_000 };

/// Wait before the next piece, beyond the rate.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes that a frame has at least when it is encoded.
fn least_size(frame: &Frame) -> usize {
    let ids = frame.have.len() + frame.want.len() + frame.do_not_send.len();
    frame.payload_bytes() + Signature::BYTES * frame.messages.len() + 32 * ids
}

/// The frames of one side of a stream, not too many pieces of them.
pub(crate) struct Paced {
    frames: FrameStream,
    bucket: Bucket,
    /// The least size of the piece that has begun.
    piece: Option<usize>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(frames: FrameStream) -> Self {
        Self { frames, bucket: Bucket::new(PIECES, Instant::now()), piece: None, pause: None }
    }
}

impl Stream for Paced {
    type Item = Result<Frame, crate::wire::CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let next = self.frames.poll_next_unpin(context);
        if let Poll::Ready(frame) = next {
            if let Some(Ok(frame)) = &frame {
                self.piece = Some(self.piece.unwrap_or(0) + least_size(frame));
            }
            return Poll::Ready(frame);
        }
        let is_small = self.piece.take().is_some_and(|size| size < PAID_DATA);
        if is_small && !self.bucket.take(Instant::now()) {
            let mut pause = Box::pin(sleep(PAUSE));
            if pause.as_mut().poll(context).is_pending() {
                self.pause = Some(pause);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{future::poll_fn, stream};
    use soma_types::MessageId;
    use tokio::{sync::mpsc, time::advance};

    fn frame() -> Frame {
        Frame { have: vec![MessageId([1; 32])], ..Frame::default() }
    }

    /// The frames of one piece: all that are ready.
    async fn piece(paced: &mut Paced) -> usize {
        let mut frames = 0;
        poll_fn(|context| {
            while let Poll::Ready(Some(_)) = paced.poll_next_unpin(context) {
                frames += 1;
            }
            if frames > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn endless_small_frames_are_gathered_and_none_is_lost_or_held_long() {
        let (sender, mut frames) = mpsc::unbounded_channel();
        let mut paced = Paced::new(stream::poll_fn(move |context| frames.poll_recv(context)).boxed());
        let (mut pieces, mut sent, mut arrived) = (0, 0, 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            sender.send(Ok(frame())).unwrap();
            sent += 1;
            if sent % 20 == 0 {
                advance(Duration::from_millis(1)).await;
            }
            if let Ok(frames) = tokio::time::timeout(Duration::ZERO, piece(&mut paced)).await {
                pieces += 1;
                arrived += frames;
            }
        }
        assert!(sent - arrived <= 21, "{sent} sent, {arrived} arrived");
        // Beyond the rate there is one piece for each pause.
        assert!(pieces <= 10 * (PIECES.per_second + 1_000) + PIECES.burst, "{pieces}");
        assert!(pieces >= PIECES.burst, "{pieces}");
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_count_as_no_flood_never_wait() {
        let (sender, mut frames) = mpsc::unbounded_channel();
        let mut paced = Paced::new(stream::poll_fn(move |context| frames.poll_recv(context)).boxed());
        for _ in 0..4 * PIECES.burst {
            sender.send(Ok(Frame { have: vec![MessageId([1; 32]); 8], ..Frame::default() })).unwrap();
            assert_eq!(tokio::time::timeout(Duration::ZERO, piece(&mut paced)).await, Ok(1));
        }
    }
}
