//! Actors under supervision on threads of their own, in real time.

mod common;

use common::{Births, Life, Order, incarnation, run_threads, subject};
use soma_runtime::{ChildState, ExitReason, Rules, RuntimeContext, Strategy, Supervisor};
use soma_runtime::{Delivery, Mailbox, Reply};
use std::{sync::mpsc, thread, time::Duration};
use tokio::sync::oneshot;

const CAPACITY: usize = 8;

/// How long a subject may be silent here.
const ALLOWANCE: Duration = Duration::from_millis(300);

fn supervised(runtime_context: &RuntimeContext, life: Life, allowance: Duration) -> (Supervisor, Mailbox<Order>) {
    let mut root = Supervisor::new("root", Strategy::OneForOne, runtime_context.clone(), 1);
    let (mut spec, mailbox) = subject("subject", CAPACITY, Births::default(), life);
    spec.allowance = allowance;
    root.actor(spec.with_rules(Rules { shutdown: ALLOWANCE, ..Rules::default() }));
    (root, mailbox)
}

/// Orders the subject to do something on its thread, and waits for what comes of it.
async fn on_its_thread<R: Send + 'static>(subject: &mut Mailbox<Order>, work: fn() -> R) -> R {
    let (done, result) = oneshot::channel();
    let work = Box::new(move || drop(done.send(work())));
    assert_eq!(subject.tell(Order::Do(work)), Delivery::Accepted);
    result.await.unwrap()
}

/// Blocks the subject's thread until the sender that this gives is dropped.
async fn block(subject: &mut Mailbox<Order>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    let (blocked, is_blocked) = oneshot::channel();
    let work = Box::new(move || {
        let _ = blocked.send(());
        // An error is what ends it.
        let _ = released.recv();
    });
    assert_eq!(subject.tell(Order::Do(work)), Delivery::Accepted);
    is_blocked.await.unwrap();
    release
}

#[test]
fn each_actor_has_a_thread_that_bears_its_name_and_ends_with_it() {
    run_threads(|runtime_context| async move {
        let (root, mut subject) = supervised(&runtime_context, Life::Usual, Duration::from_secs(10));
        let supervision = root.start();
        assert_eq!(incarnation(&mut subject).await, 1);
        let name = on_its_thread(&mut subject, || thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.as_deref(), Some("subject"));
        assert_eq!((runtime_context.child_counts().threads(), runtime_context.child_counts().actors()), (1, 1));
        assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        assert_eq!(incarnation(&mut subject).await, 2);
        assert_eq!((runtime_context.child_counts().threads(), runtime_context.child_counts().actors()), (1, 1));
        assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
        assert_eq!((runtime_context.child_counts().threads(), runtime_context.child_counts().actors()), (0, 0));
    });
}

#[test]
fn blocked_threads_work_is_taken_over_and_the_thread_ends_when_it_can() {
    run_threads(|runtime_context| async move {
        let (root, mut subject) = supervised(&runtime_context, Life::Usual, ALLOWANCE);
        let supervision = root.start();
        assert_eq!(incarnation(&mut subject).await, 1);
        let mut asking = subject.clone();
        let release = block(&mut subject).await;
        assert!(asking.ask(Order::Who).await.is_err(), "what the blocked thread holds will not be answered");
        assert_eq!(incarnation(&mut subject).await, 2, "another thread has taken over");
        let status = supervision.tree().find("subject").unwrap().status();
        match status.last_exit {
            Some(ExitReason::Killed(reason)) => assert!(reason.contains("its thread is blocked"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((runtime_context.child_counts().blocked(), runtime_context.child_counts().threads()), (1, 2));

        drop(release);
        while runtime_context.child_counts().blocked() > 0 {
            // Turn by turn with the thread that ends.
            assert_eq!(incarnation(&mut subject).await, 2);
        }
        assert_eq!((runtime_context.child_counts().threads(), runtime_context.child_counts().actors()), (1, 1));
        assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
    });
}

#[test]
fn actor_that_waits_for_ever_is_replaced_without_an_abandoned_thread() {
    run_threads(|runtime_context| async move {
        let (root, mut subject) = supervised(&runtime_context, Life::Usual, ALLOWANCE);
        let _supervision = root.start();
        assert_eq!(incarnation(&mut subject).await, 1);
        assert_eq!(subject.tell(Order::Hang), Delivery::Accepted);
        assert_eq!(incarnation(&mut subject).await, 2);
        assert_eq!((runtime_context.child_counts().blocked(), runtime_context.child_counts().threads()), (0, 1));
    });
}

#[test]
fn too_many_blocked_threads_are_a_reason_to_give_up() {
    run_threads(|runtime_context| async move {
        let (root, mut subject) = supervised(&runtime_context, Life::Usual, Duration::from_millis(100));
        let supervision = root.start();
        let mut held = Vec::new();
        let subject_in = supervision.tree().find("subject").unwrap().clone();
        loop {
            let status =
                subject_in.wait_until(|child| matches!(child.state, ChildState::Running | ChildState::GivenUp)).await;
            if status.state == ChildState::GivenUp {
                break;
            }
            let (reply, pending) = Reply::channel();
            if subject.tell(Order::Who(reply)) == Delivery::Accepted && pending.answer("subject").await.is_some() {
                held.push(block(&mut subject).await);
                subject_in.wait_until(|child| child.state != ChildState::Running).await;
            }
        }
        assert_eq!((held.len(), runtime_context.child_counts().blocked()), (8, 8));
        assert!(supervision.escalation().borrow().as_ref().unwrap().to_string().contains("its thread is blocked"));
    });
}

#[test]
fn a_thread_that_is_blocked_at_shutdown_is_named_and_does_not_hold_it_up() {
    run_threads(|runtime_context| async move {
        let (root, mut subject) = supervised(&runtime_context, Life::Usual, Duration::from_secs(10));
        let supervision = root.start();
        incarnation(&mut subject).await;
        let _release = block(&mut subject).await;
        assert_eq!(supervision.shutdown(Duration::from_secs(60)).await, ["subject"]);
        assert_eq!(runtime_context.child_counts().blocked(), 1);
    });
}
