//! The shell: calls peers, holds arrived objects, and answers askers.

use super::{
    call::{AnswerPart, Answering, CallEnd, CallResources, answer, room},
    messages::{AdvertisedSnapshot, FetchError, FetchObjects, ListSnapshots, ObjectResults},
    metrics,
};
use crate::{
    connections::{
        Links,
        messages::{CommitteeChanged, GetConnected, PeerChanged},
    },
    peer_heights::messages::Report,
    state_sync::messages::SubscribeCommittee,
    verifier::messages::VerifyCertificates,
};
use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use soma_network::{
    Link,
    wire::{Call, ObjectIds},
};
use soma_protocol::{
    Core,
    objects::{Answer, Config, Effect, Input, Objects as ObjectsCore, Snapshot},
    peer_heights::Outcome,
};
use soma_replay::Origin;
use soma_runtime::{
    AskError, CoreHost, Envelope, ExitReason, IoTasks, Life, Mailbox, Offload, OrderedSender, RuntimeContext, Shell,
    forward, observe, stop_at_once,
};
use soma_types::{ChainId, Fault, ObjectId, ObjectKind, PeerFailure, PeerId, SnapshotInfo};
use soma_verify::{AnsweredObject, EpochContext};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// How long a peer may take to tell its snapshots.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How peers are called.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) chain: ChainId,
    /// How long one call may take.
    pub(crate) timeout: Duration,
}

/// Where Objects sends, and where its calls run.
pub(crate) struct Mailboxes {
    pub(crate) links: Links,
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
    pub(crate) verify: Mailbox<VerifyCertificates>,
    pub(crate) report: OrderedSender<Report>,
    pub(crate) get_connected: OrderedSender<GetConnected>,
    pub(crate) subscribe_committee: OrderedSender<SubscribeCommittee>,
}

/// A call under way.
struct OpenCall {
    kind: ObjectKind,
    ids: Vec<ObjectId>,
    /// What waits for its next part.
    waiting: Option<SpawnHandle>,
}

/// Where the results of a request go.
struct Asker {
    results: mpsc::UnboundedSender<ObjectResults>,
    /// Objects without a result.
    left: usize,
    /// What waits for the end of the asker's interest. actix polls everything that waits, so it must not outlast the
    /// request.
    watch: SpawnHandle,
}

/// The actor.
pub struct Objects {
    // Configuration
    settings: Settings,
    mailboxes: Mailboxes,
    resources: CallResources,
    // State
    host: CoreHost<ObjectsCore>,
    last_request: u64,
    askers: BTreeMap<u64, Asker>,
    calls: BTreeMap<u64, OpenCall>,
    /// What the input that the core is handling has brought. Never iterated.
    arrived: HashMap<ObjectId, Result<Bytes, FetchError>>,
    /// The last two epochs.
    contexts: Vec<Arc<EpochContext>>,
}

