//! The shell: signs, asks, has infos checked, answers.

use crate::connections::Links;
use crate::connections::messages::{ChosenPeersChanged, CommitteeChanged, Dial, GetConnected, PeerChanged};
use crate::discovery::messages::{DialFailed, KnownPeersAsked, Probed};
use crate::discovery::{metrics, stored, verified_info_cache::VerifiedInfoCache};
use crate::state_sync::messages::SubscribeCommittee;
use crate::store_writer::messages::{PeerList, UpdatePeers};
use crate::verifier::messages::VerifyNodeInfos;
use actix::{Actor, Context, Handler};
use bytes::Bytes;
use soma_network::Link;
use soma_network::wire::{Call, KnownPeers};
use soma_protocol::{
    Core, Opaque, PeerEvent,
    discovery::{
        Answer, BookEntry, Config, Discovery as DiscoveryCore, Effect, Input, KnownPeer, Seen, Snapshot, Trouble,
    },
};
use soma_replay::Origin;
use soma_runtime::{
    AskError, CoreHost, Envelope, ExitReason, IoTasks, Keyed, LogLimit, Mailbox, Observe, Offload, OrderedSender,
    Reply, RuntimeContext, Shell, acknowledge, causality::following, forward, observe, stop_at_once,
};
use soma_store::Store;
use soma_types::{Capabilities, NodeInfo, PeerId, SignedNodeInfo, SigningKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// Pause before the stored address book is given to the Verifier again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Maximum log lines on network issues in ten seconds.
const LOG_LINES: u32 = 10;

/// Valid infos, or no answer of the Verifier.
type Verified = Result<Vec<SignedNodeInfo>, AskError>;

/// What Discovery needs to speak for this node.
#[derive(Clone)]
pub struct Settings {
    /// This node's key.
    pub key: Arc<SigningKey>,
    /// This node's own info; the time and the lowest commit are filled in when it is signed.
    pub own_info: NodeInfo,
    /// Has the lowest commit.
    pub store: Arc<dyn Store>,
    /// Where the store is read.
    pub offload: Offload,
    /// How long a query may take.
    pub timeout: Duration,
    /// The stored address book: checked again before it is believed.
    pub book: Vec<(PeerId, Bytes)>,
}

/// Where Discovery sends, and where its calls run.
pub(crate) struct Mailboxes {
    /// Live links.
    pub(crate) links: Links,
    /// Where calls run.
    pub(crate) io: IoTasks,
    pub(crate) dial: OrderedSender<Dial>,
    pub(crate) get_connected: OrderedSender<GetConnected>,
    pub(crate) subscribe_committee: OrderedSender<SubscribeCommittee>,
    pub(crate) verify: Mailbox<VerifyNodeInfos>,
    pub(crate) update_peers: OrderedSender<UpdatePeers>,
}

/// The actor.
pub struct Discovery {
    // Configuration
    settings: Settings,
    mailboxes: Mailboxes,
    // State
    host: CoreHost<DiscoveryCore>,
    /// This node's own info was signed once.
    has_signed: bool,
    verified_infos: VerifiedInfoCache,
    /// Links of probes, until they are asked.
    probed: BTreeMap<PeerId, Link>,
    /// The network issue that operators were told last.
    trouble: Option<&'static str>,
    /// Peers that come and go can change it any number of times.
    trouble_logged: LogLimit,
    asked: Keyed<Reply<KnownPeers>>,
}

impl Discovery {
    /// Starts with the seeds; the address book follows once it is checked.
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        Self {
            settings,
            mailboxes,
            host: CoreHost::new(DiscoveryCore::new(config), runtime_context),
            has_signed: false,
            verified_infos: VerifiedInfoCache::default(),
            probed: BTreeMap::new(),
            trouble: None,
            trouble_logged: LogLimit::lines(LOG_LINES),
            asked: Keyed::default(),
        }
    }

    /// Has infos checked, those that say something new and have not been checked before.
    fn verified(&self, infos: Vec<Bytes>) -> impl Future<Output = Verified> + use<> {
        let now_ms = self.host.now().unix_ms;
        let (mut known, mut unknown) = self.verified_infos.split(infos, now_ms);
        // What cannot be read is the Verifier's to refuse.
        unknown.retain(|info| {
            let read = SignedNodeInfo::decode_bounded(info.clone());
            read.is_err() || read.is_ok_and(|info| self.host.core().is_news(&known_peer(&info)))
        });
        let mut verify = self.mailboxes.verify.clone();
        async move {
            if !unknown.is_empty() {
                known.extend(verify.ask(|reply| VerifyNodeInfos { infos: unknown, now_ms, reply }).await?);
            }
            Ok(known)
        }
    }

    /// The core's form of valid infos.
    fn known_peers(&mut self, infos: Vec<SignedNodeInfo>) -> Vec<KnownPeer> {
        self.verified_infos.passed(&infos);
        infos.iter().map(known_peer).collect()
    }

    fn query(&mut self, peer: PeerId, own_info: Bytes, context: &mut Context<Self>) {
        let call =
            Call { peer, chain: Some(self.settings.own_info.chain_id), remote: None, timeout: self.settings.timeout };
        let probed = self.probed.remove(&peer);
        let link = probed.clone().or_else(|| self.mailboxes.links.get(peer));
        let remote = link.as_ref().and_then(Link::remote);
        let asking = self.mailboxes.io.spawn(async move {
            let answer = match link {
                Some(link) => link.api().get_known_peers(call, own_info).await.map_err(|error| error.to_string()),
                None => Err("the connection is gone".into()),
            };
            // A probe has done its work.
            if let Some(link) = probed {
                link.hang_up();
            }
            answer
        });
        let finish = move |discovery: &mut Self,
                           answer: Result<Result<KnownPeers, String>, ExitReason>,
                           origin,
                           context: &mut Context<Self>| {
            match answer.unwrap_or_else(|exit| Err(format!("the query {exit}"))) {
                Ok(answer) => {
                    let soma_network::wire::Seen { ip, time_ms, reached } = answer.seen;
                    let seen = Seen { ip, time_ms, reached };
                    let mut infos = vec![answer.own_info];
                    infos.extend(answer.known_peers);
                    let verifying = discovery.verified(infos);
                    let finish = move |discovery: &mut Self, infos: Verified, origin, context: &mut Context<Self>| {
                        let answer = infos.map(|infos| {
                            let mut infos = discovery.known_peers(infos);
                            infos.retain(|info| discovery.host.core().is_news(info));
                            Answer { infos, seen }
                        });
                        discovery.answered(origin, peer, remote, answer.map_err(|error| error.to_string()), context);
                    };
                    discovery.later(verifying, finish, context);
                }
                Err(error) => discovery.answered(origin, peer, remote, Err(error), context),
            }
        };
        self.later(asking, finish, context);
    }

    fn answered(
        &mut self,
        origin: Origin,
        peer: PeerId,
        remote: Option<IpAddr>,
        answer: Result<Answer, String>,
        context: &mut Context<Self>,
    ) {
        if let Err(error) = &answer {
            tracing::debug!(peer = %peer.short(), error, "query for known peers failed");
        }
        self.feed(origin, Input::Answered { peer, remote, answer }, context);
        metrics::book(&self.host.snapshot());
    }

    /// Tells operators when the network issue has changed.
    fn tell_trouble(&mut self) {
        let trouble = self.host.core().trouble();
        let cause = trouble.as_ref().map(Trouble::cause);
        if cause == self.trouble {
            return;
        }
        metrics::trouble(self.trouble, cause);
        self.trouble = cause;
        let Some(left_out) = self.trouble_logged.admit(self.host.now().monotonic) else { return };
        match &trouble {
            Some(trouble) => tracing::warn!(cause, left_out, "{trouble}"),
            None => tracing::info!(left_out, "this node's place in the network is in order"),
        }
    }
}

