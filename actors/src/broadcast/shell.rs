//! The shell: holds messages under their ids, opens streams, and carries frames.

use super::{
    messages::{
        FollowMessages, FrameArrived, FrameWritten, MessageEvent, MessageQueue, Publish, StreamArrived, StreamEnded,
    },
    metrics,
    stream::{self, Outgoing},
};
use crate::{
    connections::{
        Links,
        messages::{CommitteeChanged, GetConnected, PeerChanged},
    },
    peer_heights::messages::Report,
    state_sync::messages::SubscribeCommittee,
    verifier::messages::VerifyMessages,
};
use actix::{Actor, Context, Handler};
use soma_network::wire::{Call, CallError, Frame, FrameStream, Hello, Status};
use soma_protocol::{
    Core,
    broadcast::{Broadcast as BroadcastCore, Config, Control, Effect, Input, MessageInfo, Snapshot, StreamKey},
    peer_heights::Outcome,
};
use soma_replay::Origin;
use soma_runtime::{
    ActorRef, AskError, CoreHost, Envelope, ExitReason, IoTasks, Life, Mailbox, OrderedSender, Reply, RuntimeContext,
    Shell, forward, observe, stop_at_once,
};
use soma_types::{
    AuthorityIndex, ChainId, Epoch, MessageId, MessageVerdict, PeerFailure, PeerId, PublicKey, SignedMessage, Topic,
    limits::MAX_MESSAGE_BYTES,
};
use soma_verify::EpochContext;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Time between two looks at silent validators for the metric: a look takes time for every validator.
const SILENCE_INTERVAL: Duration = Duration::from_secs(1);

/// Who this node is as an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The epoch of its messages.
    pub epoch: Epoch,
    /// Its index in the committee, and which of the given protocol keys is that member's. `None` if it is no member, or
    /// was not given the key.
    pub authority: Option<(AuthorityIndex, usize)>,
}

/// How streams are opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) chain: ChainId,
    pub(crate) own: PeerId,
    /// Keys of this node's member in committees.
    pub(crate) protocol_keys: Vec<PublicKey>,
    /// Bytes of the payload of one message of the topics after `consensus`.
    pub(crate) max_message_bytes: u32,
    /// How long the exchange of hellos may take.
    pub(crate) timeout: Duration,
}

/// Where Broadcast sends, and where its tasks run.
pub(crate) struct Mailboxes {
    pub(crate) links: Links,
    pub(crate) io: IoTasks,
    pub(crate) verify: Mailbox<VerifyMessages>,
    pub(crate) report: OrderedSender<Report>,
    pub(crate) get_connected: OrderedSender<GetConnected>,
    pub(crate) subscribe_committee: OrderedSender<SubscribeCommittee>,
    /// For the tasks of streams.
    pub(crate) own: ActorRef<Broadcast>,
    /// Read by the handle.
    pub(crate) publisher: watch::Sender<Option<Publisher>>,
}

/// A stream that is open or being opened. Dropping it ends the stream and its tasks.
struct OpenStream {
    topic: Topic,
    queue: mpsc::UnboundedSender<Outgoing>,
    _closed: DropGuard,
}

/// The actor.
pub struct Broadcast {
    // Configuration
    settings: Settings,
    mailboxes: Mailboxes,
    // State
    host: CoreHost<BroadcastCore>,
    /// Every message that the core has not forgotten. Never iterated.
    messages: HashMap<MessageId, Arc<SignedMessage>>,
    streams: BTreeMap<StreamKey, OpenStream>,
    /// Number of the last stream that a peer opened. They are odd.
    last_inbound: u64,
    /// Frames that the core has not decided about.
    frames: BTreeMap<u64, OwnedSemaphorePermit>,
    last_frame: u64,
    /// The last two epochs.
    contexts: Vec<Arc<EpochContext>>,
    readers: BTreeMap<Topic, Vec<MessageQueue>>,
    /// Publishers that wait for room.
    publishers: VecDeque<(Topic, Reply<()>)>,
    /// When the metric of silent validators is due.
    next_silence: Duration,
}

