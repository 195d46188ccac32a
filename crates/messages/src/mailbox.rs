//! Capabilities to send one kind of message to one actor, whichever incarnation of it is alive.

use crate::causality;
use actix::{Actor, Addr, Context, Handler, Message, Recipient, dev::ToEnvelope, prelude::SendError};
use soma_replay::{Cause, Origin};
use std::{fmt, sync::Arc};
use tokio::sync::{oneshot, watch};

/// A message on its way, with what the receiver needs to tell its story.
#[derive(Debug)]
pub struct Envelope<M> {
    /// Who sent it, and because of what.
    pub origin: Origin,
    /// The message.
    pub message: M,
}

impl<M: 'static> Message for Envelope<M> {
    type Result = ();
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// It is in the mailbox.
    Accepted,
    /// The mailbox is full; the message was dropped, and counted.
    Busy,
    /// Nobody is there: being restarted, or stopped.
    Closed,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody was there, or whoever was died before it answered.
    #[error("{receiver} is not there; it is being restarted or was stopped")]
    Closed {
        /// The actor asked.
        receiver: &'static str,
    },
}

/// Where an answer goes. Dropping it tells the asker that none will come.
#[derive(Debug)]
pub struct Reply<R>(oneshot::Sender<Answer<R>>);

/// An answer on its way back.
#[derive(Debug)]
struct Answer<R> {
    cause: Option<Cause>,
    content: R,
}

/// Where an answer arrives.
#[derive(Debug)]
pub struct Pending<R>(oneshot::Receiver<Answer<R>>);

impl<R> Pending<R> {
    /// Waits for the answer of `by`; `None` when there will be none. What comes next follows from it.
    pub async fn answer(self, by: &'static str) -> Option<R> {
        let Answer { cause, content } = self.0.await.ok()?;
        causality::answered(by, cause);
        Some(content)
    }
}

impl<R> Reply<R> {
    /// Answers. Whether the asker still waits is its own business.
    pub fn send(self, answer: R) {
        let _ = self.0.send(Answer { cause: causality::current(), content: answer });
    }

    /// A reply and the end at which it arrives.
    pub fn channel() -> (Self, Pending<R>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), Pending(receiver))
    }
}

/// A reference to a supervised actor that follows its restarts.
pub struct ActorRef<A: Actor> {
    name: &'static str,
    current: watch::Receiver<Option<Addr<A>>>,
}

/// The end at which the supervisor publishes the address of each incarnation, and a reference that follows it.
pub fn actor_ref<A: Actor>(name: &'static str) -> (watch::Sender<Option<Addr<A>>>, ActorRef<A>) {
    let (sender, current) = watch::channel(None);
    (sender, ActorRef { name, current })
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { name: self.name, current: self.current.clone() }
    }
}

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    /// The capability to send messages of type `M`, in the name of `sender`.
    pub fn mailbox<M>(&self, sender: &'static str) -> Mailbox<M>
    where
        M: Send + 'static,
        A: Handler<Envelope<M>>,
        A::Context: ToEnvelope<A, Envelope<M>>,
    {
        Mailbox { sender, receiver: self.name, route: Arc::new(self.clone()), current: None }
    }

    /// Resolves when an incarnation is alive; at once if one is. `false` when there will be none any more.
    pub async fn alive(mut self) -> bool {
        self.current.wait_for(Option::is_some).await.is_ok()
    }
}

/// Finds the receiver of messages of type `M`.
trait Route<M>: Send + Sync
where
    M: Send + 'static,
{
    fn resolve(&self) -> Option<Recipient<Envelope<M>>>;
}

impl<A, M> Route<M> for ActorRef<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<M>>,
    A::Context: ToEnvelope<A, Envelope<M>>,
    M: Send + 'static,
{
    fn resolve(&self) -> Option<Recipient<Envelope<M>>> {
        self.current.borrow().clone().map(Addr::recipient)
    }
}

/// The capability to send messages of type `M` to one actor.
///
/// The bound of a mailbox is its capacity and one message more for each further sender, so an actor keeps its
/// `Mailbox`; each clone counts as another sender.
pub struct Mailbox<M: Send + 'static> {
    sender: &'static str,
    receiver: &'static str,
    route: Arc<dyn Route<M>>,
    /// The incarnation last sent to.
    current: Option<Recipient<Envelope<M>>>,
}

impl<M: Send + 'static> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender, receiver: self.receiver, route: self.route.clone(), current: None }
    }
}

impl<M: Send + 'static> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({} -> {})", self.sender, self.receiver)
    }
}

impl<M: Send + 'static> Mailbox<M> {
    /// The actor at the other end.
    pub fn receiver(&self) -> &'static str {
        self.receiver
    }

    /// Puts a message into an envelope: it follows from what is being done now, whenever it is sent.
    pub(crate) fn envelope(&self, message: M) -> Envelope<M> {
        Envelope { origin: Origin { sender: self.sender, cause: causality::current() }, message }
    }

    /// The incarnation to send to. Kept from one message to the next: a fresh one would always find room.
    fn recipient(&mut self) -> Option<&Recipient<Envelope<M>>> {
        if self.current.as_ref().is_none_or(|recipient| !recipient.connected()) {
            self.current = self.route.resolve().filter(Recipient::connected);
        }
        self.current.as_ref()
    }

    /// Sends without waiting.
    pub fn tell(&mut self, message: M) -> Delivery {
        let envelope = self.envelope(message);
        let Some(recipient) = self.recipient() else { return Delivery::Closed };
        match recipient.try_send(envelope) {
            Ok(()) => Delivery::Accepted,
            Err(SendError::Full(_)) => {
                metrics::counter!("soma_mailbox_busy_total", "receiver" => self.receiver, "sender" => self.sender)
                    .increment(1);
                Delivery::Busy
            }
            Err(SendError::Closed(_)) => Delivery::Closed,
        }
    }

    /// Sends, and waits until the receiver has taken it: one message at a time for each `Mailbox`, even when the
    /// receiver's is full.
    pub async fn deliver(&mut self, message: M) -> Delivery {
        let envelope = self.envelope(message);
        self.deliver_envelope(envelope).await
    }

    pub(crate) async fn deliver_envelope(&mut self, envelope: Envelope<M>) -> Delivery {
        let Some(recipient) = self.recipient() else { return Delivery::Closed };
        match recipient.send(envelope).await {
            Ok(()) => Delivery::Accepted,
            Err(_) => Delivery::Closed,
        }
    }

    /// Sends a question as [`deliver`](Self::deliver) does, and waits for the answer.
    pub async fn ask<R>(&mut self, question: impl FnOnce(Reply<R>) -> M) -> Result<R, AskError> {
        let closed = AskError::Closed { receiver: self.receiver };
        let (reply, pending) = Reply::channel();
        match self.deliver(question(reply)).await {
            Delivery::Accepted => pending.answer(self.receiver).await.ok_or(closed),
            Delivery::Busy | Delivery::Closed => Err(closed),
        }
    }
}
