//! One life of an actor, in a task of its own, on the current thread or on one of its own.

use crate::{
    child_counts::LeftBehind,
    exit::ExitReason,
    life::Life,
    liveness::{self, Liveness},
    runtime_context::{Placement, RuntimeContext},
    spec::ChildSpec,
};
use actix::{Actor, Addr, AsyncContext, Context};
use futures::{FutureExt, future::LocalBoxFuture};
use std::{fmt::Write, future::Future, thread, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How often an actor shows that it lives: often enough for its allowance, and no more, for it wakes a thread each
/// time.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time that a thread has to end after its actor was told to: far more than the longest handler. One that takes
/// longer is blocked.
pub(crate) const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// How an actor shows that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// By a timer, every two seconds, and with each input: an actor that may have nothing to do.
    Timer,
    /// With each input: an actor that always has something to wait for, until it is done.
    Inputs,
}

/// An actor that runs in a task of its own. Dropping this ends it.
pub struct Running<A: Actor> {
    /// Where it takes messages.
    pub address: Addr<A>,
    liveness: Liveness,
    ended: LocalBoxFuture<'static, ExitReason>,
}

/// Runs an actor in a task of its own on the current thread.
pub fn run_actor<A>(
    actor: A,
    mailbox_capacity: usize,
    heartbeat: Heartbeat,
    runtime_context: &RuntimeContext,
) -> Running<A>
where
    A: Actor<Context = Context<A>>,
{
    run_as(Liveness::on_this_thread(), actor, mailbox_capacity, heartbeat, runtime_context, |_| {})
}

fn run_as<A>(
    liveness: Liveness,
    actor: A,
    mailbox_capacity: usize,
    heartbeat: Heartbeat,
    runtime_context: &RuntimeContext,
    introduce: impl FnOnce(Addr<A>),
) -> Running<A>
where
    A: Actor<Context = Context<A>>,
{
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox_capacity);
    if heartbeat == Heartbeat::Timer {
        context.run_interval(HEARTBEAT_INTERVAL, |_, _| liveness::beat());
    }
    let running = context.into_future(actor);
    let address = running.address();
    // Before it runs, so that its first questions find the address.
    introduce(address.clone());
    let counted = runtime_context.child_counts().actor();
    let life = async move {
        running.await;
        drop(counted);
    };
    let task = AbortOnDropHandle::new(actix_rt::spawn(liveness.scope(life)));
    let failing = liveness.clone();
    let ended = async move {
        match task.await {
            Ok(()) => failing.failure().map_or(ExitReason::Normal, ExitReason::Failed),
            Err(error) => ExitReason::from(error),
        }
    };
    Running { address, liveness, ended: ended.boxed_local() }
}

impl<A: Actor> Running<A> {
    /// Waits for the actor's end, and ends it when it gives no sign of life for `allowance`.
    pub async fn watched(self, allowance: Duration) -> ExitReason {
        tokio::select! {
            biased;
            exit = self.ended => exit,
            () = self.liveness.silent(allowance) => ExitReason::Killed(silence(allowance)),
        }
    }
}

pub(crate) fn silence(allowance: Duration) -> String {
    format!("no sign of life for {allowance:?}")
}

