//! Messages that must arrive, in order, without making the sender wait.

use crate::{Delivery, Envelope, Mailbox};
use std::fmt::Debug;
use tokio::sync::mpsc;

/// Messages that may wait for one receiver. They are small, and their number is bounded by what they tell of (peers,
/// ranges); a thousand waiting means that the receiver hangs.
const CAPACITY: usize = 1_024;

/// A queue in front of a [`Mailbox`], emptied by a task, one message at a time.
///
/// What is posted while the receiver is being restarted is dropped: a restarted actor rebuilds its state by asking,
/// not from old news.
pub struct Outbox<M: Send + 'static> {
    queue: mpsc::Sender<Envelope<M>>,
    /// For its name and its envelopes; the task has the one that sends.
    mailbox: Mailbox<M>,
}

impl<M: Debug + Send + 'static> Outbox<M> {
    /// Starts the task on the current actor thread; it ends when the outbox is dropped and empty.
    pub fn new(mailbox: Mailbox<M>) -> Self {
        let (queue, mut posted) = mpsc::channel(CAPACITY);
        let (receiver, mut sending) = (mailbox.receiver(), mailbox.clone());
        actix_rt::spawn(async move {
            while let Some(envelope) = posted.recv().await {
                if sending.deliver_envelope(envelope).await != Delivery::Accepted {
                    tracing::debug!(receiver, "message dropped: the receiver is not there");
                }
            }
        });
        Self { queue, mailbox }
    }

    /// Queues a message. [`Delivery::Busy`] is counted and logged here.
    pub fn post(&self, message: M) -> Delivery {
        match self.queue.try_send(self.mailbox.envelope(message)) {
            Ok(()) => Delivery::Accepted,
            Err(mpsc::error::TrySendError::Full(Envelope { message, .. })) => {
                let receiver = self.mailbox.receiver();
                metrics::counter!("soma_outbox_busy_total", "receiver" => receiver).increment(1);
                tracing::error!(receiver, ?message, "message dropped: the receiver does not keep up");
                Delivery::Busy
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Closed,
        }
    }
}
