//! A supervisor: starts its children in order, restarts them by its strategy, stops them in reverse, and escalates.

use crate::{
    ChildSpec, ChildState, Decision, Environment, ExitReason, RestartTracker, Rules,
    census::MAX_BLOCKED_THREADS,
    guardian::ActorChild,
    status::{Display, Tree},
};
use crate::{Envelope, Stop};
use actix::{Actor, Context, Handler};
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::VecDeque, ops::Range, rc::Rc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Which children are restarted when one ends.
///
/// Groups are supervisors under supervisors:
///
/// ```
/// use soma_runtime::{Clock, Environment, Intensity, Rules, Strategy, Supervisor};
/// use std::time::Duration;
///
/// # actix_rt::System::new().block_on(async {
/// let environment = Environment::new(Clock::system());
/// // A directory, and an index that is built from what the directory has told it.
/// let mut group = Supervisor::new("search", Strategy::RestForOne, environment.clone(), 1);
/// // group.actor(directory); group.actor(index);
/// group = group.with_rules(Rules {
///     intensity: Intensity { max_restarts: 3, within: Duration::from_secs(60) },
///     ..Rules::default()
/// });
/// let mut root = Supervisor::new("root", Strategy::OneForOne, environment, 2);
/// root.supervisor(group);
/// let supervision = root.start();
/// # assert!(supervision.shutdown(Duration::from_secs(1)).await.is_empty());
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// That one: children do not rely on what the others remember.
    OneForOne,
    /// That one and those started after it: each relies on those before it.
    RestForOne,
    /// All: each relies on all others.
    OneForAll,
}

impl Strategy {
    /// The children that are restarted when the one at `ended` of `count` ends.
    fn affected(self, ended: usize, count: usize) -> Range<usize> {
        match self {
            Self::OneForOne => ended..ended + 1,
            Self::RestForOne => ended..count,
            Self::OneForAll => 0..count,
        }
    }
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

/// What a life is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Live,
    /// End in order; what has not ended at `until` is ended.
    Stop {
        until: Instant,
    },
}

/// How a life ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: ExitReason,
    /// Who had to be ended because it did not stop in time.
    pub(crate) overdue: Vec<&'static str>,
}

impl Ended {
    pub(crate) fn by(exit: ExitReason) -> Self {
        Self { exit, overdue: Vec::new() }
    }
}

/// Something that lives under a supervisor, one life after the other.
pub(crate) trait Child {
    fn name(&self) -> &'static str;
    fn rules(&self) -> Rules;
    fn display(&self) -> &Display;
    fn tree(&self) -> Tree;
    /// One life. Ends soon after an order to stop is due, whatever happens.
    fn live(&mut self, orders: watch::Receiver<Order>) -> LocalBoxFuture<'static, Ended>;
}

/// Puts a supervisor together. Nothing lives until it, or the supervisor that it is a child of, is started.
///
/// ```
/// use actix::{Actor, ActorContext, Context, Handler};
/// use soma_runtime::{Envelope, Slot, Stop};
/// use soma_runtime::{ChildSpec, ChildState, Clock, Environment, Strategy, Supervisor};
/// use std::time::Duration;
///
/// struct Ledger;
/// impl Actor for Ledger {
///     type Context = Context<Self>;
/// }
/// impl Handler<Envelope<Stop>> for Ledger {
///     type Result = ();
///     fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
///         context.stop();
///         envelope.message.0.send(());
///     }
/// }
///
/// actix_rt::System::new().block_on(async {
///     let environment = Environment::new(Clock::system()).with_threads();
///     let mut supervisor = Supervisor::new("accounts", Strategy::RestForOne, environment, 7);
///     let slot = Slot::new("ledger");
///     let ledger = slot.reference(); // for others to write to, whichever incarnation is alive
///     supervisor.actor(ChildSpec::new(slot, 16, || async { Ok(Ledger) }));
///
///     let supervision = supervisor.start();
///     assert!(ledger.alive().await);
///     supervision.tree().up().await;
///     assert_eq!(supervision.tree().status().find("ledger").unwrap().state, ChildState::Running);
///     assert!(supervision.shutdown(Duration::from_secs(5)).await.is_empty());
/// });
/// ```
pub struct Supervisor {
    name: &'static str,
    strategy: Strategy,
    rules: Rules,
    environment: Environment,
    seed: u64,
    display: Display,
    /// Lent to each life.
    children: Rc<RefCell<Vec<Box<dyn Child>>>>,
}

