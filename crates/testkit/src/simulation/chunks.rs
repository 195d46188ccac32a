//! Chunks of one answer on a link with a bandwidth: as many are on their way as the receiver's window takes, as HTTP/2
//! has it. (On a link without, a chunk is sent when the one before has arrived.)
//!
//! ```text
//!   responder's store --chunk--> [link: behind what was sent before] --latency--> caller takes it
//!        `- waits while the window is full                                            |
//!           <------------------- room for as many bytes, a latency later -------------'
//! ```

use crate::simulation::{journal::Fate, names::NodeName, network::SimNetwork};
use bytes::Bytes;
use futures::{StreamExt, stream};
use soma_network::wire::{BlockStream, CallError};
use std::{collections::VecDeque, future::pending};
use tokio::time::{Instant, sleep_until};

/// Bytes of a stream that its receiver takes before it has read any: what the TLS transport grants. The window of the
/// connection, twice as much, is not simulated: no link here holds that many.
const STREAM_WINDOW: usize = 4 << 20;

type Chunk = Result<Vec<Bytes>, CallError>;

/// A stream of blocks under way.
pub(super) struct Chunks {
    network: SimNetwork,
    from: NodeName,
    to: NodeName,
    /// The unsent rest; `None` when all is sent.
    unsent: Option<BlockStream>,
    /// Sent chunks with their times of arrival.
    on_the_way: VecDeque<(Fate, Instant, Chunk)>,
    /// Room in the window that comes back, with when.
    returning: VecDeque<(Instant, usize)>,
    /// Bytes sent for which no room has come back.
    in_window: usize,
}

impl Chunks {
    /// A stream that `from` has opened for `to`, and of which nothing has been sent.
    pub(super) fn new(network: SimNetwork, from: NodeName, to: NodeName, stream: BlockStream) -> Self {
        let (on_the_way, returning) = (VecDeque::new(), VecDeque::new());
        Self { network, from, to, unsent: Some(stream), on_the_way, returning, in_window: 0 }
    }

    /// Sends until nothing is left, and never resolves.
    pub(super) async fn send(&mut self) {
        while self.unsent.is_some() {
            self.step().await;
        }
        pending().await
    }

    /// Sends the next chunk or finds that there is none; or, where the window is full, waits for room.
    async fn step(&mut self) {
        match (&mut self.unsent, self.returning.front().copied()) {
            (Some(stream), _) if self.in_window < STREAM_WINDOW => match stream.next().await {
                Some(chunk) => self.depart(chunk),
                None => self.unsent = None,
            },
            (Some(_), Some((when, bytes))) => {
                sleep_until(when).await;
                self.returning.pop_front();
                self.in_window = self.in_window.saturating_sub(bytes);
            }
            // The receiver has to take something first.
            _ => pending().await,
        }
    }

    fn depart(&mut self, chunk: Chunk) {
        // After an error nothing follows.
        if chunk.is_err() {
            self.unsent = None;
        }
        let bytes = size(&chunk);
        self.in_window += bytes;
        let fate = self.network.depart(self.from, self.to, "chunk of blocks", bytes);
        let arrives = match fate {
            Fate::Arrives(after) => Instant::now() + after,
            Fate::Lost | Fate::CutOff => Instant::now(),
        };
        self.on_the_way.push_back((fate, arrives, chunk));
    }

    /// The next chunk, when it arrives; `None` behind the last.
    async fn next(&mut self) -> Option<Chunk> {
        loop {
            let Some((fate, arrives, _)) = self.on_the_way.front() else {
                self.unsent.as_ref()?;
                self.step().await;
                continue;
            };
            let (fate, arrives) = (*fate, *arrives);
            let arrived = async move {
                match fate {
                    Fate::Arrives(_) => sleep_until(arrives).await,
                    Fate::Lost | Fate::CutOff => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = arrived => {}
                () = self.send() => {}
            }
            if self.network.cuts(self.from, self.to) {
                return pending().await;
            }
            let (_, _, chunk) = self.on_the_way.pop_front()?;
            self.returning.push_back((Instant::now() + self.network.latency(), size(&chunk)));
            return Some(chunk);
        }
    }

    /// As the caller takes them.
    pub(super) fn into_stream(self) -> BlockStream {
        stream::unfold(self, |mut chunks| async move { Some((chunks.next().await?, chunks)) }).boxed()
    }
}

fn size(chunk: &Chunk) -> usize {
    chunk.as_ref().map_or(0, |blocks| blocks.iter().map(Bytes::len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{Scenario, full, journal::Journal, millis, validator};
    use std::time::Duration;

    /// Bytes per second.
    const BANDWIDTH: u64 = 10_000_000;

    fn network(latency: Duration) -> SimNetwork {
        let scenario = Scenario::named("a link").latency(latency..latency).bandwidth(BANDWIDTH);
        SimNetwork::new(1, &scenario, Journal::new())
    }

    /// When each of `count` chunks arrives, in milliseconds.
    async fn arrivals(network: &SimNetwork, count: usize, bytes: usize) -> Vec<u128> {
        let started = Instant::now();
        let chunks = stream::iter((0..count).map(move |_| Ok(vec![Bytes::from(vec![0; bytes])]))).boxed();
        let chunks = Chunks::new(network.clone(), validator(0), full(0), chunks).into_stream();
        chunks.map(|_| started.elapsed().as_millis()).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_one_link_queue_and_those_of_others_do_not_wait_for_them() {
        let network = network(millis(100));
        // A tenth of a second each.
        let first = network.depart(validator(0), full(0), "first", 1_000_000 - 200);
        assert_eq!(first, Fate::Arrives(millis(200)));
        assert_eq!(network.depart(validator(0), full(0), "second", 1_000_000 - 200), Fate::Arrives(millis(300)));
        for (from, to) in [(full(0), validator(0)), (validator(1), full(0))] {
            assert_eq!(network.depart(from, to, "elsewhere", 1_000_000 - 200), Fate::Arrives(millis(200)));
        }
        tokio::time::sleep(millis(150)).await;
        assert_eq!(network.depart(validator(0), full(0), "third", 1_000_000 - 200), Fate::Arrives(millis(250)));
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_follow_one_another_without_waiting_for_the_one_before_to_arrive() {
        assert_eq!(arrivals(&network(millis(100)), 4, 100_000 - 200).await, [110, 120, 130, 140]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_window_holds_a_stream_up_until_room_has_come_back() {
        // Two chunks fill it; the room of the first is back after another latency.
        let size = STREAM_WINDOW / 2;
        let sent = (size + 200) as u128 * 1_000 / u128::from(BANDWIDTH) + 1;
        let found = arrivals(&network(millis(500)), 3, size).await;
        assert_eq!(found[0], 500 + sent);
        assert!((2 * 500 + 500 + 2 * sent - 2..=2 * 500 + 500 + 2 * sent).contains(&found[2]), "{found:?}");
    }
}
