//! Actors under supervision, in virtual time and on one thread.

mod common;

use common::{Births, Life, Order, incarnation, run, subject};
use soma_runtime::{
    Backoff, ChildSpec, ChildState, ExitReason, Intensity, RestartPolicy, Rules, RuntimeContext, Strategy, Supervisor,
};
use soma_runtime::{Delivery, Mailbox, Pending, Reply, Slot};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const CAPACITY: usize = 2;

fn rules(policy: RestartPolicy) -> Rules {
    Rules { policy, intensity: Intensity { max_restarts: 3, within: Duration::from_secs(60) }, ..Rules::default() }
}

fn root(strategy: Strategy, runtime_context: &RuntimeContext) -> Supervisor {
    Supervisor::new("root", strategy, runtime_context.clone(), 1)
}

/// Adds a subject, and gives the capability to order it about.
fn add(supervisor: &mut Supervisor, name: &'static str, policy: RestartPolicy, life: Life) -> Mailbox<Order> {
    let (spec, mailbox) = subject(name, CAPACITY, Births::default(), life);
    supervisor.actor(spec.with_rules(rules(policy)));
    mailbox
}

#[test]
fn an_actor_that_panics_is_made_anew_and_those_who_write_to_it_follow() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        assert_eq!(incarnation(&mut subject).await, 1);
        assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        assert_eq!(incarnation(&mut subject).await, 2);
        let status = supervision.tree().find("subject").unwrap().status();
        assert_eq!((status.state, status.restarts), (ChildState::Running, 1));
        assert_eq!(status.last_exit, Some(ExitReason::Panicked("on purpose".into())));
    });
}

#[test]
fn an_actor_that_gives_up_is_made_anew_with_its_error_as_the_reason() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let births = Births::default();
        let (born, slot) = (births.clone(), Slot::new("subject"));
        let reference = slot.reference();
        root.actor(ChildSpec::new(slot, CAPACITY, move || {
            let number = born.next();
            async move {
                match number {
                    1 => Err("nothing to start from".to_owned()),
                    _ => Ok(common::Subject::new(number, Life::Usual)),
                }
            }
        }));
        let supervision = root.start();
        assert!(reference.alive().await);
        let status = supervision.tree().find("subject").unwrap().status();
        assert_eq!(status.last_exit, Some(ExitReason::Failed("nothing to start from".into())));
        assert_eq!(births.count(), 2);
    });
}

#[test]
fn an_actor_that_stops_itself_is_restarted_only_if_it_is_permanent() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut permanent = add(&mut root, "permanent", RestartPolicy::Permanent, Life::Usual);
        let mut transient = add(&mut root, "transient", RestartPolicy::Transient, Life::Usual);
        let supervision = root.start();
        for subject in [&mut permanent, &mut transient] {
            assert_eq!(incarnation(subject).await, 1);
            assert_eq!(subject.tell(Order::Leave), Delivery::Accepted);
        }
        assert_eq!(incarnation(&mut permanent).await, 2);
        supervision.tree().find("transient").unwrap().wait_until(|child| child.state == ChildState::Stopped).await;
        assert_eq!(transient.tell(Order::Leave), Delivery::Closed);
    });
}

/// Three children of which the middle one panics; who lives in which incarnation then.
fn after_the_middle_one_panics(strategy: Strategy, expected: [u32; 3]) {
    run(|runtime_context| async move {
        let mut root = root(strategy, &runtime_context);
        let mut subjects =
            ["first", "middle", "last"].map(|name| add(&mut root, name, RestartPolicy::Permanent, Life::Usual));
        let supervision = root.start();
        for subject in &mut subjects {
            assert_eq!(incarnation(subject).await, 1);
        }
        assert_eq!(subjects[1].tell(Order::Panic), Delivery::Accepted);
        let ended = |status: &soma_runtime::ChildStatus| status.last_exit.is_some();
        supervision.tree().find("middle").unwrap().wait_until(ended).await;
        let mut found = [0; 3];
        for (found, subject) in found.iter_mut().zip(&mut subjects) {
            *found = incarnation(subject).await;
        }
        assert_eq!(found, expected);
        let restarts = supervision.tree().status().children.into_iter().map(|child| child.restarts as u32 + 1);
        assert_eq!(restarts.collect::<Vec<_>>(), expected, "the status counts what has happened");
        assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
        assert_eq!(runtime_context.child_counts().actors(), 0);
    });
}

#[test]
fn one_for_one_restarts_the_one_that_ended() {
    after_the_middle_one_panics(Strategy::OneForOne, [1, 2, 1]);
}

#[test]
fn rest_for_one_restarts_the_one_that_ended_and_those_that_rely_on_it() {
    after_the_middle_one_panics(Strategy::RestForOne, [1, 2, 2]);
}

