//! Capabilities to send one kind of message to one actor, in any of its incarnations.

use crate::{
    causality,
    life::{Incarnation, Life, Queued},
    reply::Reply,
};
use actix::{Actor, Addr, Context, Handler, Message, Recipient, dev::ToEnvelope, prelude::SendError};
use soma_replay::Origin;
use std::{fmt, future::Future, pin::Pin, sync::Arc};
use tokio::sync::{Notify, watch};

/// A message on its way, with what the receiver needs to tell its story.
#[derive(Debug)]
pub struct Envelope<M> {
    /// The sender and the cause.
    pub origin: Origin,
    /// The message.
    pub message: M,
    /// Counts it for as long as it waits or is handled.
    queued: Option<Queued>,
}

impl<M> Envelope<M> {
    /// A message that no mailbox counts.
    pub fn new(origin: Origin, message: M) -> Self {
        Self { origin, message, queued: None }
    }
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
    /// The actor is being restarted, or has stopped.
    Closed,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor was not there, or died before it answered.
    #[error("{receiver} is not there; it is being restarted or was stopped")]
    Closed {
        /// The actor asked.
        receiver: &'static str,
    },
}

/// The place of a supervised actor. References made from it find the present incarnation.
pub struct Slot<A: Actor> {
    publish: watch::Sender<Option<Incarnation<A>>>,
    reference: ActorRef<A>,
    /// Dropped when the place is gone already.
    _bell: Bell,
}

/// Wakes those who wait for somebody to live in a place, in the order in which they came: a `watch` wakes them in
/// any, and a simulation of one seed would differ from run to run.
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<A: Actor> Slot<A> {
    /// An empty place. References can be given to others before anyone lives in it.
    pub fn new(name: &'static str) -> Self {
        let (publish, current) = watch::channel(None);
        let changed = Arc::new(Notify::new());
        let bell = Bell(changed.clone());
        Self { publish, reference: ActorRef { name, current, changed }, _bell: bell }
    }

    /// The actor's name.
    pub fn name(&self) -> &'static str {
        self.reference.name
    }

    /// A reference that follows the incarnations here.
    pub fn reference(&self) -> ActorRef<A> {
        self.reference.clone()
    }

    /// An incarnation begins and gets all later messages, unless its life has been ended already.
    pub fn enter(&self, address: Addr<A>, life: Life) {
        let entered = self.publish.send_if_modified(|current| {
            let lives = !life.has_ended();
            if lives {
                *current = Some(Incarnation { address, life });
            }
            lives
        });
        if entered {
            self.reference.changed.notify_waiters();
        }
    }

    /// The incarnation has ended. Its askers will get no answer, even if its thread still holds the
    /// question.
    pub fn leave(&self, life: &Life) {
        // In this order: it cannot enter any more when the place has been cleared.
        life.end();
        self.publish.send_replace(None);
    }
}

/// A reference to a supervised actor that follows its restarts.
pub struct ActorRef<A: Actor> {
    name: &'static str,
    current: watch::Receiver<Option<Incarnation<A>>>,
    /// An incarnation lives there now, or the place is gone.
    changed: Arc<Notify>,
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { name: self.name, current: self.current.clone(), changed: self.changed.clone() }
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
    pub async fn alive(self) -> bool {
        loop {
            // Made before the look at the place: so nothing is missed between the two.
            let changed = self.changed.notified();
            if self.current.borrow().is_some() {
                return true;
            }
            if self.current.has_changed().is_err() {
                return false;
            }
            changed.await;
        }
    }
}

/// Finds the receiver of messages of type `M`.
trait Route<M>: Send + Sync
where
    M: Send + 'static,
{
    fn resolve(&self) -> Option<Receiver<M>>;
    fn alive(&self) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

/// One incarnation as a receiver of messages of type `M`.
struct Receiver<M: Send + 'static> {
    recipient: Recipient<Envelope<M>>,
    life: Life,
}

