//! A supervisor: starts children in order, restarts each by its spec, stops them in reverse, and escalates.

use crate::{Backoff, Decision, Environment, ExitReason, Intensity, RestartPolicy, RestartTracker, run_actor};
use actix::{Actor, Addr, Context, Handler};
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use soma_messages::{ActorRef, Envelope, Stop, actor_ref};
use std::{future::Future, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Makes an incarnation of an actor, from what is durable and what others can tell, not from what the last one knew.
type Factory<A> = Box<dyn FnMut() -> LocalBoxFuture<'static, Result<A, String>>>;

/// How one child is to live.
pub struct ChildSpec<A> {
    /// Its name in status and logs.
    pub name: &'static str,
    /// Which exits call for a restart.
    pub policy: RestartPolicy,
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// How long to wait before each.
    pub backoff: Backoff,
    /// Messages in its mailbox, beside one for each sender.
    pub mailbox_capacity: usize,
    factory: Factory<A>,
}

impl<A> ChildSpec<A> {
    /// A permanent child with default intensity and backoff.
    pub fn new<F>(name: &'static str, mailbox_capacity: usize, mut factory: impl FnMut() -> F + 'static) -> Self
    where
        F: Future<Output = Result<A, String>> + 'static,
    {
        Self {
            name,
            policy: RestartPolicy::Permanent,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            mailbox_capacity,
            factory: Box::new(move || Box::pin(factory())),
        }
    }
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildState {
    /// Being made.
    Starting,
    /// Alive.
    Running,
    /// Ended; a new one comes after the backoff.
    BackingOff,
    /// Ended for good, as wanted.
    Stopped,
    /// Ended for good: it did not stay up.
    GivenUp,
}

/// A child as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: ChildState,
    /// Restarts so far.
    pub restarts: u64,
    /// How it last ended.
    pub last_exit: Option<ExitReason>,
}

/// A child that did not stay up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{child} does not stay up: it {exit}")]
pub struct Escalation {
    /// Which.
    pub child: &'static str,
    /// How it ended last.
    pub exit: ExitReason,
}

struct Child {
    name: &'static str,
    status: watch::Receiver<ChildStatus>,
    stop: Box<dyn Fn() -> LocalBoxFuture<'static, ()>>,
    stopping: watch::Sender<bool>,
    guardian: JoinHandle<()>,
}

/// Supervises children on the current actor thread, each independently of the others (one for one).
pub struct Supervisor {
    environment: Environment,
    seed: u64,
    children: Vec<Child>,
    escalation: watch::Sender<Option<Escalation>>,
}

impl Supervisor {
    /// A supervisor without children. `seed` is for the jitter of backoffs.
    pub fn new(environment: Environment, seed: u64) -> Self {
        Self { environment, seed, children: Vec::new(), escalation: watch::Sender::new(None) }
    }

    /// The first child that did not stay up, when there is one.
    pub fn escalation(&self) -> watch::Receiver<Option<Escalation>> {
        self.escalation.subscribe()
    }

    /// The children's status, in the order in which they were started; each follows the child.
    pub fn status(&self) -> Vec<watch::Receiver<ChildStatus>> {
        self.children.iter().map(|child| child.status.clone()).collect()
    }

    /// Starts a child under the reference `current`, made with [`actor_ref`] so that others can be given the
    /// capability to write to it before it lives.
    pub fn start<A>(&mut self, spec: ChildSpec<A>, current: watch::Sender<Option<Addr<A>>>, reference: &ActorRef<A>)
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<Stop>>,
    {
        let name = spec.name;
        let stop_mailbox = reference.mailbox::<Stop>("supervisor");
        let initial = ChildStatus { name: name.into(), state: ChildState::Starting, restarts: 0, last_exit: None };
        let (status, status_receiver) = watch::channel(initial);
        let (stopping, stopped) = watch::channel(false);
        let seed = self.seed.wrapping_add(self.children.len() as u64);
        let guardian = Guardian {
            tracker: RestartTracker::new(spec.policy, spec.intensity, spec.backoff, seed),
            spec,
            environment: self.environment.clone(),
            current,
            status,
            stopping: stopped,
            escalation: self.escalation.clone(),
        };
        let guardian = actix_rt::spawn(guardian.run());
        let stop = Box::new(move || -> LocalBoxFuture<'static, ()> {
            let mut mailbox = stop_mailbox.clone();
            Box::pin(async move {
                // No answer means that it is gone already, which is what is wanted.
                let _ = mailbox.ask(Stop).await;
            })
        });
        self.children.push(Child { name, status: status_receiver, stop, stopping, guardian });
    }

    /// A child of its own making: reference and start in one, where nobody needs the reference before.
    pub fn start_new<A>(&mut self, spec: ChildSpec<A>) -> ActorRef<A>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<Stop>>,
    {
        let (current, reference) = actor_ref(spec.name);
        self.start(spec, current, &reference);
        reference
    }

    /// Stops the children one by one, the last started first, all within `deadline`; who does not answer in an equal share of what is left of it is ended.
    /// Names those that had to be.
    pub async fn shutdown(self, deadline: Duration) -> Vec<&'static str> {
        // Nobody is restarted any more, whoever ends first.
        for child in &self.children {
            child.stopping.send_replace(true);
        }
        let until = Instant::now() + deadline;
        let mut left = self.children.len() as u32;
        let mut overdue = Vec::new();
        for mut child in self.children.into_iter().rev() {
            let stopped = async {
                (child.stop)().await;
                let _ = (&mut child.guardian).await;
            };
            // An equal share of what is left: one that hangs does not take the others' time.
            let share = until.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            if timeout(share, stopped).await.is_err() {
                tracing::warn!(actor = child.name, ?deadline, "did not stop in time and is ended");
                child.guardian.abort();
                let _ = child.guardian.await;
                overdue.push(child.name);
            }
        }
        overdue
    }
}

