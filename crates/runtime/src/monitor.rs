//! Watches over one life of an actor, from its start to its end.

use crate::{
    child::{Child, Ended, Order},
    exit::ExitReason,
    incarnation::{BLOCKED_AFTER, Host, silence},
    life::Life,
    mailbox::{Envelope, Mailbox},
    observe::Stop,
    runtime_context::RuntimeContext,
    spec::{ChildSpec, Rules},
    status::{ChildState, Display, Tree},
};
use actix::{Actor, Context, Handler};
use futures::{FutureExt, future::LocalBoxFuture};
use std::{future::Future, pin::pin, rc::Rc};
use tokio::{
    sync::{oneshot, watch},
    time::sleep_until,
};

/// An actor as a supervisor's child.
pub(crate) struct ActorChild<A: Actor>(Rc<Place<A>>);

/// What all lives of one child share.
struct Place<A: Actor> {
    spec: ChildSpec<A>,
    stop: Mailbox<Stop>,
    runtime_context: RuntimeContext,
    display: Display,
}

impl<A> ActorChild<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<Stop>>,
{
    pub(crate) fn new(spec: ChildSpec<A>, runtime_context: RuntimeContext) -> Self {
        let stop = spec.slot.reference().mailbox("supervisor");
        let display = Display::new(runtime_context.clock());
        Self(Rc::new(Place { spec, stop, runtime_context, display }))
    }
}

impl<A> Child for ActorChild<A>
where
    A: Actor<Context = Context<A>> + Handler<Envelope<Stop>>,
{
    fn name(&self) -> &'static str {
        self.0.spec.slot.name()
    }

    fn rules(&self) -> Rules {
        self.0.spec.rules
    }

    fn display(&self) -> &Display {
        &self.0.display
    }

    fn tree(&self) -> Tree {
        Tree::new(self.name(), None, Vec::new(), &self.0.display)
    }

    fn live(&mut self, orders: watch::Receiver<Order>) -> LocalBoxFuture<'static, Ended> {
        let place = self.0.clone();
        async move { place.live(orders).await }.boxed_local()
    }
}

impl<A: Actor<Context = Context<A>>> Place<A> {
    async fn live(&self, orders: watch::Receiver<Order>) -> Ended {
        let (name, life) = (self.spec.slot.name(), Life::default());
        let ended = self.live_and_end(orders, &life).await;
        // Askers learn that no answer will come, and senders find the actor gone.
        self.spec.slot.leave(&life);
        self.runtime_context.record_end(name, &ended.exit);
        ended
    }

    async fn live_and_end(&self, mut orders: watch::Receiver<Order>, life: &Life) -> Ended {
        let (spec, name) = (&self.spec, self.spec.slot.name());
        let grace = spec.allowance.min(BLOCKED_AFTER);
        let (up, mut came_up) = oneshot::channel();
        let begun = Host::begin(spec, &self.runtime_context, life.clone(), up);
        let (mut host, liveness) = match begun {
            Ok(begun) => begun,
            Err(exit) => return Ended::by(exit),
        };
        let mut is_up = false;
        {
            let mut silent = pin!(liveness.silent(spec.allowance));
            loop {
                tokio::select! {
                    biased;
                    exit = host.ended() => {
                        host.join();
                        return Ended::by(exit);
                    }
                    Ok(()) = &mut came_up, if !is_up => {
                        is_up = true;
                        self.display.running(Some(life.clone()));
                    }
                    _ = orders.wait_for(|order| matches!(order, Order::Stop { .. })) => break,
                    () = &mut silent => {
                        let mut reason = silence(spec.allowance);
                        host.end(&liveness, name, grace, &mut reason).await;
                        return Ended::by(ExitReason::Killed(reason));
                    }
                }
            }
        }
        self.display.state(ChildState::Stopping);
        if is_up {
            let mut stop = self.stop.clone();
            let stopping = async {
                // Without an answer the actor is gone already, as intended.
                let _ = stop.ask(Stop).await;
                host.ended().await
            };
            if let Some(exit) = before_the_deadline(&mut orders, stopping).await {
                host.join();
                return Ended::by(exit);
            }
        }
        let mut reason = String::from("did not stop in time");
        host.end(&liveness, name, grace, &mut reason).await;
        if is_up {
            tracing::warn!(actor = name, reason, "actor is ended");
            return Ended { exit: ExitReason::Killed(reason), overdue: vec![name] };
        }
        Ended::by(ExitReason::Cancelled)
    }
}

/// Waits for the end, at most until what the latest order says.
async fn before_the_deadline<R>(orders: &mut watch::Receiver<Order>, ended: impl Future<Output = R>) -> Option<R> {
    let mut ended = pin!(ended);
    loop {
        let Order::Stop { until } = *orders.borrow_and_update() else { return None };
        tokio::select! {
            biased;
            ended = &mut ended => return Some(ended),
            Ok(()) = orders.changed() => {}
            () = sleep_until(until) => return None,
        }
    }
}