fn known_peer(info: &SignedNodeInfo) -> KnownPeer {
    KnownPeer {
        peer: info.peer_id,
        timestamp_ms: info.timestamp_ms,
        addresses: info.addresses.clone(),
        access: info.access,
        // A copy: these are a slice of a whole answer, which would stay in memory with them.
        bytes: Bytes::copy_from_slice(info.bytes()).into(),
    }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Without an answer Connections is being restarted. It announces every link that it makes.
        let _ = self.mailboxes.get_connected.post(GetConnected { subscriber: DiscoveryCore::NAME });
        // Without an answer StateSync is being restarted. It sends the committee when it starts.
        let _ = self.mailboxes.subscribe_committee.post(SubscribeCommittee { subscriber: DiscoveryCore::NAME });
        let stored = std::mem::take(&mut self.settings.book);
        let all: Vec<_> = stored.iter().map(|(peer, _)| *peer).collect();
        let records = stored::decode(stored);
        // As at the time of the newest: how long the node was down says nothing of its peers.
        let newest_ms = records.iter().map(|record| record.signed_ms).max().unwrap_or(0);
        let infos: Vec<_> = records.iter().map(|record| record.info.clone()).collect();
        let verify = self.mailboxes.verify.clone();
        let checking = async move {
            loop {
                let (mut verify, infos) = (verify.clone(), infos.clone());
                let asked = verify.ask(|reply| VerifyNodeInfos { infos, now_ms: newest_ms, reply }).await;
                match asked {
                    Ok(passed) => return passed,
                    // It is being restarted, or has too much to do: the book is worth waiting for.
                    Err(_) => actix::clock::sleep(ASK_AGAIN_AFTER).await,
                }
            }
        };
        let finish = move |discovery: &mut Self, passed: Vec<SignedNodeInfo>, origin, context: &mut Context<Self>| {
            let infos = discovery.known_peers(passed);
            let stored = stored::join(infos, records);
            let passed: BTreeSet<_> = stored.iter().map(|stored| stored.info.peer).collect();
            let unreadable = all.into_iter().filter(|peer| !passed.contains(peer)).collect();
            discovery.feed(origin, Input::Book { stored, unreadable }, context);
            metrics::book(&discovery.host.snapshot());
        };
        self.later(checking, finish, context);
    }
}

