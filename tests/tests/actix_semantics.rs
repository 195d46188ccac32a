//! What actix does, as far as our design leans on it: one test for each fact, so that an upgrade that changes one is
//! noticed. The comment on a test says what leans on it. Where a test fails after an upgrade, read that part of the
//! design again before changing the test.
//!
//! Tests run on one thread, in virtual time: an actor does nothing until its test waits. Those that need an actix
//! `System` or worker threads run on a thread of their own, because actix keeps the current system in the thread.

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, MailboxError, Message,
    Recipient, ResponseActFuture, ResponseFuture, Supervised, Supervisor, SyncArbiter, SyncContext, WrapFuture,
    prelude::SendError,
};
use actix_rt::{Arbiter, System};
use futures::{future::join_all, poll};
use std::{
    cell::{Cell, RefCell},
    future::{Future, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    runtime,
    sync::oneshot,
    task::{JoinHandle, LocalSet, spawn_local, yield_now},
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Room enough for tests that are not about capacity.
const ROOM: usize = 64;

// The actor of most tests.

/// What an actor went through, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn note(&self, entry: &'static str) {
        self.0.borrow_mut().push(entry);
    }

    fn entries(&self) -> Vec<&'static str> {
        self.0.borrow().clone()
    }

    fn count(&self, entry: &str) -> usize {
        self.0.borrow().iter().filter(|noted| **noted == entry).count()
    }
}

/// Does what its messages order, and logs what becomes of it.
#[derive(Default)]
struct Subject {
    log: Log,
    own_address: Option<Addr<Self>>,
}

impl Actor for Subject {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.log.note("started");
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.log.note(if thread::panicking() { "stopped while unwinding" } else { "stopped" });
    }
}

impl Supervised for Subject {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.log.note("restarting");
    }
}

type Handle = dyn FnOnce(&mut Subject, &mut Context<Subject>) + Send;

/// What to do.
struct Order(Box<Handle>);

impl Message for Order {
    type Result = ();
}

impl Handler<Order> for Subject {
    type Result = ();

    fn handle(&mut self, Order(what): Order, context: &mut Context<Self>) {
        what(self, context);
    }
}

fn order(what: impl FnOnce(&mut Subject, &mut Context<Subject>) + Send + 'static) -> Order {
    Order(Box::new(what))
}

fn note(entry: &'static str) -> Order {
    order(move |subject, _| subject.log.note(entry))
}

fn stop() -> Order {
    order(|_, context| context.stop())
}

fn fail() -> Order {
    order(|_, _| panic!("on purpose"))
}

/// Answered by a future of the actor, which takes a minute.
struct Interleaved;

impl Message for Interleaved {
    type Result = ();
}

impl Handler<Interleaved> for Subject {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Interleaved, _: &mut Context<Self>) -> Self::Result {
        self.log.note("begin");
        Box::pin(sleep(MINUTE).into_actor(self).map(|(), subject, _| subject.log.note("end")))
    }
}

/// Answered by a future that has the actor for itself, for a minute.
struct Atomic;

impl Message for Atomic {
    type Result = ();
}

impl Handler<Atomic> for Subject {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Atomic, context: &mut Context<Self>) -> Self::Result {
        AtomicResponse::new(self.handle(Interleaved, context))
    }
}

/// Answered by a future that knows nothing of the actor, after a minute.
struct Detached;

impl Message for Detached {
    type Result = &'static str;
}

impl Handler<Detached> for Subject {
    type Result = ResponseFuture<&'static str>;

    fn handle(&mut self, _: Detached, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async {
            sleep(MINUTE).await;
            "answered"
        })
    }
}

/// Runs a subject as `soma_runtime::run_actor` runs every actor.
fn run_subject(mailbox_capacity: usize) -> (Addr<Subject>, JoinHandle<()>, Log) {
    let subject = Subject::default();
    let log = subject.log.clone();
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox_capacity);
    let running = context.into_future(subject);
    (running.address(), actix_rt::spawn(running), log)
}

