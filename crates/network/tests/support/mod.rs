//! A handler that reports its events, and the two kinds of network that the tests run on.
#![allow(dead_code)] // Each test binary uses its part.

pub(crate) mod raw;
pub(crate) mod tls;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    Frame, FrameStream, Hello, KnownPeers, PeerApi, Seen, Status,
};
use soma_network::{ConnectionId, Inbound, InboundHandler, Link, Listener, MemoryNetwork, TlsTransport, Transport};
use soma_types::{
    Address, BlockDigest, BlockRef, ChainId, CommitDigest, CommitIndex, CommitRef, ListenAddress, PeerId, SigningKey,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

/// Deadline of every wait. It is far longer than needed, so a test that reaches it has failed.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The chain of every call.
pub(crate) const CHAIN: ChainId = ChainId([9; 32]);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn id(seed: u8) -> PeerId {
    PeerId::from(&key(seed))
}

/// A call to the node with `seed` and a long timeout.
pub(crate) fn call(seed: u8) -> Call {
    Call { peer: id(seed), chain: Some(CHAIN), remote: None, timeout: TEST_TIMEOUT }
}

pub(crate) fn any_port() -> ListenAddress {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

pub(crate) fn refs(count: u32) -> BlockRefs {
    let reference = |round| BlockRef { epoch: 1, round, author: 3, digest: BlockDigest([7; 32]) };
    BlockRefs::new((1..=count).map(reference).collect()).unwrap()
}

/// The network of a test.
pub(crate) enum Net {
    Tls,
    Memory(MemoryNetwork),
}

impl Net {
    pub(crate) fn transport(&self, seed: u8) -> Arc<dyn Transport> {
        match self {
            Self::Tls => Arc::new(TlsTransport::new(&key(seed)).unwrap()),
            Self::Memory(network) => Arc::new(network.transport(id(seed))),
        }
    }

    /// The listening node with `seed`.
    pub(crate) async fn node(&self, seed: u8, behaviour: Behaviour) -> Node {
        Node::listen(&*self.transport(seed), seed, behaviour).await
    }
}

/// A handler's behaviour on connections and calls.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Admits every peer and answers every call.
    Answers,
    /// Admits every peer and never answers.
    Silent,
    /// Admits no peer.
    Refuses,
    /// Never decides about a peer.
    Undecided,
    /// Answers each call only when the test permits it, through the sender of [`Event::Waits`].
    WhenLet,
    /// Fails each call with this error.
    Fails(CallError),
    /// Answers with these values.
    Says { peers: KnownPeers, commits: FetchedCommits, chunks: Vec<Vec<Bytes>> },
    /// Sends one chunk and then stalls.
    StallsStream,
    /// Opens streams of frames with this limit of a message, through [`Event::Opened`].
    Spreads(u32),
}

/// One side of a stream of frames.
pub(crate) struct Side {
    /// The peer's hello.
    pub(crate) hello: Hello,
    /// Frames of the peer.
    pub(crate) incoming: FrameStream,
    /// Frames to the peer.
    pub(crate) outgoing: mpsc::Sender<Result<Frame, CallError>>,
}

/// Frames that one side has ready and that the network has not taken.
const READY_FRAMES: usize = 4;

impl Side {
    /// A sender of frames, and the stream of them.
    pub(crate) fn frames() -> (mpsc::Sender<Result<Frame, CallError>>, FrameStream) {
        let (sender, frames) = mpsc::channel(READY_FRAMES);
        (sender, ReceiverStream::new(frames).boxed())
    }

    /// The caller's side of a stream that this side opens.
    pub(crate) async fn open(link: &Link, seed: u8, hello: Hello) -> Result<Self, CallError> {
        let (outgoing, frames) = Self::frames();
        let (hello, incoming) = link.api().broadcast(call(seed), hello, frames).await?;
        Ok(Self { hello, incoming, outgoing })
    }

    pub(crate) async fn send(&self, frame: Frame) {
        timeout(TEST_TIMEOUT, self.outgoing.send(Ok(frame))).await.expect("room").expect("a stream");
    }

    /// The next frame or error, or the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame, CallError>> {
        timeout(TEST_TIMEOUT, self.incoming.next()).await.expect("a frame in time")
    }

    /// Ends this side's frames.
    pub(crate) fn end_outgoing(&mut self) {
        self.outgoing = Self::frames().0;
    }

    /// Waits for the end of the peer's frames, which may be an error. Returns whether nothing followed.
    pub(crate) async fn incoming_ends(&mut self) -> bool {
        while let Some(Ok(_)) = self.next().await {}
        self.next().await.is_none()
    }

    /// Waits until the network has dropped this side's frames.
    pub(crate) async fn is_closed(&self) {
        timeout(TEST_TIMEOUT, self.outgoing.closed()).await.expect("an end");
    }
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.hello)
    }
}