impl Objects {
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        Self {
            settings,
            resources: CallResources { offload: mailboxes.offload.clone(), room: room() },
            mailboxes,
            host: CoreHost::new(ObjectsCore::new(config), runtime_context),
            last_request: 0,
            askers: BTreeMap::new(),
            calls: BTreeMap::new(),
            arrived: HashMap::new(),
            contexts: Vec::new(),
        }
    }

    fn call(&mut self, number: u64, peer: PeerId, kind: ObjectKind, ids: Vec<ObjectId>, context: &mut Context<Self>) {
        let link = self.mailboxes.links.get(peer);
        let call = Call { peer, chain: Some(self.settings.chain), remote: None, timeout: self.settings.timeout };
        let (sender, parts) = mpsc::channel(1);
        let (request, resources) = (ObjectIds::new(kind, ids.clone()), self.resources.clone());
        let reading = async move { answer(link, call, request, resources, &sender).await };
        let reading = self.mailboxes.io.spawn(reading).boxed_local();
        self.calls.insert(number, OpenCall { kind, ids, waiting: None });
        self.wait_for_part(number, Answering { parts, reading }, context);
    }

    fn wait_for_part(&mut self, number: u64, mut answering: Answering, context: &mut Context<Self>) {
        let waiting = async move {
            let part = match answering.parts.recv().await {
                Some(part) => part,
                None => {
                    let exit = (&mut answering.reading).await.err().unwrap_or(ExitReason::Normal);
                    let end = CallEnd::failed(Fault::Ours, format!("the call {exit}"));
                    AnswerPart { objects: Vec::new(), end: Some(end) }
                }
            };
            (part, answering)
        };
        type Arrival = (AnswerPart, Answering);
        let finish = move |objects: &mut Self, (part, rest): Arrival, origin, context: &mut Context<Self>| {
            let Some(call) = objects.calls.get(&number) else { return };
            if call.kind == ObjectKind::CERTIFICATE && part.objects.iter().any(|object| object.bytes.is_some()) {
                objects.check_certificates(number, part, rest, context);
            } else {
                objects.take_part(origin, number, part, BTreeMap::new(), rest, context);
            }
        };
        self.follow(number, waiting, finish, context);
    }

    /// Waits for something of a call, unless the call is ended before.
    fn follow<R: 'static>(
        &mut self,
        number: u64,
        work: impl Future<Output = R> + 'static,
        finish: impl FnOnce(&mut Self, R, Origin, &mut Context<Self>) + 'static,
        context: &mut Context<Self>,
    ) {
        let handle = self.later(work, finish, context);
        if let Some(call) = self.calls.get_mut(&number) {
            call.waiting = Some(handle);
        }
    }

    /// Lets the Verifier check certificates with right digests, and then goes on with the part.
    fn check_certificates(&mut self, number: u64, part: AnswerPart, rest: Answering, context: &mut Context<Self>) {
        let found = part.objects.iter().filter_map(|object| Some((object.position, object.bytes.clone()?)));
        let (positions, certificates): (Vec<_>, Vec<_>) = found.unzip();
        let contexts = self.contexts.clone();
        let asked = self.mailboxes.verify.ask_now(|reply| VerifyCertificates { contexts, certificates, reply });
        type Verdicts = Result<(Vec<Result<(), String>>, Life), AskError>;
        let finish = move |objects: &mut Self, answer: Verdicts, origin, context: &mut Context<Self>| {
            let verdicts = answer.ok().map(|(verdicts, _)| verdicts).filter(|it| it.len() == positions.len());
            let Some(verdicts) = verdicts else {
                // The objects are asked for once more: nothing unchecked is handed on.
                let end = CallEnd::failed(Fault::Ours, "the Verifier gave no answer");
                let part = AnswerPart { objects: Vec::new(), end: Some(end) };
                return objects.take_part(origin, number, part, BTreeMap::new(), rest, context);
            };
            let invalid = positions.into_iter().zip(verdicts).filter_map(|(at, verdict)| Some((at, verdict.err()?)));
            objects.take_part(origin, number, part, invalid.collect(), rest, context);
        };
        self.follow(number, asked, finish, context);
    }

    /// Feeds a part of an answer. `invalid` has objects with right bytes that are no valid certificates.
    fn take_part(
        &mut self,
        origin: Origin,
        number: u64,
        part: AnswerPart,
        mut invalid: BTreeMap<usize, String>,
        rest: Answering,
        context: &mut Context<Self>,
    ) {
        let Some(call) = self.calls.get(&number) else { return };
        let AnswerPart { objects, end } = part;
        if !objects.is_empty() {
            let (mut found, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
            for AnsweredObject { position, bytes: content } in objects {
                let (Some(id), Ok(at)) = (call.ids.get(position), u32::try_from(position)) else { continue };
                let Some(content) = content else {
                    missing.push(at);
                    continue;
                };
                bytes += content.len() as u64;
                found.push(at);
                let result = match invalid.remove(&position) {
                    None => Ok(content),
                    Some(reason) => Err(FetchError::Invalid { reason }),
                };
                self.arrived.insert(*id, result);
            }
            metrics::fetched(call.kind, found.len(), bytes);
            metrics::lacked(call.kind, missing.len());
            self.feed(origin.clone(), Input::Arrived { call: number, found, missing, bytes }, context);
            self.arrived.clear();
        }
        match end {
            None => self.wait_for_part(number, rest, context),
            Some(end) => self.end_call(origin, number, end, context),
        }
    }

    fn end_call(&mut self, origin: Origin, number: u64, end: CallEnd, context: &mut Context<Self>) {
        // What the core has done about its objects may have ended it.
        if self.calls.remove(&number).is_none() {
            return;
        }
        let CallEnd { failure, is_unsupported } = end;
        if let Some(failure) = failure.as_ref().filter(|_| !is_unsupported) {
            metrics::failed(failure.fault.name());
        }
        self.feed(origin, Input::Ended { call: number, failure, is_unsupported }, context);
    }

    fn answer(&mut self, request: u64, ids: Vec<ObjectId>, answer: Answer, context: &mut Context<Self>) {
        let Some(asker) = self.askers.get_mut(&request) else { return };
        asker.left = asker.left.saturating_sub(ids.len());
        let results = ids.into_iter().filter_map(|id| {
            let result = match answer {
                Answer::Found => self.arrived.get(&id)?.clone(),
                Answer::NotFound { asked } => Err(FetchError::NotFound { asked }),
                Answer::Late { asked } => Err(FetchError::Late { asked }),
            };
            Some((id, result))
        });
        // An asker that is gone has said so.
        let _ = asker.results.send(results.collect());
        if asker.left == 0 {
            self.end_request(request, context);
        }
    }

    fn end_request(&mut self, request: u64, context: &mut Context<Self>) {
        if let Some(Asker { watch, .. }) = self.askers.remove(&request) {
            context.cancel_future(watch);
        }
    }
}

