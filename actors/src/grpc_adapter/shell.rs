//! The shell: admits calls and notices their end.

use crate::connections::messages::{ChosenPeersChanged, CommitteeChanged, Useful};
use crate::grpc_adapter::messages::{CallArrived, CallPermit, Sent};
use crate::grpc_adapter::metrics;
use crate::state_sync::messages::SubscribeCommittee;
use actix::{Actor, ActorContext, Context, Handler};
use soma_protocol::{
    Core,
    grpc_adapter::{Config, Effect, Input, Refusal, Serving, Snapshot},
};
use soma_runtime::{
    CoreHost, Envelope, Keyed, OrderedSender, Reply, RuntimeContext, Shell, Stop, acknowledge, forward, observe,
};

/// The actor.
pub struct GrpcAdapter {
    // Mailboxes
    subscribe_committee: OrderedSender<SubscribeCommittee>,
    // State
    host: CoreHost<Serving>,
    waiting: Keyed<Reply<Result<CallPermit, Refusal>>>,
}

impl GrpcAdapter {
    /// Starts without calls.
    pub(crate) fn new(
        config: Config,
        subscribe_committee: OrderedSender<SubscribeCommittee>,
        runtime_context: RuntimeContext,
    ) -> Self {
        Self {
            subscribe_committee,
            host: CoreHost::new(Serving::new(config), runtime_context),
            waiting: Keyed::default(),
        }
    }
}

impl Actor for GrpcAdapter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        // Without an answer StateSync is being restarted. It sends the committee when it starts.
        let _ = self.subscribe_committee.post(SubscribeCommittee { subscriber: Serving::NAME });
    }
}

impl Shell for GrpcAdapter {
    type Core = Serving;

    fn host(&mut self) -> &mut CoreHost<Serving> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Admit { call, class } => {
                let Some(reply) = self.waiting.remove(call) else { return };
                let (permit, ended) = CallPermit::new(class);
                reply.send(Ok(permit));
                let finish = move |adapter: &mut Self, sent: Option<Sent>, origin, context: &mut Context<Self>| {
                    let sent = sent.unwrap_or_default();
                    metrics::answered(sent);
                    adapter.feed(origin, Input::Finished { call, bytes: sent.bytes, blocks: sent.blocks }, context);
                };
                self.later(async move { ended.await.ok() }, finish, context);
            }
            Effect::Refuse { call, refusal } => {
                metrics::refused(match refusal {
                    Refusal::OtherChain { .. } => "other-chain",
                    Refusal::TooMany { .. } => "too-many",
                    Refusal::TooFast { .. } => "too-fast",
                });
                if let Some(reply) = self.waiting.remove(call) {
                    reply.send(Err(refusal));
                }
            }
        }
    }
}

impl Handler<Envelope<CallArrived>> for GrpcAdapter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<CallArrived>, context: &mut Context<Self>) {
        let CallArrived { peer, chain, rpc, reply } = envelope.message;
        let call = self.waiting.insert(reply);
        self.feed(envelope.origin, Input::Arrived { call, peer, chain, rpc }, context);
    }
}

forward! {
    GrpcAdapter {
        CommitteeChanged { validators, .. } => Input::Committee {
            validators: validators.into_iter().map(|(peer, _)| peer).collect(),
        },
        Useful { peers } => Input::Useful { peers },
    }
}

acknowledge! {
    GrpcAdapter {
        ChosenPeersChanged { chosen } => Input::ChosenPeers(chosen),
    }
}

observe!(GrpcAdapter, Snapshot);

impl Handler<Envelope<Stop>> for GrpcAdapter {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        context.stop();
        envelope.message.0.send(());
        tracing::debug!(actor = Serving::NAME, "takes no more calls");
    }
}
