//! A supervisor: starts its children in order, restarts them by its strategy, stops them in reverse, and escalates.

use crate::{
    child::{Child, Ended, Escalation, Order},
    mailbox::Envelope,
    monitor::ActorChild,
    observe::Stop,
    runtime_context::RuntimeContext,
    spec::{ChildSpec, Rules},
    status::{Display, Tree},
    strategy::Strategy,
    supervisor_loop::{Children, LoopConfig, SupervisorLoop},
};
use actix::{Actor, Context, Handler};
use futures::{FutureExt, future::LocalBoxFuture};
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// Puts a supervisor together. Nothing lives until it, or the supervisor that it is a child of, is started.
///
/// ```
/// use actix::{Actor, ActorContext, Context, Handler};
/// use soma_runtime::{Envelope, Slot, Stop};
/// use soma_runtime::{ChildSpec, ChildState, Clock, RuntimeContext, Strategy, Supervisor};
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
///     let runtime_context = RuntimeContext::new(Clock::system()).with_threads();
///     let mut supervisor = Supervisor::new("accounts", Strategy::RestForOne, runtime_context, 7);
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
    rules: Rules,
    config: LoopConfig,
}

impl Supervisor {
    /// A supervisor without children. `seed` is for the jitter of backoffs.
    pub fn new(name: &'static str, strategy: Strategy, runtime_context: RuntimeContext, seed: u64) -> Self {
        let display = Display::new(runtime_context.clock());
        let config = LoopConfig { strategy, runtime_context, seed, display, children: Children::default() };
        Self { name, rules: Rules::default(), config }
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
        let child = ActorChild::new(spec, self.config.runtime_context.clone());
        self.config.children.borrow_mut().push(Box::new(child));
    }

    /// Adds a supervisor; it is started after those added before. When a child of it does not stay up, all of its
    /// children are stopped, and it counts as failed.
    pub fn supervisor(&mut self, child: Supervisor) {
        self.config.children.borrow_mut().push(Box::new(child));
    }

    /// Starts the children, on the current thread's [`LocalSet`](tokio::task::LocalSet).
    pub fn start(self) -> Supervision {
        let escalation = watch::Sender::new(None);
        let escalated = escalation.subscribe();
        let (orders, ordered) = watch::channel(Order::Live);
        let tree = self.tree();
        let mut supervisor_loop = SupervisorLoop::new(self.config, ordered, Some(escalation));
        let task = actix_rt::spawn(async move { supervisor_loop.run().await });
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
        &self.config.display
    }

    fn tree(&self) -> Tree {
        let children = self.config.children.borrow().iter().map(|child| child.tree()).collect();
        Tree::new(self.name, Some(self.config.strategy), children, &self.config.display)
    }

    fn live(&mut self, orders: watch::Receiver<Order>) -> LocalBoxFuture<'static, Ended> {
        let mut supervisor_loop = SupervisorLoop::new(self.config.clone(), orders, None);
        async move { supervisor_loop.run().await }.boxed_local()
    }
}