/// An event of a handler.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(Inbound),
    Closed(ConnectionId, PeerId),
    /// A call by its method's name.
    Asked(&'static str, Call),
    /// A call or a stream was dropped before its end.
    GivenUp,
    /// A peer has opened a stream of frames.
    Opened(Side),
    /// A call waits for this permission.
    Waits(tokio::sync::oneshot::Sender<()>),
}

/// A listening handler and its events.
pub(crate) struct Node {
    pub(crate) id: PeerId,
    pub(crate) listener: Listener,
    pub(crate) events: UnboundedReceiver<Event>,
    seen: Arc<Mutex<Vec<Call>>>,
}

impl Node {
    pub(crate) async fn listen(transport: &dyn Transport, seed: u8, behaviour: Behaviour) -> Self {
        let (handler, events, seen) = handler(behaviour);
        let listener = transport.listen(&any_port(), handler).await.unwrap();
        Self { id: id(seed), listener, events, seen }
    }

    pub(crate) fn address(&self) -> &Address {
        self.listener.address()
    }

    pub(crate) async fn event(&mut self) -> Event {
        timeout(TEST_TIMEOUT, self.events.recv()).await.expect("an event in time").expect("a handler")
    }

    /// The next connection, which must be the next event.
    pub(crate) async fn connected(&mut self) -> Inbound {
        match self.event().await {
            Event::Connected(inbound) => inbound,
            other => panic!("a connection was expected, not {other:?}"),
        }
    }

    /// Waits for the end of `inbound`, past the calls before it.
    pub(crate) async fn closed(&mut self, inbound: &Inbound) {
        loop {
            match self.event().await {
                Event::Closed(connection, peer) => {
                    return assert_eq!((connection, peer), (inbound.id(), inbound.peer()));
                }
                Event::Connected(other) => panic!("an end was expected, not {other:?}"),
                _ => {}
            }
        }
    }

    /// The next call.
    pub(crate) async fn asked(&mut self) -> (&'static str, Call) {
        loop {
            if let Event::Asked(method, call) = self.event().await {
                return (method, call);
            }
        }
    }

    /// The next stream of frames that a peer opens.
    pub(crate) async fn opened(&mut self) -> Side {
        loop {
            if let Event::Opened(side) = self.event().await {
                return side;
            }
        }
    }

    /// Waits until a call is given up.
    pub(crate) async fn given_up(&mut self) {
        while !matches!(self.event().await, Event::GivenUp) {}
    }

    /// Whether there are no more events.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.events.try_recv().is_err()
    }

    /// Number of calls up to now.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

type Handler = (Arc<dyn InboundHandler>, UnboundedReceiver<Event>, Arc<Mutex<Vec<Call>>>);

pub(crate) fn handler(behaviour: Behaviour) -> Handler {
    let (events, told) = unbounded_channel();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let responder = Responder { behaviour: behaviour.clone(), events: events.clone(), seen: seen.clone() };
    (Arc::new(Teller { behaviour, events, api: Arc::new(responder) }), told, seen)
}

struct Teller {
    behaviour: Behaviour,
    events: UnboundedSender<Event>,
    api: Arc<dyn PeerApi>,
}

#[async_trait]
impl InboundHandler for Teller {
    async fn connected(&self, inbound: Inbound) -> bool {
        let _ = self.events.send(Event::Connected(inbound));
        match self.behaviour {
            Behaviour::Refuses => false,
            Behaviour::Undecided => std::future::pending().await,
            _ => true,
        }
    }

    fn closed(&self, connection: ConnectionId, peer: PeerId) {
        let _ = self.events.send(Event::Closed(connection, peer));
    }

    fn api(&self) -> Arc<dyn PeerApi> {
        self.api.clone()
    }
}

struct Responder {
    behaviour: Behaviour,
    events: UnboundedSender<Event>,
    seen: Arc<Mutex<Vec<Call>>>,
}

/// Reports that it was dropped.
struct TellsEnd(UnboundedSender<Event>);

impl Drop for TellsEnd {
    fn drop(&mut self) {
        let _ = self.0.send(Event::GivenUp);
    }
}