impl<A, M> Route<M> for ActorRef<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<M>>,
    A::Context: ToEnvelope<A, Envelope<M>>,
    M: Send + 'static,
{
    fn resolve(&self) -> Option<Receiver<M>> {
        let Incarnation { address, life } = self.current.borrow().clone()?;
        Some(Receiver { recipient: address.recipient(), life })
    }

    fn alive(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(self.clone().alive())
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
    current: Option<Receiver<M>>,
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

    /// Resolves when an incarnation of the receiver is alive; at once if one is. `false` when there will be none any
    /// more.
    pub(crate) fn alive(&self) -> impl Future<Output = bool> + use<M> {
        self.route.alive()
    }

    /// Puts a message into an envelope with the present cause, whenever it is sent.
    pub(crate) fn envelope(&self, message: M) -> Envelope<M> {
        Envelope::new(causality::origin(self.sender), message)
    }

    /// The incarnation to send to. CacheUpdate from one message to the next: a fresh recipient would always find room.
    fn receiver_alive(&mut self) -> Option<&Receiver<M>> {
        let alive = |receiver: &Receiver<M>| receiver.recipient.connected() && !receiver.life.has_ended();
        if !self.current.as_ref().is_some_and(alive) {
            self.current = self.route.resolve().filter(alive);
        }
        self.current.as_ref()
    }

    /// Sends without waiting.
    pub fn tell(&mut self, message: M) -> Delivery {
        let mut envelope = self.envelope(message);
        let Some(receiver) = self.receiver_alive() else { return Delivery::Closed };
        envelope.queued = Some(receiver.life.queue());
        match receiver.recipient.try_send(envelope) {
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
        match self.send(envelope).await {
            Some(_) => Delivery::Accepted,
            None => Delivery::Closed,
        }
    }

    /// Sends at once. The returned future tells when the message was taken, and in which life.
    fn send(&mut self, mut envelope: Envelope<M>) -> impl Future<Output = Option<Life>> + use<M> {
        let sent = self.receiver_alive().map(|receiver| {
            envelope.queued = Some(receiver.life.queue());
            (receiver.recipient.send(envelope), receiver.life.clone())
        });
        async move {
            let (taken, life) = sent?;
            let taken = unless_ended(&life, async { taken.await.ok() }).await;
            taken.map(|()| life)
        }
    }

    /// Sends a question as [`deliver`](Self::deliver) does, and waits for the answer.
    pub async fn ask<R>(&mut self, question: impl FnOnce(Reply<R>) -> M) -> Result<R, AskError> {
        self.ask_one(question).await.map(|(answer, _)| answer)
    }

    /// As [`ask`](Self::ask), and returns the life that answered: for permissions that must end with it.
    pub async fn ask_one<R>(&mut self, question: impl FnOnce(Reply<R>) -> M) -> Result<(R, Life), AskError> {
        self.ask_now(question).await
    }

    /// Asks at once; the answer and its life come later. For questions that must arrive in the order in
    /// which they are asked, in any order of polling the futures of the answers.
    pub fn ask_now<R, F>(&mut self, question: F) -> impl Future<Output = Result<(R, Life), AskError>> + use<M, R, F>
    where
        F: FnOnce(Reply<R>) -> M,
    {
        let receiver = self.receiver;
        let (reply, pending) = Reply::channel();
        let question = self.envelope(question(reply));
        let sent = self.send(question);
        async move {
            let closed = AskError::Closed { receiver };
            let Some(life) = sent.await else { return Err(closed) };
            match unless_ended(&life, pending.answer(receiver)).await {
                Some(answer) => Ok((answer, life)),
                None => Err(closed),
            }
        }
    }
}

/// Waits for an incarnation, but not beyond its life: a blocked thread would hold the message for ever.
async fn unless_ended<R>(life: &Life, done: impl Future<Output = Option<R>>) -> Option<R> {
    tokio::select! {
        biased;
        done = done => done,
        () = life.ended() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the questions that it has been asked.
    struct Counter(u32);

    struct Count(Reply<u32>);

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    impl Handler<Envelope<Count>> for Counter {
        type Result = ();

        fn handle(&mut self, envelope: Envelope<Count>, _: &mut Context<Self>) {
            self.0 += 1;
            envelope.message.0.send(self.0);
        }
    }

    #[test]
    fn questions_arrive_in_order_whichever_answer_is_awaited_first() {
        actix_rt::System::new().block_on(async {
            let slot = Slot::<Counter>::new("counter");
            slot.enter(Counter(0).start(), Life::default());
            let mut counter = slot.reference().mailbox("asker");
            let first = counter.ask_now(Count);
            let second = counter.ask_now(Count);
            let (second, first) = tokio::join!(second, first);
            assert_eq!((first.unwrap().0, second.unwrap().0), (1, 2));
        });
    }
}
