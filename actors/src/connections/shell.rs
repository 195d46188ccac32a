//! The shell: runs dials, keeps handles of connections, tells subscribers.

use crate::connections::messages::{
    Ban, ChosenPeersChanged, CommitteeChanged, Dial, Disconnect, EventQueue, FollowPeers, GetConnected, InboundArrived,
    InboundClosed, PeerChanged, Unban, Useful,
};
use crate::connections::{
    dial::{Dialled, Settings, dial},
    links::LinkRegistry,
    metrics,
};
use crate::discovery::messages::{DialFailed, Probed};
use crate::peer_heights::messages::Report;
use crate::state_sync::messages::SubscribeCommittee;
use actix::{Actor, ActorContext, Context, Handler};
use soma_network::{Inbound, Link, Transport};
use soma_protocol::{
    Core, LostReason, PeerEvent,
    connections::{
        Config, ConnectionEnd, Connections as ConnectionsCore, DialFailure, Effect, InboundEnd, Input, LinkId, Snapshot,
    },
    peer_heights::Outcome,
};
use soma_runtime::{
    CoreHost, Delivery, Envelope, ExitReason, IoTasks, LogLimit, OrderedSender, Reply, RuntimeContext, Shell, Stop,
    acknowledge, causality::outside_flow, forward, observe,
};
use soma_types::{Address, PeerFailure, PeerId};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Lines of one kind in ten seconds: links, failed dials, bans. Strangers can cause any number of each.
const LOG_LINES: u32 = 10;

/// Where Connections sends, and where its I/O runs.
pub(crate) struct Mailboxes {
    /// Makes connections.
    pub(crate) transport: Arc<dyn Transport>,
    /// Live links, for all actors that call peers.
    pub(crate) registry: LinkRegistry,
    /// Where dials run.
    pub(crate) io: IoTasks,
    /// Subscribers of connected and lost peers, by name.
    pub(crate) subscribers: BTreeMap<&'static str, OrderedSender<PeerChanged>>,
    pub(crate) dial_failed: OrderedSender<DialFailed>,
    pub(crate) probed: OrderedSender<Probed>,
    pub(crate) subscribe_committee: OrderedSender<SubscribeCommittee>,
    /// To PeerHeights, which bans peers that flood a connection.
    pub(crate) report: OrderedSender<Report>,
}

/// The actor.
pub struct Connections {
    // Configuration
    settings: Settings,
    mailboxes: Mailboxes,
    // Lines of the log that peers can cause
    links_logged: LogLimit,
    dials_logged: LogLimit,
    bans_logged: LogLimit,
    // State
    host: CoreHost<ConnectionsCore>,
    links: BTreeMap<LinkId, Link>,
    inbound: BTreeMap<u64, Inbound>,
    admissions: BTreeMap<u64, Reply<bool>>,
    /// Of the node that embeds this: as many as it asks for.
    followers: Vec<EventQueue>,
}

impl Connections {
    /// Starts without connections: links that a former incarnation left behind are ended.
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        for link in mailboxes.registry.clear() {
            link.hang_up();
            tell_all(&mailboxes.subscribers, PeerEvent::Lost { peer: link.peer(), reason: LostReason::Restarted });
        }
        Self {
            settings,
            mailboxes,
            links_logged: LogLimit::lines(LOG_LINES),
            dials_logged: LogLimit::lines(LOG_LINES),
            bans_logged: LogLimit::lines(LOG_LINES),
            host: CoreHost::new(ConnectionsCore::new(config), runtime_context),
            links: BTreeMap::new(),
            inbound: BTreeMap::new(),
            admissions: BTreeMap::new(),
            followers: Vec::new(),
        }
    }

    fn start_dial(&mut self, link: LinkId, effect: (PeerId, Vec<Address>), context: &mut Context<Self>) {
        let (peer, addresses) = effect;
        let dialling =
            self.mailboxes.io.spawn(dial(self.mailboxes.transport.clone(), self.settings.clone(), peer, addresses));
        let finish =
            move |connections: &mut Self, dialled: Result<Dialled, ExitReason>, origin, context: &mut Context<Self>| {
                let Dialled { result, failed } = dialled.unwrap_or_else(|exit| {
                    let failure = DialFailure::Unreachable { reason: format!("the dial {exit}") };
                    Dialled { result: Err(failure), failed: Vec::new() }
                });
                let result = result.map(|(dialled, endpoint)| {
                    connections.links.insert(link, dialled);
                    endpoint
                });
                connections.feed(origin, Input::Dialled { link, peer, result, failed }, context);
                connections.watch(link, context);
            };
        self.later(dialling, finish, context);
    }

    /// Waits for the end of a link that the core kept.
    fn watch(&mut self, id: LinkId, context: &mut Context<Self>) {
        let Some(link) = self.links.get(&id).cloned() else { return };
        let peer = link.peer();
        let closed = async move {
            link.closed().await;
            if link.is_flooded() { ConnectionEnd::Flooded } else { ConnectionEnd::Usual }
        };
        let finish = move |connections: &mut Self, end, origin, context: &mut Context<Self>| {
            connections.links.remove(&id);
            connections.feed(origin, Input::LinkClosed { link: id, peer, end }, context);
        };
        outside_flow(|| self.later(closed, finish, context));
    }
}

