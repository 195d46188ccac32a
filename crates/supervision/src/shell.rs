//! The shell around a core: feeds inputs, carries out effects, holds the one timer.

use crate::Environment;
use actix::{Actor, AsyncContext, Context, SpawnHandle};
use soma_protocol::{Core, Now};
use std::time::Duration;

/// A core with its environment and its timer.
pub struct CoreHost<C: Core> {
    core: C,
    environment: Environment,
    wake: Option<(Duration, SpawnHandle)>,
}

impl<C: Core> CoreHost<C> {
    /// Hosts `core`.
    pub fn new(core: C, environment: Environment) -> Self {
        Self { core, environment, wake: None }
    }

    /// The present time.
    pub fn now(&self) -> Now {
        self.environment.now()
    }

    /// The environment, for actors that this one starts.
    pub fn environment(&self) -> Environment {
        self.environment.clone()
    }

    /// What the core shows of itself.
    pub fn snapshot(&self) -> C::Snapshot {
        self.core.snapshot()
    }
}

/// An actor that is a core in a shell.
pub trait Shell: Actor<Context = Context<Self>> {
    /// Its core.
    type Core: Core;

    /// Its core's host.
    fn host(&mut self) -> &mut CoreHost<Self::Core>;

    /// Carries out one effect. Must not call [`feed`](Self::feed) itself: what comes of an effect comes later, as a
    /// message or from a spawned future, so that effects are carried out in the order in which they were decided.
    fn perform(&mut self, effect: <Self::Core as Core>::Effect, context: &mut Context<Self>);

    /// Hands one input to the core and carries out what it decides.
    fn feed(&mut self, input: <Self::Core as Core>::Input, context: &mut Context<Self>) {
        let host = self.host();
        host.environment.fail_if_planned(Self::Core::NAME, &input);
        let now = host.now();
        tracing::trace!(actor = Self::Core::NAME, ?input, "input");
        for effect in host.core.handle(now, input) {
            tracing::trace!(actor = Self::Core::NAME, ?effect, "effect");
            self.perform(effect, context);
        }
        self.arm(context);
    }

    /// Sets the timer to when the core wants to be woken.
    fn arm(&mut self, context: &mut Context<Self>) {
        let host = self.host();
        let wanted = host.core.next_wake();
        if wanted == host.wake.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = host.wake.take() {
            context.cancel_future(timer);
        }
        let (Some(at), Some(wake)) = (wanted, Self::Core::wake()) else { return };
        let delay = at.saturating_sub(host.now().monotonic);
        let timer = context.run_later(delay, |shell, context| {
            shell.host().wake = None;
            shell.feed(wake, context);
        });
        self.host().wake = Some((at, timer));
    }
}
