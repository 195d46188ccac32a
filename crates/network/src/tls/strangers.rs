//! The shared rate of strangers' frames.
//!
//! Identities are free, so strangers share one rate of frames. The limit applies where bytes are read: a
//! stranger's previous frames must be paid for before it is read again. Meanwhile its data waits in the socket.
//!
//! ```text
//!   read --> frames --> queue: fewest sent frames first --> paid at the common rate --> read
//! ```
//!
//! This is start-time fair queueing (Goyal, Vin and Cheng, 1996): fast senders share the rate in equal parts, and a
//! sender below its share does not wait.

use crate::standing::Standing;
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Frames per second that this node reads from all strangers together. Frames are those of calls, without their data.
/// The rate costs a quarter of a core. A peer that syncs 100,000 blocks per second makes 300 calls per second.
const FRAMES_PER_SECOND: u32 = 4_000;

/// After this much quiet time, strangers together may send the frames of that time at once.
const BURST: Duration = Duration::from_secs(1);

/// Frames that a new connection starts with, so that reconnecting gains nothing. Its handshake has cost this node at
/// least as much.
const FRAMES_OF_NEWCOMER: u64 = 50;

/// Frames that a stranger below its share may send without waiting.
const CREDIT: u64 = 200;

/// All strangers of a listener.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<Queue>);

/// The connections that wait to pay for their frames.
#[derive(Default)]
struct Queue {
    /// Sorted by sent frames, then by connection number.
    waiting: BTreeMap<(u64, u64), Waker>,
    /// Sent frames of the connection that paid last. A connection that was quiet counts as having sent as many.
    sent: u64,
    /// When all frames are paid for; the rate is used up until then.
    paid_at: Option<Instant>,
    next: u64,
}

impl Queue {
    /// Pays for all unpaid frames of a connection that had sent `sent`. Returns its new number of sent frames.
    fn pay(&mut self, sent: u64, unpaid: &mut u32) -> u64 {
        let frames = std::mem::take(unpaid);
        let price = Duration::from_secs(1) * frames / FRAMES_PER_SECOND;
        let now = Instant::now();
        self.paid_at = Some(self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + price);
        self.sent = self.sent.max(sent);
        sent + u64::from(frames)
    }

    fn wake_first(&self) {
        if let Some((_, first)) = self.waiting.first_key_value() {
            first.wake_by_ref();
        }
    }
}