/// Runs a scenario on one thread, in virtual time, without an actix system.
fn in_virtual_time<F: Future>(scenario: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, scenario)
}

fn on_a_thread_of_its_own<R: Send + 'static>(scenario: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(scenario).join().unwrap()
}

/// How many messages one sender gets into a mailbox before it is refused.
fn accepted(mut send: impl FnMut() -> Result<(), SendError<Order>>) -> usize {
    let mut accepted = 0;
    loop {
        match send() {
            Ok(()) => accepted += 1,
            Err(SendError::Full(_)) => return accepted,
            Err(SendError::Closed(_)) => panic!("the actor is gone"),
        }
        assert!(accepted < 10_000, "nothing bounds this mailbox");
    }
}

// Panics and restarts.

/// ADR 2: the supervisor of actix restarts *something*, so that not using it is a decision.
#[test]
fn the_supervisor_of_actix_restarts_an_actor_that_stops() {
    in_virtual_time(async {
        let subject = Subject::default();
        let log = subject.log.clone();
        let address = Supervisor::start(|_| subject);
        assert_eq!(address.send(stop()).await, Ok(()));
        assert_eq!(address.send(note("answers")).await, Ok(()));
        assert_eq!(log.entries(), ["started", "stopped", "restarting", "started", "answers"]);
    });
}

/// ADR 2: why supervision is ours.
#[test]
fn the_supervisor_of_actix_does_not_restart_an_actor_that_panics() {
    in_virtual_time(async {
        let subject = Subject::default();
        let log = subject.log.clone();
        let address = Supervisor::start(|_| subject);
        assert_eq!(address.send(fail()).await, Err(MailboxError::Closed));
        sleep(HOUR).await;
        assert_eq!(address.send(note("answers")).await, Err(MailboxError::Closed));
        assert!(!address.connected());
        assert_eq!(log.entries(), ["started", "stopped while unwinding"]);
    });
}

/// ADR 2: why our restarts wait, and are counted.
#[test]
fn the_supervisor_of_actix_restarts_without_a_pause() {
    struct Hasty(Rc<Cell<u32>>);

    impl Actor for Hasty {
        type Context = Context<Self>;

        fn started(&mut self, context: &mut Context<Self>) {
            self.0.set(self.0.get() + 1);
            if self.0.get() < 1_000 {
                context.stop();
            }
        }
    }

    impl Supervised for Hasty {}

    in_virtual_time(async {
        let starts = Rc::new(Cell::new(0));
        let hasty = Hasty(starts.clone());
        let _address = Supervisor::start(|_| hasty);
        let seen_by_the_next_task = spawn_local(async move { starts.get() }).await;
        assert_eq!(seen_by_the_next_task.unwrap(), 1_000);
    });
}

/// `Mailbox::{tell, deliver, ask}` tell from it that nobody is there, and look for the next incarnation.
#[test]
fn callers_of_an_actor_that_panicked_get_closed() {
    in_virtual_time(async {
        let (address, _ended, _) = run_subject(ROOM);
        assert!(address.connected());
        let calls = [fail(), note("behind it"), note("behind it")].map(|order| address.send(order));
        assert_eq!(join_all(calls).await, [Err(MailboxError::Closed); 3]);
        assert!(!address.connected());
        assert!(!address.clone().recipient::<Order>().connected());
        assert!(matches!(address.try_send(note("later")), Err(SendError::Closed(_))));
        assert_eq!(address.send(note("later")).await, Err(MailboxError::Closed));
    });
}

/// Why `stopping`, `stopped` and `Drop` of our actors are trivial: a second panic there would end the process.
#[test]
fn stopped_runs_while_unwinding_and_restarting_does_not() {
    in_virtual_time(async {
        let (address, ended, log) = run_subject(ROOM);
        address.do_send(fail());
        assert!(ended.await.is_err());
        assert_eq!(log.entries(), ["started", "stopped while unwinding"]);
    });
}