impl Supervisor {
    /// A supervisor without children. `seed` is for the jitter of backoffs.
    pub fn new(name: &'static str, strategy: Strategy, environment: Environment, seed: u64) -> Self {
        let display = Display::new(environment.clock());
        Self { name, strategy, rules: Rules::default(), environment, seed, display, children: Rc::default() }
    }

    /// With other rules for itself, as a child of another supervisor.
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Adds an actor; it is started after those added before.
    pub fn actor<A>(&mut self, spec: ChildSpec<A>)
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<Stop>>,
    {
        let child = ActorChild::new(spec, self.environment.clone());
        self.children.borrow_mut().push(Box::new(child));
    }

    /// Adds a supervisor; it is started after those added before. When a child of it does not stay up, all of its
    /// children are stopped, and it counts as failed.
    pub fn supervisor(&mut self, child: Supervisor) {
        self.children.borrow_mut().push(Box::new(child));
    }

    /// Starts the children, on the current thread's [`LocalSet`](tokio::task::LocalSet).
    pub fn start(self) -> Supervision {
        let escalation = watch::Sender::new(None);
        let escalated = escalation.subscribe();
        let (orders, ordered) = watch::channel(Order::Live);
        let tree = self.tree();
        let mut reign = Reign::new(&self, ordered, Some(escalation));
        let task = actix_rt::spawn(async move { reign.run().await });
        Supervision { tree, escalated, orders, task }
    }
}

/// A tree that lives. Dropping it lets it live on, unattended.
pub struct Supervision {
    tree: Tree,
    escalated: watch::Receiver<Option<Escalation>>,
    orders: watch::Sender<Order>,
    task: JoinHandle<Ended>,
}

impl Supervision {
    /// The way to look at it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The first child of the root that did not stay up, when there is one. The others live until shutdown.
    pub fn escalation(&self) -> watch::Receiver<Option<Escalation>> {
        self.escalated.clone()
    }

    /// Stops the children one by one, the last started first, all within `deadline` and each within its own; who does
    /// not is ended. Names those that had to be.
    pub async fn shutdown(self, deadline: Duration) -> Vec<&'static str> {
        self.orders.send_replace(Order::Stop { until: Instant::now() + deadline });
        match self.task.await {
            Ok(ended) => ended.overdue,
            // Only a panic of the supervisor itself: its children ended with it.
            Err(error) => {
                tracing::error!(%error, "the supervisor ended without a report");
                vec![self.tree.name]
            }
        }
    }
}

impl Child for Supervisor {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rules(&self) -> Rules {
        self.rules
    }

    fn display(&self) -> &Display {
        &self.display
    }

    fn tree(&self) -> Tree {
        let children = self.children.borrow().iter().map(|child| child.tree()).collect();
        Tree::new(self.name, Some(self.strategy), children, &self.display)
    }

    fn live(&mut self, orders: watch::Receiver<Order>) -> LocalBoxFuture<'static, Ended> {
        let mut reign = Reign::new(self, orders, None);
        async move { reign.run().await }.boxed_local()
    }
}

/// Something that happened to a child. Of a life that was superseded it means nothing.
enum Event {
    Ended { child: usize, life: u64, ended: Ended },
    Due { members: Vec<(usize, u64)> },
}

/// What a supervisor knows of a child.
struct Seat {
    tracker: RestartTracker,
    orders: watch::Sender<Order>,
    alive: bool,
    /// Counts what was decided about the child: a restart that was planned before the latest one does not happen.
    life: u64,
}

/// One life of a supervisor.
struct Reign {
    strategy: Strategy,
    environment: Environment,
    display: Display,
    children: Rc<RefCell<Vec<Box<dyn Child>>>>,
    orders: watch::Receiver<Order>,
    seats: Vec<Seat>,
    events: FuturesUnordered<LocalBoxFuture<'static, Event>>,
    /// What happened while something else was waited for.
    backlog: VecDeque<Event>,
    overdue: Vec<&'static str>,
    /// At the root, where escalations go.
    escalation: Option<watch::Sender<Option<Escalation>>>,
    given_up: bool,
}

