//! The shell: signs, asks, has infos checked, answers.

use crate::metrics;
use actix::{Actor, ActorContext, Context, Handler};
use bytes::Bytes;
use soma_messages::{
    AskError, Envelope, Links, Mailbox, Observe, Outbox, Reply, Stop,
    causality::following,
    connections::{CommitteeChanged, Dial, PeerChanged, TellConnected},
    discovery::{DialFailed, KnownPeersAsked, Probed},
    state_sync::TellCommittee,
    store_writer::{PeerList, UpdatePeers},
    verifier::VerifyNodeInfos,
};
use soma_protocol::{
    Core, Opaque,
    discovery::{BookEntry, Config, Discovery as DiscoveryCore, Effect, Input, KnownPeer, Snapshot},
};
use soma_replay::Origin;
use soma_supervision::{CoreHost, Environment, ExitReason, IoTasks, Shell};
use soma_types::{NodeInfo, PeerId, SignedNodeInfo, SigningKey};
use soma_wire::{Call, KnownPeers};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Infos that passed, or nobody there to check them.
type Verified = Result<Vec<KnownPeer>, AskError>;

/// What Discovery needs to speak for this node.
#[derive(Clone)]
pub struct Settings {
    /// This node's key.
    pub key: Arc<SigningKey>,
    /// What it says of itself; the time is filled in when it is signed.
    pub own_info: NodeInfo,
    /// How long a query may take.
    pub timeout: Duration,
    /// The stored address book, as bytes: checked again before it is believed.
    pub book: Vec<Bytes>,
}

/// What Discovery is connected to.
pub struct Wiring {
    /// Live links.
    pub links: Links,
    /// Where calls run.
    pub io: IoTasks,
    /// Connections.
    pub dial: Mailbox<Dial>,
    /// Connections.
    pub tell_connected: Mailbox<TellConnected>,
    /// StateSync.
    pub tell_committee: Mailbox<TellCommittee>,
    /// The Verifier.
    pub verify: Mailbox<VerifyNodeInfos>,
    /// The StoreWriter.
    pub update_peers: Mailbox<UpdatePeers>,
}

/// The actor.
pub struct Discovery {
    // Configuration
    settings: Settings,
    // Mailboxes
    links: Links,
    io: IoTasks,
    dial: Outbox<Dial>,
    tell_connected: Outbox<TellConnected>,
    tell_committee: Outbox<TellCommittee>,
    verify: Mailbox<VerifyNodeInfos>,
    update_peers: Outbox<UpdatePeers>,
    // State
    host: CoreHost<DiscoveryCore>,
    asked: BTreeMap<u64, Reply<KnownPeers>>,
    next_asked: u64,
}

impl Discovery {
    /// Starts with the seeds; the address book follows once it is checked.
    pub fn new(config: Config, settings: Settings, wiring: Wiring, environment: Environment) -> Self {
        Self {
            settings,
            links: wiring.links,
            io: wiring.io,
            dial: Outbox::new(wiring.dial),
            tell_connected: Outbox::new(wiring.tell_connected),
            tell_committee: Outbox::new(wiring.tell_committee),
            verify: wiring.verify,
            update_peers: Outbox::new(wiring.update_peers),
            host: CoreHost::new(DiscoveryCore::new(config), environment),
            asked: BTreeMap::new(),
            next_asked: 0,
        }
    }

    /// Has infos checked; what passes arrives as known peers.
    fn verified(&self, infos: Vec<Bytes>) -> impl Future<Output = Verified> + use<> {
        let (mut verify, now_ms) = (self.verify.clone(), self.host.now().unix_ms);
        async move {
            let infos = verify.ask(|reply| VerifyNodeInfos { infos, now_ms, reply }).await?;
            Ok(infos.into_iter().map(known_peer).collect())
        }
    }

    fn query(&mut self, peer: PeerId, own_info: Bytes, context: &mut Context<Self>) {
        let call = Call { peer, chain: Some(self.settings.own_info.chain_id), timeout: self.settings.timeout };
        let link = self.links.get(peer);
        let asking = self.io.spawn(async move {
            match link {
                Some(link) => link.api().get_known_peers(call, own_info).await.map_err(|error| error.to_string()),
                None => Err("the connection is gone".into()),
            }
        });
        let finish = move |discovery: &mut Self,
                           answer: Result<Result<KnownPeers, String>, ExitReason>,
                           origin,
                           context: &mut Context<Self>| {
            match answer.unwrap_or_else(|exit| Err(format!("the query {exit}"))) {
                Ok(answer) => {
                    let mut infos = vec![answer.own_info];
                    infos.extend(answer.known_peers);
                    let verifying = discovery.verified(infos);
                    let finish = move |discovery: &mut Self, infos: Verified, origin, context: &mut Context<Self>| {
                        discovery.answered(origin, peer, infos.map_err(|error| error.to_string()), context);
                    };
                    discovery.later(verifying, finish, context);
                }
                Err(error) => discovery.answered(origin, peer, Err(error), context),
            }
        };
        self.later(asking, finish, context);
    }