impl Shell for Discovery {
    type Core = DiscoveryCore;

    fn host(&mut self) -> &mut CoreHost<DiscoveryCore> {
        &mut self.host
    }

    fn after_input(&mut self) {
        self.tell_trouble();
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::SignOwnInfo { addresses } => {
                let timestamp_ms = self.host.now().unix_ms;
                let mut info = NodeInfo { timestamp_ms, addresses, ..self.settings.own_info.clone() };
                let Settings { key, store, offload, .. } = &self.settings;
                let (key, store, offload) = (key.clone(), store.clone(), offload.clone());
                // At its start the node has just read the store, and nothing waits for a slow disk.
                let is_first = !std::mem::replace(&mut self.has_signed, true);
                let signed = async move {
                    // Pruning and a late start move it. A disk that fails leaves what the node said at its start.
                    if !is_first && let Ok(Ok(watermarks)) = offload.run(move || store.watermarks()).await {
                        let lowest_commit = watermarks.lowest_available.max(1);
                        let archive = info.capabilities.archive && lowest_commit == 1;
                        info.capabilities = Capabilities { lowest_commit, archive, ..info.capabilities };
                    }
                    let chain = info.chain_id;
                    let bytes = SignedNodeInfo::sign(info, chain, &key).bytes().clone();
                    Input::OwnInfo { bytes: bytes.into(), timestamp_ms }
                };
                self.later(signed, |discovery, input, origin, context| discovery.feed(origin, input, context), context);
            }
            // A lost message is repeated: a dial after a minute, any other at the next interval.
            Effect::Dial { peer, addresses, purpose } => {
                let _ = self.mailboxes.dial.post(Dial { peer, addresses, purpose });
            }
            Effect::SaveBook { put, remove } => {
                let put = put.into_iter().map(|stored| (stored.info.peer, stored::encode(stored))).collect();
                let _ = self.mailboxes.update_peers.post(UpdatePeers { list: PeerList::Infos, put, remove });
            }
            Effect::Query { peer, own_info } => self.query(peer, own_info.into_bytes(), context),
            Effect::Answer { key, own_info, peers, seen } => {
                if let Some(reply) = self.asked.remove(key) {
                    let known_peers = peers.into_iter().map(Opaque::into_bytes).collect();
                    let own_info = own_info.into_bytes();
                    let Seen { ip, time_ms, reached } = seen;
                    let seen = soma_network::wire::Seen { ip, time_ms, reached };
                    reply.send(KnownPeers { own_info, known_peers, seen });
                }
            }
        }
    }
}

impl Handler<Envelope<PeerChanged>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<PeerChanged>, context: &mut Context<Self>) {
        let event = envelope.message.0;
        let ip = match event {
            PeerEvent::Connected(peer) => self.mailboxes.links.get(peer).and_then(|link| link.remote()),
            PeerEvent::Lost { .. } => None,
        };
        self.feed(envelope.origin, Input::Peer { event, ip }, context);
    }
}

forward! {
    Discovery {
        DialFailed { peer, failure } => Input::DialFailed { peer, failure },
        CommitteeChanged { validators, .. } => Input::Committee(validators),
    }
}

acknowledge! {
    Discovery {
        ChosenPeersChanged { chosen } => Input::ChosenPeers(chosen),
    }
}

observe!(Discovery, Snapshot);
stop_at_once!(Discovery);

impl Handler<Envelope<Probed>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Probed>, context: &mut Context<Self>) {
        let Probed { peer, result } = envelope.message;
        let result = result.map(|link| {
            let ip = link.remote();
            self.probed.insert(peer, link);
            ip
        });
        self.feed(envelope.origin, Input::Probed { peer, result }, context);
        // The core did not want to ask it anything.
        if let Some(link) = self.probed.remove(&peer) {
            link.hang_up();
        }
    }
}

impl Handler<Envelope<KnownPeersAsked>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<KnownPeersAsked>, context: &mut Context<Self>) {
        let KnownPeersAsked { peer, remote, own_info, reply } = envelope.message;
        let key = self.asked.insert(reply);
        let finish = move |discovery: &mut Self, infos: Verified, origin, context: &mut Context<Self>| {
            let info = discovery.known_peers(infos.unwrap_or_default()).pop();
            discovery.feed(origin, Input::Asked { key, peer, remote, info }, context);
        };
        following(envelope.origin, || self.later(self.verified(vec![own_info]), finish, context));
    }
}

impl Handler<Envelope<Observe<Vec<BookEntry>>>> for Discovery {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Observe<Vec<BookEntry>>>, _: &mut Context<Self>) {
        envelope.message.0.send(self.host.core().book());
    }
}