fn tell_all(subscribers: &BTreeMap<&'static str, OrderedSender<PeerChanged>>, event: PeerEvent) {
    for (name, sender) in subscribers {
        if sender.post(PeerChanged(event)) != Delivery::Accepted {
            tracing::error!(subscriber = name, ?event, "subscriber was not told");
        }
    }
}

impl Actor for Connections {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        metrics::connected(&self.host.snapshot());
        // Without an answer StateSync is being restarted. It sends the committee when it starts.
        let _ = self.mailboxes.subscribe_committee.post(SubscribeCommittee { subscriber: ConnectionsCore::NAME });
    }
}

impl Connections {
    /// Sends the event to all subscribers.
    fn publish(&mut self, event: PeerEvent) {
        let line = self.links_logged.admit(self.host.now().monotonic);
        match event {
            PeerEvent::Connected(peer) => {
                if let Some(link) = self.links.values().rev().find(|link| link.peer() == peer) {
                    self.mailboxes.registry.insert(link.clone());
                }
                if let Some(left_out) = line {
                    tracing::info!(peer = %peer.short(), left_out, "connected");
                }
            }
            PeerEvent::Lost { peer, reason } => {
                self.mailboxes.registry.remove(peer);
                if let Some(left_out) = line {
                    tracing::info!(peer = %peer.short(), ?reason, left_out, "connection lost");
                }
            }
        }
        tell_all(&self.mailboxes.subscribers, event);
        self.followers.retain_mut(|follower| follower.push(event));
        metrics::connected(&self.host.snapshot());
    }

    fn report_failed_dial(&mut self, peer: PeerId, failure: DialFailure) {
        let (cause, serious) = match &failure {
            DialFailure::Unreachable { .. } => ("unreachable", false),
            DialFailure::Refused { .. } => ("refused", false),
            DialFailure::WrongKey { .. } => ("wrong-key", true),
            DialFailure::OtherChain { .. } => ("other-chain", true),
            DialFailure::Banned => ("banned", false),
            DialFailure::Full => ("full", false),
            DialFailure::Denied => ("denied", false),
            DialFailure::Pausing { .. } => ("pausing", false),
            DialFailure::GroupFull => ("group-full", false),
        };
        metrics::dial_failed(cause);
        let line = serious.then(|| self.dials_logged.admit(self.host.now().monotonic)).flatten();
        if let Some(left_out) = line {
            tracing::warn!(peer = %peer.short(), %failure, left_out, "dial failed");
        } else {
            tracing::debug!(peer = %peer.short(), %failure, "dial failed");
        }
        // If it is lost, Discovery dials again in its next interval.
        let _ = self.mailboxes.dial_failed.post(DialFailed { peer, failure });
    }
}

impl Shell for Connections {
    type Core = ConnectionsCore;

