//! Actors under supervision, in virtual time.

use actix::{Actor, ActorContext, Context, Handler};
use soma_messages::{Delivery, Envelope, Mailbox, Pending, Reply, Stop};
use soma_supervision::{ChildSpec, ChildState, Clock, Environment, ExitReason, Intensity, RestartPolicy, Supervisor};
use std::{cell::Cell, future::Future, rc::Rc, time::Duration};
use tokio::task::LocalSet;

const CAPACITY: usize = 2;

/// Knows which incarnation it is; panics, stops, hangs or answers when told.
struct Subject {
    incarnation: u32,
    deaf: bool,
}

#[derive(Debug)]
enum Order {
    Panic,
    Leave,
    Who(Reply<u32>),
}

impl Actor for Subject {
    type Context = Context<Self>;
}

impl Handler<Envelope<Order>> for Subject {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Order>, context: &mut Context<Self>) {
        match envelope.message {
            Order::Panic => panic!("on purpose"),
            Order::Leave => context.stop(),
            Order::Who(reply) => reply.send(self.incarnation),
        }
    }
}

impl Handler<Envelope<Stop>> for Subject {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        if !self.deaf {
            context.stop();
            envelope.message.0.send(());
        }
    }
}

/// A supervised subject, and the capability to order it about.
fn supervised(supervisor: &mut Supervisor, policy: RestartPolicy, deaf: bool) -> Mailbox<Order> {
    let born = Rc::new(Cell::new(0));
    let mut spec = ChildSpec::new("subject", CAPACITY, move || {
        born.set(born.get() + 1);
        let subject = Subject { incarnation: born.get(), deaf };
        async move { Ok(subject) }
    });
    spec.policy = policy;
    spec.intensity = Intensity { max_restarts: 3, within: Duration::from_secs(60) };
    supervisor.start_new(spec).mailbox("test")
}

/// Runs a scenario on one thread, in virtual time.
fn run<F: Future<Output = ()>>(scenario: impl FnOnce(Supervisor) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new()
        .block_on(&runtime, async { scenario(Supervisor::new(Environment::new(Clock::simulated(0)), 1)).await });
}

/// Which incarnation answers; one that dies before it does, or is not there yet, is waited out.
async fn incarnation(supervisor: &Supervisor, child: usize, subject: &mut Mailbox<Order>) -> u32 {
    let mut status = supervisor.status().swap_remove(child);
    loop {
        match subject.ask(Order::Who).await {
            Ok(incarnation) => return incarnation,
            Err(_) => status.changed().await.unwrap(),
        }
    }
}

#[test]
fn an_actor_that_panics_is_made_anew_and_those_who_write_to_it_follow() {
    run(|mut supervisor| async move {
        let mut subject = supervised(&mut supervisor, RestartPolicy::Permanent, false);
        assert_eq!(incarnation(&supervisor, 0, &mut subject).await, 1);
        assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        assert_eq!(incarnation(&supervisor, 0, &mut subject).await, 2);
        let status = supervisor.status()[0].borrow().clone();
        assert_eq!((status.state, status.restarts), (ChildState::Running, 1));
        assert_eq!(status.last_exit, Some(ExitReason::Panicked("on purpose".into())));
    });
}

#[test]
fn an_actor_that_stops_itself_is_restarted_only_if_it_is_permanent() {
    run(|mut supervisor| async move {
        let mut permanent = supervised(&mut supervisor, RestartPolicy::Permanent, false);
        let mut transient = supervised(&mut supervisor, RestartPolicy::Transient, false);
        for (child, subject) in [&mut permanent, &mut transient].into_iter().enumerate() {
            assert_eq!(incarnation(&supervisor, child, subject).await, 1);
            assert_eq!(subject.tell(Order::Leave), Delivery::Accepted);
        }
        assert_eq!(incarnation(&supervisor, 0, &mut permanent).await, 2);
        let mut status = supervisor.status().remove(1);
        status.wait_for(|status| status.state == ChildState::Stopped).await.unwrap();
        assert_eq!(transient.tell(Order::Leave), Delivery::Closed);
    });
}

#[test]
fn an_actor_that_does_not_stay_up_is_given_up_and_escalated_with_the_reason() {
    run(|mut supervisor| async move {
        let mut subject = supervised(&mut supervisor, RestartPolicy::Permanent, false);
        for expected in 1..=4 {
            assert_eq!(incarnation(&supervisor, 0, &mut subject).await, expected);
            assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        }
        let mut escalation = supervisor.escalation();
        let escalation = escalation.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(escalation.to_string(), "subject does not stay up: it panicked: on purpose");
        assert_eq!(supervisor.status()[0].borrow().state, ChildState::GivenUp);
    });
}

#[test]
fn a_full_mailbox_says_busy_and_takes_messages_again_when_there_is_room() {
    run(|mut supervisor| async move {
        let mut subject = supervised(&mut supervisor, RestartPolicy::Permanent, false);
        incarnation(&supervisor, 0, &mut subject).await;
        let send = |subject: &mut Mailbox<Order>| {
            let (reply, answer): (_, Pending<u32>) = Reply::channel();
            (subject.tell(Order::Who(reply)), answer)
        };
        // Nothing is handled until this task waits.
        let accepted: Vec<_> =
            (0..10).map(|_| send(&mut subject)).take_while(|sent| sent.0 == Delivery::Accepted).collect();
        let bound = CAPACITY..=CAPACITY + 1;
        assert!(bound.contains(&accepted.len()), "the capacity, and at most one for the sender: {}", accepted.len());
        for (_, answer) in accepted {
            assert_eq!(answer.answer("subject").await, Some(1));
        }
        assert_eq!(send(&mut subject).0, Delivery::Accepted);
    });
}

#[test]
fn shutdown_restarts_nobody_and_names_who_did_not_stop_in_time() {
    run(|mut supervisor| async move {
        let mut good = supervised(&mut supervisor, RestartPolicy::Permanent, false);
        let mut deaf = supervised(&mut supervisor, RestartPolicy::Permanent, true);
        incarnation(&supervisor, 0, &mut good).await;
        incarnation(&supervisor, 1, &mut deaf).await;
        let status = supervisor.status();
        assert_eq!(supervisor.shutdown(Duration::from_secs(5)).await, ["subject"]);
        assert_eq!(status[0].borrow().state, ChildState::Stopped);
        assert_eq!(status[0].borrow().restarts, 0);
        assert_eq!((good.tell(Order::Leave), deaf.tell(Order::Leave)), (Delivery::Closed, Delivery::Closed));
    });
}
