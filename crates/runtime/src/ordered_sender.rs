//! Messages that must arrive, in order, without making the sender wait.

use crate::mailbox::{ActorRef, Delivery, Envelope, Mailbox};
use actix::{Actor, Context, Handler, dev::ToEnvelope};
use std::fmt::Debug;
use tokio::sync::mpsc;

/// Messages that may wait for one receiver. They are small, and their number is bounded by what they tell of (peers,
/// ranges); a thousand waiting means that the receiver hangs.
const CAPACITY: usize = 1_024;

/// A queue in front of a [`Mailbox`], emptied by a task, one message at a time.
///
/// A message that is posted before the receiver is up waits for it: actors start, and are restarted
/// together, at the same time. A message that is posted during a later restart is dropped: a restarted actor
/// rebuilds its state by asking, not from old news.
pub struct OrderedSender<M: Send + 'static> {
    queue: mpsc::Sender<Envelope<M>>,
    /// For its name and its envelopes; the task has the one that sends.
    mailbox: Mailbox<M>,
}

impl<M: Debug + Send + 'static> OrderedSender<M> {
    /// Starts the task on the current actor thread; it ends when the outbox is dropped and empty.
    pub fn new(mailbox: Mailbox<M>) -> Self {
        let (queue, mut posted) = mpsc::channel(CAPACITY);
        let (receiver, mut sending) = (mailbox.receiver(), mailbox.clone());
        actix_rt::spawn(async move {
            sending.alive().await;
            while let Some(envelope) = posted.recv().await {
                if sending.deliver_envelope(envelope).await != Delivery::Accepted {
                    tracing::debug!(receiver, "message dropped: the receiver is not there");
                }
            }
        });
        Self { queue, mailbox }
    }

    /// The actor at the other end.
    pub fn receiver(&self) -> &'static str {
        self.mailbox.receiver()
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

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    /// An [`OrderedSender`] of messages of type `M`, in the name of `sender`. Call it on the sender's thread.
    pub fn ordered_sender<M>(&self, sender: &'static str) -> OrderedSender<M>
    where
        M: Debug + Send + 'static,
        A: Handler<Envelope<M>>,
        A::Context: ToEnvelope<A, Envelope<M>>,
    {
        OrderedSender::new(self.mailbox(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{life::Life, mailbox::Slot};

    struct Listener(mpsc::UnboundedSender<u32>);

    impl Actor for Listener {
        type Context = Context<Self>;
    }

    impl Handler<Envelope<u32>> for Listener {
        type Result = ();

        fn handle(&mut self, envelope: Envelope<u32>, _: &mut Context<Self>) {
            self.0.send(envelope.message).unwrap();
        }
    }

    #[test]
    fn messages_wait_for_the_receivers_start_and_are_lost_while_it_is_down() {
        actix_rt::System::new().block_on(async {
            let (heard, mut hears) = mpsc::unbounded_channel();
            let slot = Slot::<Listener>::new("listener");
            let sender = OrderedSender::new(slot.reference().mailbox::<u32>("sender"));
            let post = |number| assert_eq!(sender.post(number), Delivery::Accepted);
            post(1);
            post(2);
            // The outbox has had its turn, and the receiver was gone.
            tokio::task::yield_now().await;
            let first = Life::default();
            slot.enter(Listener(heard.clone()).start(), first.clone());
            assert_eq!((hears.recv().await, hears.recv().await), (Some(1), Some(2)));

            slot.leave(&first);
            post(3);
            // Emptied: 3 has been taken out, and the receiver was gone.
            while sender.queue.capacity() < CAPACITY {
                tokio::task::yield_now().await;
            }
            slot.enter(Listener(heard).start(), Life::default());
            post(4);
            assert_eq!(hears.recv().await, Some(4));
        });
    }

    #[test]
    fn messages_of_a_sender_restarted_before_its_receiver_wait_for_it() {
        actix_rt::System::new().block_on(async {
            let (heard, mut hears) = mpsc::unbounded_channel();
            let slot = Slot::<Listener>::new("listener");
            let first = Life::default();
            slot.enter(Listener(heard.clone()).start(), first.clone());
            slot.leave(&first);

            let sender = OrderedSender::new(slot.reference().mailbox::<u32>("sender"));
            assert_eq!(sender.post(1), Delivery::Accepted);
            // The outbox has had its turn, and the receiver was gone.
            tokio::task::yield_now().await;
            slot.enter(Listener(heard).start(), Life::default());
            assert_eq!(hears.recv().await, Some(1));
        });
    }
}