    fn host(&mut self) -> &mut CoreHost<ConnectionsCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Dial { link, peer, addresses } => self.start_dial(link, (peer, addresses), context),
            Effect::HangUp { link, .. } => {
                if let Some(link) = self.links.remove(&link) {
                    link.hang_up();
                }
            }
            Effect::Admit { connection, admitted } => {
                if !admitted {
                    metrics::refused();
                    self.inbound.remove(&connection);
                }
                if let Some(reply) = self.admissions.remove(&connection) {
                    reply.send(admitted);
                }
            }
            Effect::Favour { connection, time } => {
                if let Some(inbound) = self.inbound.get(&connection) {
                    inbound.favour(time.unwrap_or(Duration::MAX));
                }
            }
            Effect::HandOver { link, peer } => {
                let Some(link) = self.links.remove(&link) else { return };
                // On its way to a Discovery that is not there it is dropped, which ends it.
                let given = link.clone();
                if self.mailboxes.probed.post(Probed { peer, result: Ok(given) }) != Delivery::Accepted {
                    link.hang_up();
                }
            }
            Effect::ProbeFailed { peer, failure } => {
                tracing::debug!(peer = %peer.short(), %failure, "probe failed");
                // Discovery asks again if this is lost.
                let _ = self.mailboxes.probed.post(Probed { peer, result: Err(failure) });
            }
            Effect::HangUpInbound { connection, reason } => {
                let Some(inbound) = self.inbound.remove(&connection) else { return };
                inbound.hang_up();
                if reason == InboundEnd::Evicted {
                    metrics::evicted();
                    let (peer, source) = (inbound.peer(), inbound.remote());
                    tracing::debug!(peer = %peer.short(), %source, "inbound connection ended to make room for another");
                }
            }
            Effect::Event(event) => self.publish(event),
            Effect::TellConnected { subscriber, peers } => {
                let Some(sender) = self.mailboxes.subscribers.get(subscriber.as_str()) else { return };
                for peer in peers {
                    // A full outbox is logged where it happens; the subscriber asks again when it starts again.
                    let _ = sender.post(PeerChanged(PeerEvent::Connected(peer)));
                }
            }
            Effect::Report { peer, fault, reason } => {
                let outcome = Outcome::Failed(PeerFailure::new(fault, reason));
                // If it is lost, the peer connects again and does it again.
                let _ = self.mailboxes.report.post(Report { peer, start: 0, outcome });
            }
            Effect::DialFailed { peer, failure } => self.report_failed_dial(peer, failure),
        }
    }
}

forward! {
    Connections {
        Dial { peer, addresses, purpose } => Input::Dial { peer, addresses, purpose },
        CommitteeChanged { validators, .. } => Input::Committee {
            validators: validators.into_iter().map(|(peer, _)| peer).collect(),
        },
        Useful { peers } => Input::Useful { peers },
        GetConnected { subscriber } => Input::WhoIsConnected { subscriber: subscriber.into() },
        Unban { peer } => Input::Unban { peer },
    }
}

acknowledge! {
    Connections {
        ChosenPeersChanged { chosen } => Input::ChosenPeers(chosen),
        Disconnect { peer } => Input::Disconnect { peer },
    }
}

observe!(Connections, Snapshot);

impl Handler<Envelope<Ban>> for Connections {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Ban>, context: &mut Context<Self>) {
        let Ban { peer, duration, reason } = envelope.message;
        if let Some(left_out) = self.bans_logged.admit(self.host.now().monotonic) {
            tracing::warn!(peer = %peer.short(), ?duration, reason, left_out, "peer banned");
        }
        metrics::banned();
        self.feed(envelope.origin, Input::Ban { peer, duration, reason }, context);
    }
}

impl Handler<Envelope<InboundArrived>> for Connections {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<InboundArrived>, context: &mut Context<Self>) {
        let InboundArrived { inbound, reply } = envelope.message;
        let (connection, peer, source) = (inbound.id().0, inbound.peer(), inbound.remote());
        self.admissions.insert(connection, reply);
        self.inbound.insert(connection, inbound);
        self.feed(envelope.origin, Input::Inbound { connection, peer, source }, context);
    }
}

impl Handler<Envelope<InboundClosed>> for Connections {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<InboundClosed>, context: &mut Context<Self>) {
        let connection = envelope.message.0.0;
        let inbound = self.inbound.remove(&connection);
        let end = match inbound {
            Some(inbound) if inbound.is_flooded() => ConnectionEnd::Flooded,
            Some(inbound) if inbound.is_stalled() => ConnectionEnd::Stalled,
            _ => ConnectionEnd::Usual,
        };
        self.feed(envelope.origin, Input::InboundClosed { connection, end }, context);
    }
}

impl Handler<Envelope<FollowPeers>> for Connections {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<FollowPeers>, _: &mut Context<Self>) {
        let FollowPeers { events, reply } = envelope.message;
        self.followers.retain(|follower| !follower.is_closed());
        self.followers.push(events);
        reply.send(self.host.snapshot().outbound);
    }
}

impl Handler<Envelope<Stop>> for Connections {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        for link in self.mailboxes.registry.clear() {
            link.hang_up();
        }
        for inbound in std::mem::take(&mut self.inbound).into_values() {
            inbound.hang_up();
        }
        context.stop();
        envelope.message.0.send(());
        tracing::debug!(actor = ConnectionsCore::NAME, "all connections ended");
    }
}