impl Strangers {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's share of the rate.
pub(crate) struct Share {
    strangers: Arc<Strangers>,
    standing: Standing,
    number: u64,
    /// Frames that count as sent by this connection.
    sent: u64,
    /// Frames that were read but not paid for.
    unpaid: u32,
    waits: Option<(u64, u64)>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Share {
    pub(crate) fn new(strangers: Arc<Strangers>, standing: Standing) -> Self {
        let mut queue = strangers.queue();
        queue.next += 1;
        let (number, sent) = (queue.next, queue.sent + FRAMES_OF_NEWCOMER);
        drop(queue);
        Self { strangers, standing, number, sent, unpaid: 0, waits: None, pause: None }
    }

    /// Ready when this connection may be read.
    pub(crate) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.unpaid == 0 {
            return Poll::Ready(());
        }
        if !self.standing.is_stranger() {
            self.unpaid = 0;
            self.leave();
            return Poll::Ready(());
        }
        let mut queue = self.strangers.queue();
        let sent = self.sent.max(queue.sent.saturating_sub(CREDIT));
        if sent < queue.sent && self.waits.is_none() {
            self.sent = queue.pay(sent, &mut self.unpaid);
            return Poll::Ready(());
        }
        let place = *self.waits.get_or_insert((sent, self.number));
        queue.waiting.insert(place, context.waker().clone());
        if queue.waiting.first_key_value().is_none_or(|(first, _)| *first != place) {
            return Poll::Pending;
        }
        let now = Instant::now();
        let turn = queue.paid_at.and_then(|paid_at| paid_at.checked_sub(BURST)).filter(|turn| *turn > now);
        if let Some(turn) = turn {
            drop(queue);
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(turn)));
            pause.as_mut().reset(turn);
            // A connection with fewer frames may come first meanwhile. It wakes this one after it has paid.
            return match pause.as_mut().poll(context) {
                Poll::Ready(()) => self.poll_turn(context),
                Poll::Pending => Poll::Pending,
            };
        }
        self.sent = queue.pay(place.0, &mut self.unpaid);
        drop(queue);
        self.leave();
        Poll::Ready(())
    }

    /// Adds frames that were read.
    pub(crate) fn read(&mut self, frames: u32) {
        if self.standing.is_stranger() {
            self.unpaid = self.unpaid.saturating_add(frames);
        }
    }

    /// Leaves the queue and wakes the next connection.
    fn leave(&mut self) {
        if let Some(place) = self.waits.take() {
            let mut queue = self.strangers.queue();
            queue.waiting.remove(&place);
            queue.wake_first();
        }
        self.pause = None;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{join_all, poll_fn};
    use tokio::time::{sleep, timeout};

    fn share(strangers: &Arc<Strangers>) -> Share {
        Share::new(strangers.clone(), Standing::default())
    }

    /// Frames that a connection sends within `seconds`, `at_once` at a time and as fast as they are read.
    async fn sent(mut share: Share, seconds: u64, at_once: u32, most: u32) -> u32 {
        let mut frames = 0;
        let sending = async {
            while frames < most {
                poll_fn(|context| share.poll_turn(context)).await;
                share.read(at_once);
                frames += at_once;
                tokio::task::yield_now().await;
            }
        };
        let _ = timeout(Duration::from_secs(seconds), sending).await;
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_share_one_rate_in_equal_parts() {
        let seconds = 10;
        let most = FRAMES_PER_SECOND * (seconds as u32 + 1);
        let one = sent(share(&Arc::default()), seconds, 10, u32::MAX).await;
        assert!((most * 9 / 10..=most + 20).contains(&one), "{one}");

        let strangers = Arc::default();
        let crowd = (1..=20).map(|number| sent(share(&strangers), seconds, 10 * number, u32::MAX));
        let each = join_all(crowd).await;
        let all: u32 = each.iter().sum();
        // The last frames of each connection are read but not paid for.
        assert!((most * 9 / 10..=most + 20 * 200).contains(&all), "{all}");
        for frames in &each {
            assert!((all / 20 / 2..=all / 20 * 2).contains(frames), "{each:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stranger_that_sends_little_does_not_wait_for_fast_senders() {
        let strangers = Arc::default();
        let mut little = share(&strangers);
        let crowd = join_all((0..20).map(|_| sent(share(&strangers), 10, 200, u32::MAX)));
        let calls = async {
            let mut longest = Duration::ZERO;
            for _ in 0..8 {
                sleep(Duration::from_secs(1)).await;
                let began = Instant::now();
                little.read(2);
                poll_fn(|context| little.poll_turn(context)).await;
                longest = longest.max(began.elapsed());
            }
            longest
        };
        let (longest, _) = tokio::join!(calls, crowd);
        assert_eq!(longest, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_that_reconnect_take_nothing_from_one_that_stays() {
        let strangers: Arc<Strangers> = Arc::default();
        let again = |strangers: Arc<Strangers>| async move {
            loop {
                sent(share(&strangers), 10, 100, 200).await;
            }
        };
        let others = timeout(Duration::from_secs(10), join_all((0..9).map(|_| again(strangers.clone()))));
        let (stays, _) = tokio::join!(sent(share(&strangers), 10, 100, u32::MAX), others);
        assert!(stays >= FRAMES_PER_SECOND * 10 / 10 / 2, "{stays}");
    }

    #[tokio::test(start_paused = true)]
    async fn known_peer_is_read_at_once_while_many_strangers_send() {
        let strangers = Arc::default();
        let known = Standing::default();
        known.favour(Duration::from_secs(60));
        let crowd = join_all((0..20).map(|_| sent(share(&strangers), 1, 10, u32::MAX)));
        let known = sent(Share::new(strangers.clone(), known), 1, 10, 100_000);
        let (known, _) = tokio::join!(known, crowd);
        assert_eq!(known, 100_000);
    }
}