impl Broadcast {
    pub(crate) fn new(
        config: Config,
        settings: Settings,
        mailboxes: Mailboxes,
        runtime_context: RuntimeContext,
    ) -> Self {
        Self {
            settings,
            mailboxes,
            host: CoreHost::new(BroadcastCore::new(config), runtime_context),
            messages: HashMap::new(),
            streams: BTreeMap::new(),
            last_inbound: 0,
            frames: BTreeMap::new(),
            last_frame: 0,
            contexts: Vec::new(),
            readers: BTreeMap::new(),
            publishers: VecDeque::new(),
            next_silence: Duration::ZERO,
        }
    }

    fn hello(&self, topic: Topic) -> Hello {
        let max_message_bytes = match topic {
            // Every block fits.
            Topic::Consensus => MAX_MESSAGE_BYTES as u32,
            Topic::Certificates | Topic::Transactions => self.settings.max_message_bytes,
        };
        Hello { topic, max_message_bytes }
    }

    /// Begins a stream: its queue, and the frames to write.
    fn begin(&mut self, stream: StreamKey, topic: Topic) -> (FrameStream, CancellationToken) {
        let (queue, queued) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        let frames = stream::outgoing(stream, queued, self.mailboxes.own.mailbox(BroadcastCore::NAME));
        self.streams.insert(stream, OpenStream { topic, queue, _closed: closed.clone().drop_guard() });
        (frames, closed)
    }

    fn read(&self, stream: StreamKey, frames: FrameStream, closed: CancellationToken) {
        let own = &self.mailboxes.own;
        let (arrived, ended) = (own.mailbox(BroadcastCore::NAME), own.mailbox(BroadcastCore::NAME));
        self.mailboxes.io.detach(stream::read(stream, frames, arrived, ended, closed));
    }

    fn open(&mut self, stream: StreamKey, peer: PeerId, topic: Topic, context: &mut Context<Self>) {
        let hello = self.hello(topic);
        let (frames, closed) = self.begin(stream, topic);
        let link = self.mailboxes.links.get(peer);
        let call = Call { peer, chain: Some(self.settings.chain), remote: None, timeout: self.settings.timeout };
        let opening = self.mailboxes.io.spawn(async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            link.api().broadcast(call, hello, frames).await
        });
        type Opened = Result<Result<(Hello, FrameStream), CallError>, ExitReason>;
        let finish = move |broadcast: &mut Self, opened: Opened, origin, context: &mut Context<Self>| {
            // It has been closed meanwhile.
            if !broadcast.streams.contains_key(&stream) {
                return;
            }
            match opened {
                Ok(Ok((hello, frames))) => {
                    let max_message_bytes = hello.max_message_bytes;
                    let input = Input::Opened { stream, peer, topic, by_us: true, max_message_bytes };
                    broadcast.feed(origin, input, context);
                    broadcast.read(stream, frames, closed);
                }
                Ok(Err(error)) => broadcast.end(origin, stream, Some(error), context),
                Err(_) => broadcast.end(origin, stream, None, context),
            }
        };
        self.later(opening, finish, context);
    }

    fn end(&mut self, origin: Origin, stream: StreamKey, error: Option<CallError>, context: &mut Context<Self>) {
        let Some(ended) = self.streams.remove(&stream) else { return };
        let is_unsupported = error.as_ref().is_some_and(|error| error.status == Status::Unimplemented);
        if let Some(error) = &error {
            tracing::debug!(topic = ended.topic.name(), %error, "a stream of messages ended");
        }
        let fault = error.filter(|_| !is_unsupported).map(|error| error.fault());
        self.feed(origin, Input::Closed { stream, fault, is_unsupported }, context);
    }

    /// Keeps messages, and describes them to the core.
    fn keep(&mut self, messages: Vec<SignedMessage>) -> Vec<MessageInfo> {
        let keep = |message: SignedMessage| {
            let info = info(&message);
            self.messages.entry(info.id).or_insert_with(|| Arc::new(message));
            info
        };
        messages.into_iter().map(keep).collect()
    }

    fn find<'a>(&'a self, ids: &'a [MessageId]) -> impl Iterator<Item = Arc<SignedMessage>> + 'a {
        ids.iter().filter_map(|id| self.messages.get(id).cloned())
    }

    fn check(&mut self, check: u64, topic: Topic, ids: Vec<MessageId>, signatures: bool, context: &mut Context<Self>) {
        let messages: Vec<_> = self.find(&ids).collect();
        let (contexts, wanted) = (self.contexts.clone(), ids.len());
        let question = move |reply| VerifyMessages { topic, contexts, messages, signatures, reply };
        type Answer = Result<(Vec<MessageVerdict>, Life), AskError>;
        let asked = self.mailboxes.verify.ask_now(question);
        let finish = move |broadcast: &mut Self, answer: Answer, origin, context: &mut Context<Self>| {
            let verdicts = answer.ok().map(|(verdicts, _)| verdicts).filter(|verdicts| verdicts.len() == wanted);
            broadcast.feed(origin, Input::Checked { check, verdicts }, context);
        };
        self.later(asked, finish, context);
    }

    fn tell_readers(&mut self, topic: Topic, event: &MessageEvent) {
        let Some(readers) = self.readers.get_mut(&topic) else { return };
        readers.retain(|reader| !reader.is_closed());
        for reader in readers {
            if !reader.push(event.clone()) {
                metrics::missed(topic);
            }
        }
    }

    /// The committee has changed, or this actor has just started.
    fn learn(&mut self, origin: Origin, changed: CommitteeChanged, context: &mut Context<Self>) {
        let CommitteeChanged { validators, context: epoch } = changed;
        let validators: Vec<_> = validators.into_iter().map(|(peer, _)| peer).collect();
        let committee = epoch.committee().authorities.iter();
        let member = (0..).zip(committee).find(|(_, member)| PeerId::from(member.network_key) == self.settings.own);
        let authority = member.and_then(|(index, member)| {
            let key = self.settings.protocol_keys.iter().position(|key| *key == member.protocol_key)?;
            Some((index, key))
        });
        let number = epoch.epoch();
        self.contexts.retain(|known| known.epoch() + 1 == number);
        self.contexts.push(epoch);
        self.mailboxes.publisher.send_replace(Some(Publisher { epoch: number, authority }));
        let input = Input::Committee { epoch: number, validators, is_validator: authority.is_some() };
        self.feed(origin, input, context);
    }
}