/// `run_actor` makes `ExitReason::Panicked` of it, wherever in the actor the panic was.
#[test]
fn actor_panic_is_the_join_error_of_its_context_task() {
    in_virtual_time(async {
        let in_a_future = order(|subject, context| {
            context.spawn(ready(()).into_actor(subject).map(|(), _, _| panic!("on purpose")));
        });
        let in_a_timer = order(|_, context| {
            context.run_later(SECOND, |_, _| panic!("on purpose"));
        });
        for panics in [fail(), in_a_future, in_a_timer] {
            let (address, ended, _) = run_subject(ROOM);
            address.do_send(panics);
            let error = ended.await.unwrap_err();
            assert!(error.is_panic());
            assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
        }
    });
}

/// `run_actor` makes `ExitReason::Normal` of it.
#[test]
fn the_task_that_runs_a_context_ends_without_error_when_the_actor_stops() {
    in_virtual_time(async {
        let (address, ended, log) = run_subject(ROOM);
        address.do_send(stop());
        assert!(ended.await.is_ok());
        assert_eq!(log.entries(), ["started", "stopped"]);
    });
}

/// `run_actor`: dropping its future ends the actor; so do deadlines at shutdown, and the end of a worker's owner.
#[test]
fn an_actor_whose_task_is_aborted_is_stopped_and_closed() {
    in_virtual_time(async {
        let (address, ended, log) = run_subject(ROOM);
        let (call, ()) = tokio::join!(address.send(Interleaved), async {
            address.send(note("busy")).await.unwrap();
            ended.abort();
        });
        assert_eq!(call, Err(MailboxError::Closed));
        assert!(ended.await.unwrap_err().is_cancelled());
        assert!(!address.connected());
        assert_eq!(log.entries(), ["started", "begin", "busy", "stopped"]);
    });
}

/// Why CPU work goes to rayon behind permits, and not to a `SyncArbiter`.
#[test]
fn sync_arbiter_panic_kills_its_thread_and_address_learns_on_next_call() {
    struct Worker;

    impl Actor for Worker {
        type Context = SyncContext<Self>;
    }

    struct Fail;

    impl Message for Fail {
        type Result = ();
    }

    impl Handler<Fail> for Worker {
        type Result = ();

        fn handle(&mut self, _: Fail, _: &mut SyncContext<Self>) {
            panic!("on purpose");
        }
    }

    on_a_thread_of_its_own(|| {
        System::new().block_on(async {
            let made = Arc::new(AtomicU32::new(0));
            // Dropped with the factory, which the last thread drops when it has let go of everything else.
            let (threads, all_threads_ended) = oneshot::channel::<()>();
            let address = SyncArbiter::start(2, {
                let made = made.clone();
                move || {
                    let _ = &threads;
                    made.fetch_add(1, Ordering::SeqCst);
                    Worker
                }
            });
            assert_eq!(address.send(Fail).await, Err(MailboxError::Closed));
            assert_eq!(address.send(Fail).await, Err(MailboxError::Closed));
            assert!(all_threads_ended.await.is_err());
            assert_eq!(made.load(Ordering::SeqCst), 2);
            assert!(address.connected());
            assert_eq!(address.send(Fail).await, Err(MailboxError::Closed));
            // That call has panicked the arbiter, too, on the thread of the system.
            assert!(!address.connected());
        });
    });
}

// Bounds.

/// Why `do_send` is forbidden in our crates (clippy.toml).
#[test]
fn do_send_ignores_the_capacity() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(1);
        for _ in 0..1_000 {
            address.do_send(note("message"));
        }
        assert_eq!(address.send(note("last")).await, Ok(()));
        assert_eq!(log.count("message"), 1_000);
    });
}

/// Why no actor may be run with capacity 0.
#[test]
fn capacity_0_is_unbounded() {
    in_virtual_time(async {
        let (address, _ended, _) = run_subject(0);
        assert!((0..1_000).all(|_| address.try_send(note("message")).is_ok()));
    });
}

/// Why `run_actor` always sets a capacity.
#[test]
fn the_capacity_is_16_if_none_is_set() {
    in_virtual_time(async {
        let address = Context::new().run(Subject::default());
        assert_eq!(accepted(|| address.try_send(note("message"))), 16);
    });
}

