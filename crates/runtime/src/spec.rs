//! How a child is to live.

use crate::{
    mailbox::Slot,
    restart::{Intensity, RESTART_BACKOFF, RestartPolicy},
};
use actix::Actor;
use futures::future::LocalBoxFuture;
use soma_protocol::Backoff;
use std::{future::Future, sync::Arc, time::Duration};

/// How long a child may take to stop before it is ended.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a child may give no sign of life: five times its heartbeat.
const ALLOWANCE: Duration = Duration::from_secs(10);

/// What follows when a child ends, and when it is to end.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which exits call for a restart.
    pub policy: RestartPolicy,
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// How long to wait before each.
    pub backoff: Backoff,
    /// How long it may take to stop.
    pub shutdown: Duration,
}

impl Default for Rules {
    /// A permanent child.
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Permanent,
            intensity: Intensity::default(),
            backoff: RESTART_BACKOFF,
            shutdown: SHUTDOWN,
        }
    }
}

/// Makes an actor. Called on the thread on which the actor is to live.
pub(crate) type Factory<A> = Arc<dyn Fn() -> LocalBoxFuture<'static, Result<A, String>> + Send + Sync>;

/// How one actor is to live.
pub struct ChildSpec<A: Actor> {
    /// What follows when it ends.
    pub rules: Rules,
    /// How long it may give no sign of life, also while it is being made.
    pub allowance: Duration,
    /// Messages in its mailbox. Each sender adds one.
    pub mailbox_capacity: usize,
    pub(crate) slot: Arc<Slot<A>>,
    pub(crate) factory: Factory<A>,
}

impl<A: Actor> ChildSpec<A> {
    /// A permanent child that lives in `slot`, each incarnation made by `factory`: from what is durable and what others
    /// can tell, not from what the last one knew. The factory runs where the actor is to live.
    pub fn new<F>(slot: Slot<A>, mailbox_capacity: usize, factory: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<A, String>> + 'static,
    {
        Self {
            rules: Rules::default(),
            allowance: ALLOWANCE,
            mailbox_capacity,
            slot: Arc::new(slot),
            factory: Arc::new(move || Box::pin(factory())),
        }
    }

    /// With other rules.
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }
}
