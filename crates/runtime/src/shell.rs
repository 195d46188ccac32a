//! The shell around a core: feeds inputs, carries out effects, holds the one timer.

use crate::causality::{self, carry_from, following};
use crate::{
    clock::Clock,
    liveness::{self, Busy},
    runtime_context::{Fault, RuntimeContext, Tracking},
};
use actix::{Actor, ActorContext, AsyncContext, Context, SpawnHandle, WrapFuture, fut::ActorFutureExt};
use metrics::{Histogram, histogram};
use soma_protocol::{Core, Now};
use soma_replay::{Cause, Flow, Origin};
use std::{
    future::{Future, pending},
    time::Duration,
};
use tokio::time::sleep;

/// A core with its environment and its timer.
pub struct CoreHost<C: Core> {
    core: C,
    runtime_context: RuntimeContext,
    tracking: Tracking,
    /// Durations of handled inputs. Held, because a lookup in the recorder would cost more than a sample.
    handler_seconds: Histogram,
    wake: Option<(Duration, SpawnHandle)>,
}

impl<C: Core> CoreHost<C> {
    /// Hosts `core`.
    pub fn new(core: C, runtime_context: RuntimeContext) -> Self {
        let handler_seconds = histogram!("soma_actor_handler_seconds", "actor" => C::NAME);
        Self { core, tracking: runtime_context.tracking::<C>(), handler_seconds, runtime_context, wake: None }
    }

    /// The present time.
    pub fn now(&self) -> Now {
        self.runtime_context.now()
    }

    /// What tells the time, for work off this thread.
    pub fn clock(&self) -> Clock {
        self.runtime_context.clock()
    }

    /// The runtime context, for actors that this one starts.
    pub fn runtime_context(&self) -> RuntimeContext {
        self.runtime_context.clone()
    }

    /// The core, to look at.
    pub fn core(&self) -> &C {
        &self.core
    }

    /// What the core shows of itself.
    pub fn snapshot(&self) -> C::Snapshot {
        self.core.snapshot()
    }

    /// Lets the core decide, and records the decision. The returned cause is that of all effects.
    fn decide(&mut self, now: Now, origin: Origin, input: C::Input) -> (Option<Cause>, Vec<C::Effect>) {
        match self.tracking.track::<C>() {
            Some(track) => {
                let (cause, effects) = track.handle(&mut self.core, now, origin, input);
                (Some(cause), effects)
            }
            None => (origin.cause, self.core.handle(now, input)),
        }
    }
}

/// An actor that is a core in a shell.
pub trait Shell: Actor<Context = Context<Self>> {
    /// Its core.
    type Core: Core;

    /// Its core's host.
    fn host(&mut self) -> &mut CoreHost<Self::Core>;

    /// Carries out one effect. Must not call [`feed`](Self::feed) itself: what comes of an effect comes later, as a
    /// message or by [`later`](Self::later), so that effects are carried out in the order in which they were decided.
    fn perform(&mut self, effect: <Self::Core as Core>::Effect, context: &mut Context<Self>);

    /// Called after each input, once its effects are carried out. For what must be told whichever input changed it.
    fn after_input(&mut self) {}

    /// Hands one input to the core and carries out its effects.
    #[expect(clippy::panic, reason = "a test asks for this panic")]
    fn feed(&mut self, origin: Origin, input: <Self::Core as Core>::Input, context: &mut Context<Self>) {
        tracing::trace!(actor = Self::Core::NAME, sender = origin.sender, ?input, "input");
        let kind = serde_variant::to_variant_name(&input).unwrap_or("an input");
        let _handling = liveness::handling(Busy { actor: Self::Core::NAME, input: kind, sender: origin.sender });
        match self.host().runtime_context.planned(Self::Core::NAME, &input) {
            None => take(self, origin, kind, input, context),
            // Asked for by a test, and by nothing else: it is what a handler with a bug does.
            Some(Fault::Panic(message)) => panic!("{message}"),
            Some(Fault::Error(reason)) => self.give_up(reason, context),
            Some(Fault::Delay(time)) => {
                let later = sleep(time).into_actor(self);
                context.wait(later.map(move |(), shell, context| take(shell, origin, kind, input, context)));
            }
            Some(Fault::Hang) => context.wait(pending().into_actor(self)),
            Some(Fault::Block(block)) => {
                block();
                take(self, origin, kind, input, context);
            }
        }
    }