#[test]
fn one_for_all_restarts_all() {
    after_the_middle_one_panics(Strategy::OneForAll, [2, 2, 2]);
}

#[test]
fn children_that_panic_while_others_wait_for_restarts_are_all_restarted() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::RestForOne, &runtime_context);
        let mut first = add(&mut root, "first", RestartPolicy::Permanent, Life::Usual);
        let mut last = add(&mut root, "last", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        incarnation(&mut first).await;
        incarnation(&mut last).await;
        assert_eq!(last.tell(Order::Panic), Delivery::Accepted);
        let last_in = supervision.tree().find("last").unwrap();
        last_in.wait_until(|child| child.state == ChildState::BackingOff).await;
        // The one that it relies on ends while it backs off: both are planned anew, and each is started once.
        assert_eq!(first.tell(Order::Panic), Delivery::Accepted);
        assert_eq!((incarnation(&mut first).await, incarnation(&mut last).await), (2, 2));
        sleep(Duration::from_secs(5)).await;
        assert_eq!((incarnation(&mut first).await, incarnation(&mut last).await), (2, 2));
    });
}

#[test]
fn actor_that_does_not_stay_up_is_given_up_and_escalated_with_the_reason() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let mut other = add(&mut root, "other", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        for expected in 1..=4 {
            assert_eq!(incarnation(&mut subject).await, expected);
            assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        }
        let mut escalation = supervision.escalation();
        let escalation = escalation.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(escalation.to_string(), "subject does not stay up: it panicked: on purpose");
        assert_eq!(supervision.tree().find("subject").unwrap().status().state, ChildState::GivenUp);
        // The others live until they are told to stop in order.
        assert_eq!(incarnation(&mut other).await, 1);
        assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
    });
}

#[test]
fn group_of_a_failing_member_is_made_anew_and_then_given_up_with_reasons() {
    run(|runtime_context| async move {
        let begun = Instant::now();
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut group = Supervisor::new("group", Strategy::RestForOne, runtime_context.clone(), 2)
            .with_rules(Rules { intensity: Intensity { max_restarts: 2, ..Intensity::default() }, ..Rules::default() });
        let mut good = add(&mut group, "good", RestartPolicy::Permanent, Life::Usual);
        let _bad = add(&mut group, "bad", RestartPolicy::Permanent, Life::PanicsAtStart);
        root.supervisor(group);
        let supervision = root.start();
        let mut escalation = supervision.escalation();
        let escalation = escalation.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(
            escalation.to_string(),
            "group does not stay up: it failed: bad does not stay up: it panicked: at start"
        );
        assert!(begun.elapsed() < Intensity::default().within, "{:?}", begun.elapsed());
        let status = supervision.tree().status();
        assert_eq!(status.find("group").unwrap().state, ChildState::GivenUp);
        assert_eq!(status.find("group").unwrap().restarts, 2);
        assert_eq!(status.find("good").unwrap().restarts, 2, "it lived once in each life of the group");
        assert_eq!(good.tell(Order::Leave), Delivery::Closed);
        assert_eq!(runtime_context.child_counts().actors(), 0);
    });
}

#[test]
fn silent_actor_is_replaced_and_those_who_await_its_answer_are_told() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        assert_eq!(incarnation(&mut subject).await, 1);
        let begun = Instant::now();
        assert_eq!(subject.tell(Order::Hang), Delivery::Accepted);
        assert!(subject.ask(Order::Who).await.is_err(), "nobody answers, and this is known");
        assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
        assert_eq!(incarnation(&mut subject).await, 2);
        let status = supervision.tree().find("subject").unwrap().status();
        assert_eq!(status.last_exit, Some(ExitReason::Killed("no sign of life for 10s".into())));
    });
}

#[test]
fn an_actor_that_has_nothing_to_do_is_left_alone() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let _supervision = root.start();
        incarnation(&mut subject).await;
        sleep(Duration::from_secs(24 * 3_600)).await;
        assert_eq!(incarnation(&mut subject).await, 1);
    });
}

#[test]
fn an_actor_whose_making_hangs_is_made_again() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let births = Births::default();
        let (born, slot) = (births.clone(), Slot::new("subject"));
        let reference = slot.reference();
        root.actor(ChildSpec::new(slot, CAPACITY, move || {
            let number = born.next();
            async move {
                if number == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(common::Subject::new(number, Life::Usual))
            }
        }));
        let _supervision = root.start();
        assert!(reference.alive().await);
        assert_eq!(births.count(), 2);
    });
}