fn info(message: &SignedMessage) -> MessageInfo {
    let content = message.message();
    MessageInfo {
        id: message.id(),
        author: content.author,
        epoch: content.epoch,
        // The protocol's limit is far below.
        bytes: content.payload.len() as u32,
    }
}

impl Actor for Broadcast {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        // Without an answer the other is being restarted. It sends the same when it starts.
        let _ = self.mailboxes.subscribe_committee.post(SubscribeCommittee { subscriber: BroadcastCore::NAME });
        let _ = self.mailboxes.get_connected.post(GetConnected { subscriber: BroadcastCore::NAME });
    }
}

impl Shell for Broadcast {
    type Core = BroadcastCore;

    fn host(&mut self) -> &mut CoreHost<BroadcastCore> {
        &mut self.host
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Open { stream, peer, topic } => self.open(stream, peer, topic, context),
            Effect::Close { stream } => drop(self.streams.remove(&stream)),
            Effect::Send { stream, messages, control } => {
                let found: VecDeque<_> = self.find(&messages).collect();
                if let Some(open) = self.streams.get(&stream) {
                    metrics::sent(open.topic, found.len());
                    // The stream may have ended. Its end is on the way.
                    let _ = open.queue.send(Outgoing::new(found, control));
                }
            }
            Effect::Check { check, topic, messages, signatures } => {
                self.check(check, topic, messages, signatures, context);
            }
            Effect::Taken { frame } => drop(self.frames.remove(&frame)),
            Effect::Deliver { topic, messages } => {
                metrics::delivered(topic, messages.len());
                if self.readers.contains_key(&topic) {
                    let found: Vec<_> = self.find(&messages).collect();
                    for message in found {
                        self.tell_readers(topic, &MessageEvent::Message(message));
                    }
                }
            }
            Effect::Equivocation { topic, first, second } => {
                let first = self.messages.get(&first).cloned();
                if let Some(second) = self.messages.get(&second).cloned() {
                    let author = second.message().author;
                    metrics::equivocation(topic);
                    tracing::warn!(topic = topic.name(), %author, "an author contradicts itself with two messages");
                    self.tell_readers(topic, &MessageEvent::Equivocation { first, second });
                }
            }
            Effect::Forget { messages } => {
                for id in messages {
                    self.messages.remove(&id);
                }
            }
            // A peer's standing says how it serves commits. Useless messages cost it the stream.
            Effect::Report { peer, fault, reason } if !fault.bans() => {
                tracing::debug!(peer = %peer.short(), reason, "the peer sends useless messages");
            }
            Effect::Report { peer, fault, reason } => {
                let outcome = Outcome::Failed(PeerFailure::new(fault, reason));
                let _ = self.mailboxes.report.post(Report { peer, start: 0, outcome });
            }
        }
    }

    fn after_input(&mut self) {
        let (core, now) = (self.host.core(), self.host.now().monotonic);
        if self.next_silence <= now {
            self.next_silence = now + SILENCE_INTERVAL;
            metrics::silent_validators(core.silent_validators());
        }
        self.publishers = std::mem::take(&mut self.publishers)
            .into_iter()
            .filter_map(|(topic, reply)| match core.has_room(topic) {
                true => {
                    reply.send(());
                    None
                }
                false => Some((topic, reply)),
            })
            .collect();
    }
}