impl Reign {
    fn new(
        supervisor: &Supervisor,
        orders: watch::Receiver<Order>,
        escalation: Option<watch::Sender<Option<Escalation>>>,
    ) -> Self {
        let children = supervisor.children.borrow();
        let seats = children.iter().enumerate().map(|(number, child)| {
            let Rules { policy, intensity, backoff, .. } = child.rules();
            let seed = supervisor.seed.wrapping_add(number as u64);
            let tracker = RestartTracker::new(policy, intensity, backoff, seed);
            Seat { tracker, orders: watch::Sender::new(Order::Live), alive: false, life: 0 }
        });
        let seats = seats.collect();
        drop(children);
        Self {
            strategy: supervisor.strategy,
            environment: supervisor.environment.clone(),
            display: supervisor.display.clone(),
            children: supervisor.children.clone(),
            orders,
            seats,
            events: FuturesUnordered::new(),
            backlog: VecDeque::new(),
            overdue: Vec::new(),
            escalation,
            given_up: false,
        }
    }

    async fn run(&mut self) -> Ended {
        for child in 0..self.seats.len() {
            self.start(child);
        }
        self.display.running(None);
        loop {
            let event = match self.backlog.pop_front() {
                Some(event) => event,
                None => {
                    // The stream of events is empty when every child has ended for good; an order still comes.
                    tokio::select! {
                        biased;
                        _ = self.orders.wait_for(|order| matches!(order, Order::Stop { .. })) => break,
                        Some(event) = self.events.next() => event,
                    }
                }
            };
            match event {
                Event::Ended { child, life, ended } if self.seats[child].life == life => {
                    if let Some(escalation) = self.on_end(child, ended).await {
                        return self.escalate(escalation).await;
                    }
                }
                Event::Due { members } => {
                    for (child, life) in members {
                        if self.seats[child].life == life {
                            self.start(child);
                        }
                    }
                }
                Event::Ended { .. } => {}
            }
        }
        self.display.state(ChildState::Stopping);
        self.stop_all().await;
        Ended { exit: ExitReason::Normal, overdue: std::mem::take(&mut self.overdue) }
    }