/// `Mailbox` keeps its recipient from one message to the next, and each of its clones counts as a sender.
#[test]
fn mailbox_holds_its_capacity_plus_one_message_per_further_sender() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(3);
        let first: Recipient<Order> = address.recipient();
        let send = |sender: &Recipient<Order>| accepted(|| sender.try_send(note("message")));
        assert_eq!(send(&first), 3);
        let second = first.clone();
        assert_eq!((send(&second), send(&first), send(&second)), (1, 0, 0));
        assert!((0..100).all(|_| send(&first.clone()) == 1));
        yield_now().await;
        assert_eq!(log.count("message"), 3 + 101);
        assert_eq!((send(&first), send(&second)), (3, 1));
    });
}

/// `Mailbox::deliver` is bounded by waiting for the handler, one call at a time, and not by the room in the mailbox.
#[test]
fn send_to_full_mailbox_takes_its_own_slot_without_waiting() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(1);
        let recipient = address.recipient();
        assert_eq!(accepted(|| recipient.try_send(note("message"))), 1);
        let mut calls: Vec<_> = (0..100).map(|_| Box::pin(recipient.send(note("message")))).collect();
        for call in &mut calls {
            assert!(poll!(call).is_pending());
        }
        assert_eq!(log.count("message"), 0);
        // The actor runs, and no caller: what it finds was in the mailbox.
        yield_now().await;
        assert_eq!(log.count("message"), 101);
        assert!(join_all(calls).await.iter().all(Result::is_ok));
    });
}

/// docs/runtime-semantics.md, Messages: between one sender and one receiver, messages arrive in order.
#[test]
fn messages_of_one_sender_are_handled_in_order_for_every_send_method() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        address.try_send(note("1")).unwrap();
        let second = address.send(note("2"));
        address.do_send(note("3"));
        address.try_send(note("4")).unwrap();
        assert_eq!(second.await, Ok(()));
        assert_eq!(log.entries(), ["started", "1", "2", "3", "4"]);
    });
}

/// Whoever drops `Mailbox::{deliver, ask}` half-way has not sent, unless the handler has begun; `tell` has no such end.
#[test]
fn a_message_whose_sender_no_longer_waits_is_not_handled() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        drop(address.send(note("sent and dropped")));
        address.try_send(note("told")).unwrap();
        address.send(note("sent")).await.unwrap();
        assert_eq!(log.entries(), ["started", "told", "sent"]);
    });
}

// Runtime.

/// Simulations run whole nodes so (`LocalSystem`); actors must not ask for a `System` or an `Arbiter`.
#[test]
fn actor_in_plain_local_set_runs_an_hour_of_virtual_time_at_once() {
    // A thread that has never seen a system.
    on_a_thread_of_its_own(|| {
        in_virtual_time(async {
            let start = Instant::now();
            let (address, ended, log) = run_subject(ROOM);
            let prepare = order(|_, context| {
                context.run_interval(MINUTE, |subject, _| subject.log.note("tick"));
                context.run_later(HOUR + SECOND, |_, context| context.stop());
            });
            assert_eq!(address.send(prepare).await, Ok(()));
            assert!(ended.await.is_ok());
            assert_eq!(start.elapsed().as_secs(), (HOUR + SECOND).as_secs());
            assert_eq!(log.count("tick"), 60);
            assert!(System::try_current().is_none());
            assert!(Arbiter::try_current().is_none());
        });
    });
}

/// Why `ActorSystem` has a thread of its own, and starts from any runtime or none.
#[test]
fn tokio_system_panics_inside_a_runtime_but_starts_on_its_own_thread() {
    fn start() -> u32 {
        let build = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
        System::with_tokio_rt(build).block_on(async { 42 })
    }

    on_a_thread_of_its_own(|| {
        let outer = runtime::Builder::new_current_thread().build().unwrap();
        outer.block_on(async {
            let panic = catch_unwind(AssertUnwindSafe(start)).unwrap_err();
            let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap();
            assert!(text.contains("within a runtime"), "{text}");
            assert_eq!(on_a_thread_of_its_own(start), 42);
        });
    });
}