/// Where an incarnation lives.
pub(crate) enum Host {
    /// In the current thread's tasks.
    Here(LocalBoxFuture<'static, ExitReason>),
    /// On a thread of its own.
    Thread(OwnThread),
}

/// An actor's thread.
pub(crate) struct OwnThread {
    exit: oneshot::Receiver<ExitReason>,
    retire: CancellationToken,
    left_behind: LeftBehind,
    thread: thread::JoinHandle<()>,
}

impl Host {
    /// Begins a life: once the actor is there, it enters its place, and `up` resolves.
    pub(crate) fn begin<A>(
        spec: &ChildSpec<A>,
        runtime_context: &RuntimeContext,
        life: Life,
        up: oneshot::Sender<()>,
    ) -> Result<(Self, Liveness), ExitReason>
    where
        A: Actor<Context = Context<A>>,
    {
        let (name, liveness) = (spec.slot.name(), Liveness::on_new_thread());
        let (running_as, running_in) = (liveness.clone(), runtime_context.clone());
        let (slot, factory, mailbox_capacity) = (spec.slot.clone(), spec.factory.clone(), spec.mailbox_capacity);
        let living = move || async move {
            let actor = match factory().await {
                Ok(actor) => actor,
                Err(reason) => return ExitReason::Failed(reason),
            };
            let introduce = move |address| {
                slot.enter(address, life);
                // A dropped receiver has ended the life.
                let _ = up.send(());
            };
            run_as(running_as, actor, mailbox_capacity, Heartbeat::Timer, &running_in, introduce).ended.await
        };
        match runtime_context.placement() {
            Placement::Here => Ok((Self::Here(living().boxed_local()), liveness)),
            Placement::Threads => {
                let retire = CancellationToken::new();
                let (told, child_counts) = (retire.clone(), runtime_context.child_counts().clone());
                let left_behind = LeftBehind::new(child_counts.clone());
                let leaving = left_behind.clone();
                let counted = child_counts.thread();
                let (report, exit) = oneshot::channel();
                let runtime_context = runtime_context.clone();
                let body = move || {
                    let _entered = runtime_context.enter_thread();
                    let exit = on_own_runtime(told, living);
                    drop(counted);
                    if leaving.come_back() {
                        tracing::info!(thread = name, "a thread that was left behind blocked has ended");
                    }
                    // An abandoned thread has no listener.
                    let _ = report.send(exit);
                };
                match thread::Builder::new().name(name.into()).spawn(body) {
                    Ok(thread) => Ok((Self::Thread(OwnThread { exit, retire, left_behind, thread }), liveness)),
                    Err(error) => Err(ExitReason::Failed(format!("its thread cannot be started: {error}"))),
                }
            }
        }
    }

    /// Resolves when the life has ended without an order.
    pub(crate) async fn ended(&mut self) -> ExitReason {
        match self {
            Self::Here(life) => life.await,
            Self::Thread(own) => match (&mut own.exit).await {
                Ok(exit) => exit,
                // Only a panic outside the actor's task ends the thread without a word.
                Err(_) => ExitReason::Panicked("its thread ended without a report".into()),
            },
        }
    }

    /// Ends the life. A thread that has not ended after `grace` is blocked and left behind, which is reported;
    /// `reason` gets the known cause.
    pub(crate) async fn end(self, liveness: &Liveness, name: &'static str, grace: Duration, reason: &mut String) {
        let Self::Thread(OwnThread { exit, retire, left_behind, thread }) = self else { return };
        liveness.retire();
        retire.cancel();
        if timeout(grace, exit).await.is_ok() || !left_behind.leave() {
            // The function that sent the exit is ending, and nothing else is left.
            let _ = thread.join();
            return;
        }
        let _ = match liveness.busy() {
            Some(busy) => write!(reason, "; its thread is blocked: {busy}"),
            None => write!(reason, "; its thread is blocked"),
        };
        tracing::error!(thread = name, reason, "a blocked thread is left behind; a new one takes its work over");
    }

    /// After the life has ended without an order.
    pub(crate) fn join(self) {
        if let Self::Thread(own) = self {
            // As above.
            let _ = own.thread.join();
        }
    }
}

/// Runs a life on the current thread, until it ends or gets an order to.
fn on_own_runtime<F>(told: CancellationToken, life: impl FnOnce() -> F) -> ExitReason
where
    F: Future<Output = ExitReason> + 'static,
{
    let runtime = match actix_rt::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ExitReason::Failed(format!("its runtime cannot be started: {error}")),
    };
    let life = life();
    runtime.block_on(async move {
        tokio::select! {
            biased;
            () = told.cancelled() => ExitReason::Cancelled,
            exit = life => exit,
        }
    })
    // Dropping the runtime ends every task of the actor.
}