    fn name(&self, child: usize) -> &'static str {
        self.children.borrow()[child].name()
    }

    fn display(&self, child: usize) -> Display {
        self.children.borrow()[child].display().clone()
    }

    fn start(&mut self, child: usize) {
        self.display(child).starting();
        let seat = &mut self.seats[child];
        seat.orders.send_replace(Order::Live);
        seat.alive = true;
        let life = seat.life;
        let living = self.children.borrow_mut()[child].live(seat.orders.subscribe());
        self.events.push(async move { Event::Ended { child, life, ended: living.await } }.boxed_local());
    }

    /// Decides on the end of a child. An escalation ends the supervisor.
    async fn on_end(&mut self, child: usize, ended: Ended) -> Option<Escalation> {
        let (name, display) = (self.name(child), self.display(child));
        let exit = ended.exit;
        self.seats[child].alive = false;
        self.seats[child].life += 1;
        if self.given_up {
            display.ended(ChildState::Stopped, exit);
            return None;
        }
        let now = self.environment.now().monotonic;
        let decision = match self.environment.census().blocked() {
            // One more thread would be lost each time.
            blocked if blocked >= MAX_BLOCKED_THREADS => Decision::Escalate,
            _ => self.seats[child].tracker.on_exit(now, &exit),
        };
        match decision {
            Decision::Stop => {
                display.ended(ChildState::Stopped, exit);
                None
            }
            Decision::Escalate => {
                tracing::error!(child = name, %exit, "does not stay up");
                display.ended(ChildState::GivenUp, exit.clone());
                let escalation = Escalation { child: name, exit };
                match &self.escalation {
                    Some(root) => {
                        root.send_replace(Some(escalation));
                        self.given_up = true;
                        None
                    }
                    None => Some(escalation),
                }
            }
            Decision::Restart { after } => {
                tracing::warn!(child = name, %exit, ?after, "ended; it is restarted");
                metrics::counter!("soma_actor_restarts_total", "actor" => name).increment(1);
                display.ended(ChildState::BackingOff, exit);
                self.restart(child, after).await;
                None
            }
        }
    }

    /// Stops those who go with a child, and plans the start of them all.
    async fn restart(&mut self, child: usize, after: Duration) {
        let affected = self.strategy.affected(child, self.seats.len());
        let mut members = Vec::new();
        for other in affected.clone().rev() {
            if other == child {
                members.push(other);
            } else if self.seats[other].alive {
                let deadline = self.children.borrow()[other].rules().shutdown;
                let exit = self.stop(other, deadline).await;
                tracing::warn!(child = self.name(other), with = self.name(child), "restarted together");
                self.display(other).ended(ChildState::BackingOff, exit);
                members.push(other);
            } else if self.display(other).is(ChildState::BackingOff) {
                members.push(other);
            }
        }
        members.reverse();
        let members: Vec<_> = members
            .into_iter()
            .map(|member| {
                self.seats[member].life += 1;
                (member, self.seats[member].life)
            })
            .collect();
        self.events.push(
            async move {
                sleep(after).await;
                Event::Due { members }
            }
            .boxed_local(),
        );
    }

    /// Stops a child, and waits for its end.
    async fn stop(&mut self, child: usize, deadline: Duration) -> ExitReason {
        let until = Instant::now() + deadline;
        let until = match *self.orders.borrow() {
            Order::Stop { until: all } => until.min(all),
            Order::Live => until,
        };
        let life = self.seats[child].life;
        self.seats[child].orders.send_replace(Order::Stop { until });
        let mut watching = true;
        loop {
            tokio::select! {
                biased;
                ordered = self.orders.changed(), if watching => {
                    // The whole is to stop: at once, where there was more time.
                    watching = ordered.is_ok();
                    if let Order::Stop { until: all } = *self.orders.borrow_and_update() {
                        self.seats[child].orders.send_replace(Order::Stop { until: until.min(all) });
                    }
                }
                Some(event) = self.events.next() => match event {
                    Event::Ended { child: ended, life: of, ended: how } if (ended, of) == (child, life) => {
                        self.seats[child].alive = false;
                        self.seats[child].life += 1;
                        self.overdue.extend(how.overdue);
                        return how.exit;
                    }
                    other => self.backlog.push_back(other),
                },
            }
        }
    }

    /// Stops all, the last started first, within what the order says.
    async fn stop_all(&mut self) {
        for event in std::mem::take(&mut self.backlog) {
            if let Event::Ended { child, life, ended } = event
                && self.seats[child].life == life
            {
                self.seats[child].alive = false;
                self.display(child).ended(ChildState::Stopped, ended.exit);
            }
        }
        let mut left = self.seats.len() as u32;
        for child in (0..self.seats.len()).rev() {
            let now = Instant::now();
            let until = match *self.orders.borrow() {
                Order::Stop { until } => until,
                // Its own end: each child has its own time.
                Order::Live => now + SHUTDOWN_OF_ALL,
            };
            // An equal share of what is left: one that hangs does not take the others' time.
            let share = until.saturating_duration_since(now) / left;
            left -= 1;
            // A start that is planned does not happen.
            if !self.seats[child].alive {
                self.seats[child].life += 1;
                if !self.display(child).is(ChildState::GivenUp) {
                    self.display(child).state(ChildState::Stopped);
                }
                continue;
            }
            let own = self.children.borrow()[child].rules().shutdown;
            let exit = self.stop(child, share.min(own)).await;
            self.display(child).ended(ChildState::Stopped, exit);
        }
    }

    /// The supervisor does not stay up: its children end with it.
    async fn escalate(&mut self, escalation: Escalation) -> Ended {
        self.stop_all().await;
        Ended { exit: ExitReason::Failed(escalation.to_string()), overdue: std::mem::take(&mut self.overdue) }
    }
}

/// How long the children of a supervisor that does not stay up have to stop.
const SHUTDOWN_OF_ALL: Duration = Duration::from_secs(10);