/// Why shutdown goes in our own order and waits for each actor (docs/runtime-semantics.md, Shutdown).
#[test]
fn stopping_a_system_does_not_wait_for_the_work_of_its_actors() {
    let log = on_a_thread_of_its_own(|| {
        let system = System::new();
        let log = system.block_on(async {
            let (address, _ended, log) = run_subject(ROOM);
            address.try_send(Interleaved).unwrap();
            address.send(note("busy")).await.unwrap();
            System::current().stop();
            log
        });
        system.run().unwrap();
        log.entries()
    });
    assert_eq!(log, ["started", "begin", "busy", "stopped"]);
}

// Handlers.

/// Cores are told of an answer as of any other input: other handlers ran between the question and the answer.
#[test]
fn a_response_act_future_interleaves_with_other_handlers() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        let (asked, other) = tokio::join!(address.send(Interleaved), address.send(note("other")));
        assert_eq!((asked, other), (Ok(()), Ok(())));
        assert_eq!(log.entries(), ["started", "begin", "other", "end"]);
    });
}

/// Why no handler of ours answers with one: handlers never wait.
#[test]
fn an_atomic_response_freezes_the_actor_with_its_timers() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        let prepare = order(|_, context| {
            context.run_interval(MINUTE / 3, |subject, _| subject.log.note("tick"));
        });
        address.send(prepare).await.unwrap();
        let (asked, other) = tokio::join!(address.send(Atomic), address.send(note("other")));
        assert_eq!((asked, other), (Ok(()), Ok(())));
        // The ticks of that minute are made up for, all at once.
        assert_eq!(log.entries(), ["started", "begin", "end", "other", "tick", "tick", "tick"]);
    });
}

/// Why no handler of ours answers with one: what an actor began must end with it.
#[test]
fn a_response_future_outlives_its_actor() {
    in_virtual_time(async {
        let (address, ended, log) = run_subject(ROOM);
        let call = address.send(Detached);
        address.do_send(stop());
        assert!(ended.await.is_ok());
        assert_eq!(log.entries(), ["started", "stopped"]);
        assert_eq!(call.await, Ok("answered"));
    });
}

/// What actors await is spawned in their context, so that it ends with them: fetches, checks and writes of a worker.
#[test]
fn a_future_spawned_in_a_context_ends_with_its_actor() {
    in_virtual_time(async {
        let (address, ended, _) = run_subject(ROOM);
        let (held, dropped) = oneshot::channel::<()>();
        let call = address.send(Interleaved);
        address.do_send(order(|subject, context| {
            let endless = async move {
                let _held = held;
                std::future::pending().await
            };
            context.spawn(endless.into_actor(subject));
        }));
        address.send(note("busy")).await.unwrap();
        address.do_send(stop());
        assert!(ended.await.is_ok());
        assert!(dropped.await.is_err());
        assert_eq!(call.await, Err(MailboxError::Closed));
    });
}

/// Why mailboxes are short, and handlers too: nothing else lets the one timer of a `Shell` run under load.
#[test]
fn a_mailbox_is_drained_before_timers_run() {
    fn flood(left: u32) -> Order {
        order(move |subject, context| {
            subject.log.note("message");
            if left > 1 {
                context.address().do_send(flood(left - 1));
            }
        })
    }

    in_virtual_time(async {
        let (address, _ended, log) = run_subject(1);
        address.do_send(order(|_, context| {
            context.run_later(Duration::ZERO, |subject, _| subject.log.note("tick"));
            context.address().do_send(flood(1_000));
        }));
        sleep(SECOND).await;
        assert_eq!(log.count("message"), 1_000);
        assert_eq!(log.entries().last(), Some(&"tick"));
    });
}

