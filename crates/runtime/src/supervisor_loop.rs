//! One life of a supervisor: decides on the end of each child, and restarts or stops children.

use crate::{
    child::{Child, Ended, Escalation, Order},
    child_counts::MAX_BLOCKED_THREADS,
    exit::ExitReason,
    restart::{Decision, RestartTracker},
    runtime_context::RuntimeContext,
    spec::Rules,
    status::{ChildState, Display},
    strategy::Strategy,
};
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// How long the children of a supervisor that does not stay up have to stop.
const SHUTDOWN_OF_ALL: Duration = Duration::from_secs(10);

/// A supervisor's children, lent to each of its lives.
pub(crate) type Children = Rc<RefCell<Vec<Box<dyn Child>>>>;

/// What a supervisor gives each of its lives.
#[derive(Clone)]
pub(crate) struct LoopConfig {
    pub(crate) strategy: Strategy,
    pub(crate) runtime_context: RuntimeContext,
    /// For the jitter of backoffs.
    pub(crate) seed: u64,
    pub(crate) display: Display,
    pub(crate) children: Children,
}

/// Something that happened to a child. Of a life that was superseded it means nothing.
enum Event {
    Ended { child: usize, life: u64, ended: Ended },
    Due { members: Vec<(usize, u64)> },
}

/// What a supervisor knows of a child.
struct ChildSlot {
    tracker: RestartTracker,
    orders: watch::Sender<Order>,
    alive: bool,
    /// Counts decisions on the child: an older planned restart does not happen.
    life: u64,
}

/// One life of a supervisor.
pub(crate) struct SupervisorLoop {
    strategy: Strategy,
    runtime_context: RuntimeContext,
    display: Display,
    children: Children,
    orders: watch::Receiver<Order>,
    slots: Vec<ChildSlot>,
    events: FuturesUnordered<LocalBoxFuture<'static, Event>>,
    /// What happened while something else was waited for.
    backlog: VecDeque<Event>,
    overdue: Vec<&'static str>,
    /// At the root, where escalations go.
    escalation: Option<watch::Sender<Option<Escalation>>>,
    given_up: bool,
}

/// How often an actor or a supervisor was restarted.
fn restarts(name: &'static str) -> metrics::Counter {
    metrics::counter!("soma_actor_restarts_total", "actor" => name)
}

impl SupervisorLoop {
    pub(crate) fn new(
        config: LoopConfig,
        orders: watch::Receiver<Order>,
        escalation: Option<watch::Sender<Option<Escalation>>>,
    ) -> Self {
        let LoopConfig { strategy, runtime_context, seed, display, children } = config;
        let slot = |number: usize, child: &dyn Child| {
            let Rules { policy, intensity, backoff, .. } = child.rules();
            let seed = seed.wrapping_add(number as u64);
            let tracker = RestartTracker::new(policy, intensity, backoff, seed);
            ChildSlot { tracker, orders: watch::Sender::new(Order::Live), alive: false, life: 0 }
        };
        let slots = children.borrow().iter().enumerate().map(|(number, child)| slot(number, &**child)).collect();
        Self {
            strategy,
            runtime_context,
            display,
            children,
            orders,
            slots,
            events: FuturesUnordered::new(),
            backlog: VecDeque::new(),
            overdue: Vec::new(),
            escalation,
            given_up: false,
        }
    }

    pub(crate) async fn run(&mut self) -> Ended {
        for child in 0..self.slots.len() {
            // So that a first restart shows as an increase.
            restarts(self.name(child)).increment(0);
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
                Event::Ended { child, life, ended } if self.slots[child].life == life => {
                    if let Some(escalation) = self.on_end(child, ended).await {
                        return self.escalate(escalation).await;
                    }
                }
                Event::Due { members } => {
                    for (child, life) in members {
                        if self.slots[child].life == life {
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
        let slot = &mut self.slots[child];
        slot.orders.send_replace(Order::Live);
        slot.alive = true;
        let life = slot.life;
        let living = self.children.borrow_mut()[child].live(slot.orders.subscribe());
        self.events.push(async move { Event::Ended { child, life, ended: living.await } }.boxed_local());
    }

    /// Decides on the end of a child. An escalation ends the supervisor.
    async fn on_end(&mut self, child: usize, ended: Ended) -> Option<Escalation> {
        let (name, display) = (self.name(child), self.display(child));
        let exit = ended.exit;
        self.slots[child].alive = false;
        self.slots[child].life += 1;
        if self.given_up {
            display.ended(ChildState::Stopped, exit);
            return None;
        }
        let now = self.runtime_context.now().monotonic;
        let decision = match self.runtime_context.child_counts().blocked() {
            // One more thread would be lost each time.
            blocked if blocked >= MAX_BLOCKED_THREADS => Decision::Escalate,
            _ => self.slots[child].tracker.on_exit(now, &exit),
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
                restarts(name).increment(1);
                display.ended(ChildState::BackingOff, exit);
                self.restart(child, after).await;
                None
            }
        }
    }

    /// Stops the children that go with a child, and plans the start of them all.
    async fn restart(&mut self, child: usize, after: Duration) {
        let affected = self.strategy.affected(child, self.slots.len());
        let mut members = Vec::new();
        for other in affected.clone().rev() {
            if other == child {
                members.push(other);
            } else if self.slots[other].alive {
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
                self.slots[member].life += 1;
                (member, self.slots[member].life)
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
        let life = self.slots[child].life;
        self.slots[child].orders.send_replace(Order::Stop { until });
        let mut watching = true;
        loop {
            tokio::select! {
                biased;
                ordered = self.orders.changed(), if watching => {
                    // The whole is to stop: at once, where there was more time.
                    watching = ordered.is_ok();
                    if let Order::Stop { until: all } = *self.orders.borrow_and_update() {
                        self.slots[child].orders.send_replace(Order::Stop { until: until.min(all) });
                    }
                }
                Some(event) = self.events.next() => match event {
                    Event::Ended { child: ended, life: of, ended: how } if (ended, of) == (child, life) => {
                        self.slots[child].alive = false;
                        self.slots[child].life += 1;
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
                && self.slots[child].life == life
            {
                self.slots[child].alive = false;
                self.display(child).ended(ChildState::Stopped, ended.exit);
            }
        }
        let mut left = self.slots.len() as u32;
        for child in (0..self.slots.len()).rev() {
            let now = Instant::now();
            let until = match *self.orders.borrow() {
                Order::Stop { until } => until,
                // Its own end: each child has its own time.
                Order::Live => now + SHUTDOWN_OF_ALL,
            };
            // An equal share of the rest: a hanging child does not take the others' time.
            let share = until.saturating_duration_since(now) / left;
            left -= 1;
            // A start that is planned does not happen.
            if !self.slots[child].alive {
                self.slots[child].life += 1;
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