/// Watches over one child.
struct Guardian<A: Actor> {
    spec: ChildSpec<A>,
    tracker: RestartTracker,
    environment: Environment,
    current: watch::Sender<Option<Addr<A>>>,
    status: watch::Sender<ChildStatus>,
    stopping: watch::Receiver<bool>,
    escalation: watch::Sender<Option<Escalation>>,
}

impl<A: Actor<Context = Context<A>>> Guardian<A> {
    async fn run(mut self) {
        let name = self.spec.name;
        loop {
            let exit = self.run_once().await;
            self.environment.record_end(name, &exit);
            self.current.send_replace(None);
            if *self.stopping.borrow() {
                self.set(ChildState::Stopped, Some(exit));
                return;
            }
            let decision = self.tracker.on_exit(self.environment.now().monotonic, &exit);
            match decision {
                Decision::Restart { after } => {
                    tracing::warn!(actor = name, %exit, ?after, "actor ended; it is restarted");
                    metrics::counter!("soma_actor_restarts_total", "actor" => name).increment(1);
                    self.set(ChildState::BackingOff, Some(exit));
                    let stopping = async { self.stopping.wait_for(|stopping| *stopping).await.is_ok() };
                    if timeout(after, stopping).await.is_ok() {
                        self.set(ChildState::Stopped, None);
                        return;
                    }
                    self.status.send_modify(|status| status.restarts += 1);
                }
                Decision::Stop => {
                    self.set(ChildState::Stopped, Some(exit));
                    return;
                }
                Decision::Escalate => {
                    tracing::error!(actor = name, %exit, "actor does not stay up");
                    self.set(ChildState::GivenUp, Some(exit.clone()));
                    self.escalation.send_modify(|first| {
                        first.get_or_insert(Escalation { child: name, exit });
                    });
                    return;
                }
            }
        }
    }

    async fn run_once(&mut self) -> ExitReason {
        self.set(ChildState::Starting, None);
        let actor = match (self.spec.factory)().await {
            Ok(actor) => actor,
            Err(reason) => return ExitReason::Failed(reason),
        };
        let (address, ended) = run_actor(actor, self.spec.mailbox_capacity);
        self.current.send_replace(Some(address));
        self.set(ChildState::Running, None);
        ended.await
    }

    fn set(&self, state: ChildState, exit: Option<ExitReason>) {
        self.status.send_modify(|status| {
            status.state = state;
            if exit.is_some() {
                status.last_exit = exit;
            }
        });
    }
}