/// `Shell::arm` replaces its timer: the one that it cancelled may still call back, and must find that it is stale.
#[test]
fn a_timer_that_is_cancelled_when_it_is_due_fires_nevertheless() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        let cancel_early = order(|_, context| {
            let timer = context.run_later(SECOND, |subject, _| subject.log.note("early"));
            context.cancel_future(timer);
        });
        address.send(cancel_early).await.unwrap();
        let cancel_late = order(|_, context| {
            let timer = context.run_later(Duration::ZERO, |subject, _| subject.log.note("late"));
            context.cancel_future(timer);
        });
        address.send(cancel_late).await.unwrap();
        sleep(HOUR).await;
        assert_eq!(log.entries(), ["started", "late"]);
    });
}

/// Why what an actor has for itself is fed back as an effect or an input, and not sent: `notify` is not bounded.
#[test]
fn notify_bypasses_the_capacity() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(1);
        let notify = order(|_, context| {
            let address = context.address();
            assert_eq!(accepted(|| address.try_send(note("sent"))), 1);
            for _ in 0..1_000 {
                context.notify(note("notified"));
            }
            // Nor does it take room from others.
            let further = context.address();
            assert_eq!(accepted(|| further.try_send(note("sent"))), 1);
        });
        address.send(notify).await.unwrap();
        sleep(SECOND).await;
        assert_eq!((log.count("sent"), log.count("notified")), (2, 1_000));
    });
}

/// The same: it does not keep the order, neither with what was sent nor among what was notified.
#[test]
fn notify_reorders() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        address.do_send(order(|_, context| {
            for entry in ["1", "2", "3"] {
                context.notify(note(entry));
            }
            context.address().do_send(note("sent after them"));
        }));
        sleep(SECOND).await;
        assert_eq!(log.entries(), ["started", "sent after them", "1", "3", "2"]);
    });
}

/// Inputs that come of spawned futures may come in any order; what must keep it goes through an `OrderedSender` or a
/// mailbox.
#[test]
fn context_futures_ready_together_do_not_end_in_spawn_order() {
    in_virtual_time(async {
        let (address, _ended, log) = run_subject(ROOM);
        address.do_send(order(|subject, context| {
            for entry in ["1", "2", "3"] {
                context.spawn(ready(()).into_actor(subject).map(move |(), subject, _| subject.log.note(entry)));
            }
        }));
        sleep(SECOND).await;
        assert_eq!(log.entries(), ["started", "1", "3", "2"]);
    });
}

/// docs/runtime-semantics.md, Messages: what waits in the mailbox is dropped, and work goes back to whoever planned it.
#[test]
fn unread_messages_are_dropped_at_the_stop_and_their_callers_get_closed() {
    in_virtual_time(async {
        let (address, ended, log) = run_subject(ROOM);
        let (held, dropped) = oneshot::channel::<()>();
        let calls = [stop(), note("unread"), note("unread")].map(|order| address.send(order));
        address.try_send(order(move |_, _| drop(held))).unwrap();
        assert_eq!(join_all(calls).await, [Ok(()), Err(MailboxError::Closed), Err(MailboxError::Closed)]);
        assert!(dropped.await.is_err());
        assert!(ended.await.is_ok());
        assert!(!address.connected());
        assert_eq!(log.entries(), ["started", "stopped"]);
    });
}

/// Why our actors are stopped by a message, and never by dropping what refers to them.
#[test]
fn actor_ends_with_last_address_unless_interval_or_own_address_remains() {
    async fn ends_within_an_hour(prepare: Order) -> bool {
        let (address, ended, _) = run_subject(ROOM);
        address.send(prepare).await.unwrap();
        let weak = address.downgrade();
        drop(address);
        sleep(HOUR).await;
        assert_eq!(weak.upgrade().is_none(), ended.is_finished());
        ended.is_finished()
    }

    in_virtual_time(async {
        let nothing = note("nothing");
        assert!(ends_within_an_hour(nothing).await);
        let interval = order(|_, context| {
            context.run_interval(MINUTE, |_, _| ());
        });
        assert!(!ends_within_an_hour(interval).await);
        let own_address = order(|subject, context| subject.own_address = Some(context.address()));
        assert!(!ends_within_an_hour(own_address).await);
    });
}