#[test]
fn a_full_mailbox_says_busy_and_its_depth_is_shown() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        incarnation(&mut subject).await;
        let depth = || supervision.tree().find("subject").unwrap().status().mailbox;
        assert_eq!(depth(), Some(0));
        let send = |subject: &mut Mailbox<Order>| {
            let (reply, answer): (_, Pending<u32>) = Reply::channel();
            (subject.tell(Order::Who(reply)), answer)
        };
        // Nothing is handled until this task waits.
        let accepted: Vec<_> =
            (0..10).map(|_| send(&mut subject)).take_while(|sent| sent.0 == Delivery::Accepted).collect();
        let bound = CAPACITY..=CAPACITY + 1;
        assert!(bound.contains(&accepted.len()), "the capacity, and at most one for the sender: {}", accepted.len());
        assert_eq!(depth(), Some(accepted.len()));
        for (_, answer) in accepted {
            assert_eq!(answer.answer("subject").await, Some(1));
        }
        assert_eq!(depth(), Some(0));
        assert_eq!(send(&mut subject).0, Delivery::Accepted);
    });
}

#[test]
fn shutdown_stops_in_reverse_order_restarts_none_and_names_late_actors() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForAll, &runtime_context);
        let mut good = add(&mut root, "good", RestartPolicy::Permanent, Life::Usual);
        let mut deaf = add(&mut root, "deaf", RestartPolicy::Permanent, Life::Deaf);
        let supervision = root.start();
        incarnation(&mut good).await;
        incarnation(&mut deaf).await;
        let tree = supervision.tree().clone();
        let (begun, deadline) = (Instant::now(), Duration::from_secs(4));
        let stopping = tokio::task::spawn_local(supervision.shutdown(deadline));
        tree.find("deaf").unwrap().wait_until(|child| child.state == ChildState::Stopping).await;
        assert_eq!(incarnation(&mut good).await, 1, "it was started before: it lives until the other has ended");
        assert_eq!(stopping.await.unwrap(), ["deaf"]);
        assert!(begun.elapsed() <= deadline, "{:?}", begun.elapsed());
        let status = tree.status();
        assert!(status.children.iter().all(|child| (child.state, child.restarts) == (ChildState::Stopped, 0)));
        assert_eq!(status.find("good").unwrap().last_exit, Some(ExitReason::Normal));
        assert_eq!(status.find("deaf").unwrap().last_exit, Some(ExitReason::Killed("did not stop in time".into())));
        assert_eq!((good.tell(Order::Leave), deaf.tell(Order::Leave)), (Delivery::Closed, Delivery::Closed));
        assert_eq!(runtime_context.child_counts().actors(), 0);
    });
}

#[test]
fn child_that_does_not_stop_has_its_own_deadline_and_the_rest_theirs() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let (spec, mut deaf) = subject("deaf", CAPACITY, Births::default(), Life::Deaf);
        root.actor(spec.with_rules(Rules { shutdown: Duration::from_millis(300), ..Rules::default() }));
        let supervision = root.start();
        incarnation(&mut deaf).await;
        let begun = Instant::now();
        assert_eq!(supervision.shutdown(Duration::from_secs(100)).await, ["deaf"]);
        assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    });
}

#[test]
fn shutdown_in_the_middle_of_a_backoff_starts_nobody() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let births = Births::default();
        let (spec, mut subject) = subject("subject", CAPACITY, births.clone(), Life::Usual);
        let backoff = Backoff { min: Duration::from_secs(60), max: Duration::from_secs(60) };
        root.actor(spec.with_rules(Rules { backoff, ..Rules::default() }));
        let supervision = root.start();
        incarnation(&mut subject).await;
        assert_eq!(subject.tell(Order::Panic), Delivery::Accepted);
        let tree = supervision.tree().clone();
        tree.find("subject").unwrap().wait_until(|child| child.state == ChildState::BackingOff).await;
        assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
        sleep(Duration::from_secs(120)).await;
        assert_eq!((births.count(), tree.find("subject").unwrap().status().state), (1, ChildState::Stopped));
    });
}

#[test]
fn the_tree_shows_how_long_each_child_is_in_its_state() {
    run(|runtime_context| async move {
        let mut root = root(Strategy::OneForOne, &runtime_context);
        let mut subject = add(&mut root, "subject", RestartPolicy::Permanent, Life::Usual);
        let supervision = root.start();
        incarnation(&mut subject).await;
        sleep(Duration::from_secs(7)).await;
        let status = supervision.tree().status();
        let seconds = |name: &str| status.find(name).unwrap().in_state_ms / 1_000;
        assert_eq!((seconds("root"), seconds("subject")), (7, 7));
        assert_eq!(status.actors().into_iter().map(|actor| &*actor.name).collect::<Vec<_>>(), ["subject"]);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((&json["strategy"], &json["children"][0]["state"]), (&"one-for-one".into(), &"running".into()));
    });
}
