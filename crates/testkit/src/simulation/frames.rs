//! Frames of a stream of messages under way: each arrives a latency after it was sent, and none before an earlier one.

use crate::simulation::{journal::Fate, names::NodeName, network::SimNetwork};
use futures::{StreamExt, stream};
use soma_network::wire::{CallError, Frame, FrameStream};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// Frames on their way in one direction: what the windows of a connection hold.
const ON_THE_WAY: usize = 64;

/// How much later a frame arrives that was lost, and how often one that is cut off is tried again: TCP sends it again for
/// as long as the connection lives.
const SENT_AGAIN: Duration = Duration::from_millis(300);

/// A frame with its time of arrival.
type UnderWay = (Instant, Result<Frame, CallError>);

/// Takes the frames of one direction over the network.
pub(super) fn crossing(network: SimNetwork, from: NodeName, to: NodeName, frames: FrameStream) -> FrameStream {
    let (sending, under_way) = mpsc::channel(ON_THE_WAY);
    tokio::spawn(send(network.clone(), from, to, frames, sending));
    stream::unfold((network, under_way), move |(network, mut under_way)| async move {
        let (arrives, frame): UnderWay = under_way.recv().await?;
        sleep_until(arrives).await;
        while network.cuts(from, to) {
            sleep(SENT_AGAIN).await;
        }
        Some((frame, (network, under_way)))
    })
    .boxed()
}

async fn send(
    network: SimNetwork,
    from: NodeName,
    to: NodeName,
    mut frames: FrameStream,
    sending: mpsc::Sender<UnderWay>,
) {
    let mut last = Instant::now();
    loop {
        let frame = tokio::select! {
            biased;
            () = sending.closed() => return,
            frame = frames.next() => frame,
        };
        let Some(frame) = frame else { return };
        let bytes = frame.as_ref().map_or(0, Frame::payload_bytes);
        let arrives = match network.depart(from, to, "frame of messages", bytes) {
            Fate::Arrives(after) => Instant::now() + after,
            Fate::Lost | Fate::CutOff => Instant::now() + network.latency() + SENT_AGAIN,
        };
        last = arrives.max(last);
        if sending.send((last, frame)).await.is_err() {
            return;
        }
    }
}