impl Responder {
    async fn answer<T>(&self, method: &'static str, call: Call, answer: T) -> Result<T, CallError> {
        self.seen.lock().unwrap().push(call);
        let _ = self.events.send(Event::Asked(method, call));
        match &self.behaviour {
            Behaviour::Silent => {
                let _end = TellsEnd(self.events.clone());
                std::future::pending().await
            }
            Behaviour::WhenLet => {
                let (let_go, waits) = tokio::sync::oneshot::channel();
                let _ = self.events.send(Event::Waits(let_go));
                let _ = waits.await;
                Ok(answer)
            }
            Behaviour::Fails(error) => Err(error.clone()),
            _ => Ok(answer),
        }
    }
}

/// The response of [`Behaviour::Answers`].
pub(crate) fn known_peers() -> KnownPeers {
    let seen = Seen { ip: Some([192, 0, 2, 7].into()), time_ms: 1_700_000_000_000, reached: Some(true) };
    KnownPeers { own_info: Bytes::from_static(b"own"), known_peers: vec![Bytes::from_static(b"other")], seen }
}

pub(crate) fn fetched_commits() -> FetchedCommits {
    FetchedCommits { commits: vec![Bytes::from_static(b"commit")], certifier_blocks: vec![Bytes::from_static(b"vote")] }
}

/// One block in the first chunk, two in the second.
pub(crate) fn chunks() -> Vec<Vec<Bytes>> {
    vec![vec![Bytes::from_static(b"1")], vec![Bytes::from_static(b"2"), Bytes::from_static(b"3")]]
}

pub(crate) fn epoch_proofs() -> EpochProofs {
    EpochProofs { proofs: vec![Bytes::from_static(b"epoch 3"), Bytes::from_static(b"epoch 4")] }
}

pub(crate) const AVAILABILITY: Availability = Availability { highest_synced: 70, lowest_available: 30 };

#[async_trait]
impl PeerApi for Responder {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        assert_eq!(own_info, "caller's");
        let answer = match &self.behaviour {
            Behaviour::Says { peers, .. } => peers.clone(),
            _ => known_peers(),
        };
        self.answer("get_known_peers", call, answer).await
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        self.answer("get_commit_availability", call, AVAILABILITY).await
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let answer = CommitRef { index: index.unwrap_or(70), digest: CommitDigest([4; 32]) };
        self.answer("get_commit_info", call, answer).await
    }

    async fn fetch_commits(&self, call: Call, _: CommitRange) -> Result<FetchedCommits, CallError> {
        let answer = match &self.behaviour {
            Behaviour::Says { commits, .. } => commits.clone(),
            _ => fetched_commits(),
        };
        self.answer("fetch_commits", call, answer).await
    }

    async fn fetch_blocks(&self, call: Call, _: BlockRefs) -> Result<BlockStream, CallError> {
        let chunks = match &self.behaviour {
            Behaviour::Says { chunks, .. } => chunks.clone(),
            // More than HTTP/2 takes at once.
            Behaviour::Spreads(_) => vec![vec![Bytes::from(vec![7; 300 << 10])]],
            _ => chunks(),
        };
        self.answer("fetch_blocks", call, ()).await?;
        if matches!(self.behaviour, Behaviour::StallsStream) {
            let end = TellsEnd(self.events.clone());
            let rest = stream::pending().map(move |chunk| {
                let _kept = &end;
                chunk
            });
            return Ok(stream::iter([Ok(chunks[0].clone())]).chain(rest).boxed());
        }
        Ok(stream::iter(chunks.into_iter().map(Ok)).boxed())
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        assert_eq!(index, 71);
        self.answer("push_commit", call, ()).await
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        assert_eq!(request.from_epoch(), 3);
        self.answer("get_epoch_proofs", call, epoch_proofs()).await
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        incoming: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        self.answer("broadcast", call, ()).await?;
        let Behaviour::Spreads(max_message_bytes) = self.behaviour else {
            return Err(CallError::new(Status::Unimplemented, "not here"));
        };
        let (outgoing, frames) = Side::frames();
        let _ = self.events.send(Event::Opened(Side { hello, incoming, outgoing }));
        Ok((Hello { max_message_bytes, ..hello }, frames))
    }
}

pub(crate) fn status<T>(result: Result<T, CallError>) -> Status {
    match result {
        Ok(_) => panic!("a failure was expected"),
        Err(error) => error.status,
    }
}
