//! A subject to supervise, and a thread to do it on.
// Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, WrapFuture};
use soma_runtime::{ChildSpec, Clock, RuntimeContext};
use soma_runtime::{Envelope, Mailbox, Reply, Slot, Stop};
use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{task::LocalSet, time::sleep};

/// How often [`incarnation`] asks.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// Counts incarnations.
#[derive(Clone, Default)]
pub struct Births(Arc<AtomicU32>);

impl Births {
    /// The number of a new one.
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a subject is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Usual,
    /// It does not react to being told to stop.
    Deaf,
    PanicsAtStart,
}

/// Knows which incarnation it is, and does as it is told.
pub struct Subject {
    incarnation: u32,
    life: Life,
}

impl Subject {
    pub fn new(incarnation: u32, life: Life) -> Self {
        Self { incarnation, life }
    }
}

pub enum Order {
    Panic,
    Leave,
    /// Wait for what never comes.
    Hang,
    /// Do this.
    Do(Box<dyn FnOnce() + Send>),
    Who(Reply<u32>),
}

impl Actor for Subject {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if self.life == Life::PanicsAtStart {
            panic!("at start");
        }
    }
}

impl Handler<Envelope<Order>> for Subject {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Order>, context: &mut Context<Self>) {
        match envelope.message {
            Order::Panic => panic!("on purpose"),
            Order::Leave => context.stop(),
            Order::Hang => context.wait(pending().into_actor(self)),
            Order::Do(work) => work(),
            Order::Who(reply) => reply.send(self.incarnation),
        }
    }
}

impl Handler<Envelope<Stop>> for Subject {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        if self.life != Life::Deaf {
            context.stop();
            envelope.message.0.send(());
        }
    }
}

/// A subject's spec, and the capability to order it about.
pub fn subject(
    name: &'static str,
    capacity: usize,
    births: Births,
    life: Life,
) -> (ChildSpec<Subject>, Mailbox<Order>) {
    let slot = Slot::new(name);
    let mailbox = slot.reference().mailbox("test");
    let spec = ChildSpec::new(slot, capacity, move || {
        let subject = Subject::new(births.next(), life);
        async move { Ok(subject) }
    });
    (spec, mailbox)
}

/// Runs a scenario on one thread, in virtual time.
pub fn run<F: Future<Output = ()>>(scenario: impl FnOnce(RuntimeContext) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { scenario(RuntimeContext::new(Clock::simulated(0))).await });
}

/// Which incarnation answers; one that dies before it does, or is not there yet, is asked again.
pub async fn incarnation(subject: &mut Mailbox<Order>) -> u32 {
    loop {
        match subject.ask(Order::Who).await {
            Ok(incarnation) => return incarnation,
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// Runs a scenario on one thread in real time, with a thread for each actor.
pub fn run_threads<F: Future<Output = ()>>(scenario: impl FnOnce(RuntimeContext) -> F) {
    let runtime = actix_rt::Runtime::new().unwrap();
    runtime.block_on(async { scenario(RuntimeContext::new(Clock::system()).with_threads()).await });
}