    /// Ends the actor with an error: its supervisor makes another.
    fn give_up(&mut self, reason: String, context: &mut Context<Self>) {
        liveness::fail(reason);
        context.terminate();
    }

    /// Waits for some work beside all else, and then finishes it on the actor. Its results have the cause of what is
    /// being done now, or from the last answer that the work has got. Ends with the actor.
    fn later<R: 'static>(
        &mut self,
        work: impl Future<Output = R> + 'static,
        finish: impl FnOnce(&mut Self, R, Origin, &mut Context<Self>) + 'static,
        context: &mut Context<Self>,
    ) -> SpawnHandle {
        let work = carry_from(Self::Core::NAME, work).into_actor(self);
        context.spawn(work.map(|(result, origin), shell, context| {
            following(origin.clone(), || finish(shell, result, origin, context));
        }))
    }

    /// Sets the timer to when the core wants to be woken.
    ///
    /// A timer that is set for an earlier time stays, and is set again when it fires: nearly every input of a busy core
    /// moves that time, and a timer is dear to replace.
    fn arm(&mut self, context: &mut Context<Self>) {
        let host = self.host();
        let wanted = host.core.next_wake();
        let is_set = |(set, _): (Duration, SpawnHandle)| wanted.is_none_or(|wanted| set <= wanted);
        if host.wake.is_some_and(is_set) {
            return;
        }
        if let Some((_, timer)) = host.wake.take() {
            context.cancel_future(timer);
        }
        let (Some(at), Some(_)) = (wanted, Self::Core::wake()) else { return };
        let delay = at.saturating_sub(host.now().monotonic);
        // What an actor does at a time that it has set belongs to no flow: it may come for ever.
        let origin = Origin { flow: Flow::NONE, ..causality::origin("timer") };
        let timer = context.run_later(delay, move |shell, context| {
            // actix calls back even if the timer was cancelled, when it was due by then; another one is set since.
            if shell.host().wake.is_none_or(|(_, current)| current != context.handle()) {
                return;
            }
            let host = shell.host();
            host.wake = None;
            let now = host.now().monotonic;
            match Self::Core::wake().filter(|_| host.core.next_wake().is_some_and(|wanted| wanted <= now)) {
                Some(wake) => shell.feed(origin, wake, context),
                None => shell.arm(context),
            }
        });
        self.host().wake = Some((at, timer));
    }
}

fn take<S: Shell>(
    shell: &mut S,
    origin: Origin,
    kind: &'static str,
    input: <S::Core as Core>::Input,
    context: &mut Context<S>,
) {
    liveness::beat();
    let begun = shell.host().now();
    let flow = origin.flow.handling(S::Core::NAME, kind);
    let _entered = flow.enter();
    let (cause, effects) = shell.host().decide(begun, origin, input);
    following(Origin { sender: S::Core::NAME, cause, flow: flow.clone() }, || {
        for effect in effects {
            if liveness::retired() {
                // Another incarnation decides by now: what this one had begun must not be done twice.
                context.terminate();
                return;
            }
            tracing::trace!(actor = S::Core::NAME, ?effect, "effect");
            shell.perform(effect, context);
        }
        shell.arm(context);
        shell.after_input();
        let host = shell.host();
        let took = host.clock().monotonic().saturating_sub(begun.monotonic);
        host.handler_seconds.record(took);
    });
}