forward! {
    Broadcast {
        PeerChanged(event) => Input::Peer(event),
        FrameWritten { stream, bytes } => Input::Written { stream, bytes },
    }
}

impl Handler<Envelope<CommitteeChanged>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<CommitteeChanged>, context: &mut Context<Self>) {
        self.learn(envelope.origin, envelope.message, context);
    }
}

impl Handler<Envelope<Publish>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<Publish>, context: &mut Context<Self>) {
        let Publish { messages, reply } = envelope.message;
        let Some(topic) = messages.iter().map(|message| message.message().topic).max() else { return reply.send(()) };
        self.publishers.push_back((topic, reply));
        for message in messages {
            let topic = message.message().topic;
            for message in self.keep(vec![message]) {
                self.feed(envelope.origin.clone(), Input::Publish { topic, message }, context);
            }
        }
    }
}

impl Handler<Envelope<FollowMessages>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<FollowMessages>, _: &mut Context<Self>) {
        let FollowMessages { topic, queue, reply } = envelope.message;
        let readers = self.readers.entry(topic).or_default();
        readers.retain(|reader| !reader.is_closed());
        readers.push(queue);
        reply.send(());
    }
}

impl Handler<Envelope<StreamArrived>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<StreamArrived>, context: &mut Context<Self>) {
        let StreamArrived { peer, hello: Hello { topic, max_message_bytes }, frames, reply } = envelope.message;
        self.last_inbound += if self.last_inbound == 0 { 1 } else { 2 };
        let stream = StreamKey(self.last_inbound);
        let (outgoing, closed) = self.begin(stream, topic);
        let input = Input::Opened { stream, peer, topic, by_us: false, max_message_bytes };
        self.feed(envelope.origin, input, context);
        if self.streams.contains_key(&stream) {
            self.read(stream, frames, closed);
            reply.send(Ok((self.hello(topic), outgoing)));
        } else {
            let message = format!("another stream of the topic {topic} is in use, or there is no place");
            reply.send(Err(CallError::new(Status::ResourceExhausted, message)));
        }
    }
}

impl Handler<Envelope<FrameArrived>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<FrameArrived>, context: &mut Context<Self>) {
        let FrameArrived { stream, frame, place } = envelope.message;
        if !self.streams.contains_key(&stream) {
            return;
        }
        let Frame { messages, have, want, do_not_send, graft, prune } = frame;
        self.last_frame += 1;
        self.frames.insert(self.last_frame, place);
        let control = Control { have, want, do_not_send, graft, prune };
        let input = Input::Received { stream, frame: self.last_frame, messages: self.keep(messages), control };
        self.feed(envelope.origin, input, context);
    }
}

impl Handler<Envelope<StreamEnded>> for Broadcast {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<StreamEnded>, context: &mut Context<Self>) {
        let StreamEnded { stream, error } = envelope.message;
        self.end(envelope.origin, stream, error, context);
    }
}

observe!(Broadcast, Snapshot);
// Streams end with the actor. A restarted one opens new ones, and both sides exchange the ids of the last seconds.
stop_at_once!(Broadcast);