    fn answered(
        &mut self,
        origin: Origin,
        peer: PeerId,
        infos: Result<Vec<KnownPeer>, String>,
        context: &mut Context<Self>,
    ) {
        if let Err(error) = &infos {
            tracing::debug!(peer = %peer.short(), error, "query for known peers failed");
        }
        self.feed(origin, Input::Answered { peer, infos }, context);
        metrics::book(&self.host.snapshot());
    }
}

fn known_peer(info: SignedNodeInfo) -> KnownPeer {
    KnownPeer {
        peer: info.peer_id,
        timestamp_ms: info.timestamp_ms,
        addresses: info.addresses.clone(),
        access: info.access,
        bytes: info.bytes().clone().into(),
    }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Without an answer Connections is being restarted, and tells of every link it makes.
        let _ = self.tell_connected.post(TellConnected { subscriber: DiscoveryCore::NAME });
        // Without an answer StateSync is being restarted, and tells of the committee when it is there.
        let _ = self.tell_committee.post(TellCommittee { subscriber: DiscoveryCore::NAME });
        let stored = std::mem::take(&mut self.settings.book);
        let book = self.verified(stored);
        let finish = |discovery: &mut Self, book: Verified, origin, context: &mut Context<Self>| {
            discovery.feed(origin, Input::Book(book.unwrap_or_default()), context);
        };
        self.later(book, finish, context);
    }
}

impl Shell for Discovery {
    type Core = DiscoveryCore;

    fn host(&mut self) -> &mut CoreHost<DiscoveryCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::SignOwnInfo => {
                let timestamp_ms = self.host.now().unix_ms;
                let info = NodeInfo { timestamp_ms, ..self.settings.own_info.clone() };
                let chain = info.chain_id;
                let bytes = SignedNodeInfo::sign(info, chain, &self.settings.key).bytes().clone();
                let signed = async move { Input::OwnInfo { bytes: bytes.into(), timestamp_ms } };
                self.later(signed, |discovery, input, origin, context| discovery.feed(origin, input, context), context);
            }
            // What is lost here is decided anew at the next interval.
            Effect::Dial { peer, addresses, purpose } => drop(self.dial.post(Dial { peer, addresses, purpose })),
            Effect::SaveBook { put, remove } => {
                let put = put.into_iter().map(|(peer, info)| (peer, info.into_bytes())).collect();
                let _ = self.update_peers.post(UpdatePeers { list: PeerList::Infos, put, remove });
            }
            Effect::Query { peer, own_info } => self.query(peer, own_info.into_bytes(), context),
            Effect::Answer { key, own_info, peers } => {
                if let Some(reply) = self.asked.remove(&key) {
                    let known_peers = peers.into_iter().map(Opaque::into_bytes).collect();
                    reply.send(KnownPeers { own_info: own_info.into_bytes(), known_peers });
                }
            }
        }
    }
}

impl Handler<Envelope<PeerChanged>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<PeerChanged>, context: &mut Context<Self>) {
        self.feed(envelope.origin, Input::Peer(envelope.message.0), context);
    }
}

impl Handler<Envelope<DialFailed>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<DialFailed>, context: &mut Context<Self>) {
        let DialFailed { peer, failure } = envelope.message;
        self.feed(envelope.origin, Input::DialFailed { peer, failure }, context);
    }
}

impl Handler<Envelope<KnownPeersAsked>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<KnownPeersAsked>, context: &mut Context<Self>) {
        let KnownPeersAsked { peer, own_info, reply } = envelope.message;
        self.next_asked += 1;
        let key = self.next_asked;
        self.asked.insert(key, reply);
        let finish = move |discovery: &mut Self, infos: Verified, origin, context: &mut Context<Self>| {
            let info = infos.ok().and_then(|mut infos| infos.pop());
            discovery.feed(origin, Input::Asked { key, peer, info }, context);
        };
        following(envelope.origin.cause, || self.later(self.verified(vec![own_info]), finish, context));
    }
}

impl Handler<Envelope<Observe<Snapshot>>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Observe<Snapshot>>, _: &mut Context<Self>) {
        envelope.message.0.send(self.host.snapshot());
    }
}

impl Handler<Envelope<Observe<Vec<BookEntry>>>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Observe<Vec<BookEntry>>>, _: &mut Context<Self>) {
        envelope.message.0.send(self.host.core().book());
    }
}

impl Handler<Envelope<CommitteeChanged>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<CommitteeChanged>, _: &mut Context<Self>) {
        drop(envelope);
    }
}

impl Handler<Envelope<Probed>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Probed>, _: &mut Context<Self>) {
        drop(envelope);
    }
}

impl Handler<Envelope<Stop>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Stop>, context: &mut Context<Self>) {
        context.stop();
        envelope.message.0.send(());
    }
}