/// What one peer says of its snapshots.
async fn ask_for_snapshots(link: Option<Link>, call: Call) -> Vec<SnapshotInfo> {
    let Some(link) = link else { return Vec::new() };
    link.api().get_snapshots(call).await.unwrap_or_else(|error| {
        tracing::debug!(peer = %call.peer.short(), %error, "the peer does not tell its snapshots");
        Vec::new()
    })
}

impl Actor for Objects {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        // Without an answer the other is being restarted. It sends the same when it starts.
        let _ = self.mailboxes.subscribe_committee.post(SubscribeCommittee { subscriber: ObjectsCore::NAME });
        let _ = self.mailboxes.get_connected.post(GetConnected { subscriber: ObjectsCore::NAME });
    }
}

impl Shell for Objects {
    type Core = ObjectsCore;

    fn host(&mut self) -> &mut CoreHost<ObjectsCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Call { call, peer, kind, ids } => self.call(call, peer, kind, ids, context),
            Effect::Cancel { call } => {
                if let Some(OpenCall { waiting: Some(waiting), .. }) = self.calls.remove(&call) {
                    context.cancel_future(waiting);
                }
            }
            Effect::Answer { request, ids, answer } => self.answer(request, ids, answer, context),
            // The asker sees that its queue ends, and asks again.
            Effect::Refuse { request } => self.end_request(request, context),
            Effect::Report { peer, failure } if !failure.fault.bans() => {
                let PeerFailure { fault, reason, .. } = failure;
                tracing::debug!(peer = %peer.short(), ?fault, reason, "a call for objects failed");
            }
            Effect::Report { peer, failure } => {
                let _ = self.mailboxes.report.post(Report { peer, start: 0, outcome: Outcome::Failed(failure) });
            }
        }
    }
}

forward! {
    Objects {
        PeerChanged(event) => Input::Peer(event),
    }
}

impl Handler<Envelope<CommitteeChanged>> for Objects {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<CommitteeChanged>, _: &mut Context<Self>) {
        let epoch = envelope.message.context;
        self.contexts.retain(|known| known.epoch() + 1 == epoch.epoch());
        self.contexts.push(epoch);
    }
}

impl Handler<Envelope<FetchObjects>> for Objects {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<FetchObjects>, context: &mut Context<Self>) {
        let FetchObjects { kind, ids, within, first_from, results, dropped } = envelope.message;
        self.last_request += 1;
        let request = self.last_request;
        let gone = move |objects: &mut Self, (), origin, context: &mut Context<Self>| {
            if objects.askers.remove(&request).is_some() {
                objects.feed(origin, Input::Dropped { request }, context);
            }
        };
        let watch = self.later(async move { dropped.cancelled().await }, gone, context);
        self.askers.insert(request, Asker { results, left: ids.len(), watch });
        self.feed(envelope.origin, Input::Fetch { request, kind, ids, within, first_from }, context);
    }
}

impl Handler<Envelope<ListSnapshots>> for Objects {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<ListSnapshots>, context: &mut Context<Self>) {
        let reply = envelope.message.reply;
        let committee = self.contexts.last().map(|epoch| epoch.committee().clone());
        let validators: BTreeSet<PeerId> = committee
            .into_iter()
            .flat_map(|committee| committee.authorities)
            .map(|member| PeerId::from(member.network_key))
            .collect();
        let (links, chain) = (&self.mailboxes.links, Some(self.settings.chain));
        let asked = self.host.core().peers().map(|peer| {
            let call = Call { peer, chain, remote: None, timeout: LIST_TIMEOUT };
            let asking = ask_for_snapshots(links.get(peer), call);
            asking.map(move |snapshots| snapshots.into_iter().map(move |info| (info, peer)))
        });
        let asking = self.mailboxes.io.spawn(join_all(asked.collect::<Vec<_>>()));
        let finish = move |_: &mut Self, said: Result<Vec<_>, ExitReason>, _, _: &mut Context<Self>| {
            let said = said.unwrap_or_default().into_iter().flatten();
            let advertised = said.map(|(info, peer)| {
                let is_validator = validators.contains(&peer);
                AdvertisedSnapshot { info, peer, is_validator }
            });
            reply.send(advertised.collect());
        };
        self.later(asking, finish, context);
    }
}

observe!(Objects, Snapshot);
// Calls end with the actor. Askers see that their queues end, and ask again.
stop_at_once!(Objects);
