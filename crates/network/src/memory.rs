//! Peers in one process, without sockets and encoding: typed calls go directly to the other side's handler.
//!
//! Interface, limits, deadlines and events are the same as over the network. Their order depends only on the runtime:
//! on a paused current-thread runtime every run is the same.

use crate::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    FrameStream, Hello, KnownPeers, Limit, ObjectIds, ObjectProgress, ObjectStream, PeerApi, Status, Tie,
    checked_chunk, checked_snapshots,
};
use crate::{
    ConnectionId, DialError, Inbound, InboundHandler, Link, ListenError, Listener, Transport, admission::Admission,
    ends::Ends, standing::Standing,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use soma_types::{Address, AddressError, CommitIndex, CommitRef, ListenAddress, ObjectPart, PeerId, SnapshotInfo};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// First port for listeners that ask for port 0.
const FIRST_PORT: u16 = 10_000;

/// A network in memory. Clones share the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    // Stands for the cables; it holds no actor's state.
    nodes: Arc<Mutex<Nodes>>,
}

#[derive(Default)]
struct Nodes {
    listening: BTreeMap<Address, Node>,
    ports_given: u16,
    connections: u64,
}

#[derive(Clone)]
struct Node {
    peer: PeerId,
    handler: Arc<dyn InboundHandler>,
    accepting: CancellationToken,
    connections: CancellationToken,
    /// Calls in flight, which a shutdown waits for.
    calls: TaskTracker,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of one node.
    pub fn transport(&self, peer: PeerId) -> MemoryTransport {
        MemoryTransport { network: self.clone(), peer, source: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    /// Drops the handler that listened at `address`, unless another one listens there now.
    fn forget_stopped(&self, address: &Address) {
        let mut nodes = self.nodes();
        if nodes.listening.get(address).is_some_and(|node| node.accepting.is_cancelled()) {
            nodes.listening.remove(address);
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        // A panic cannot leave the map half-changed: each use is one insertion or look-up.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's transport in a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    peer: PeerId,
    source: IpAddr,
}

impl MemoryTransport {
    /// Sets the source address of dials; the default is loopback.
    pub fn at(self, source: IpAddr) -> Self {
        Self { source, ..self }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(&self, peer: PeerId, address: &Address, limit: Duration) -> Result<Link, DialError> {
        let (node, id) = {
            let mut nodes = self.network.nodes();
            nodes.connections += 1;
            let id = ConnectionId(nodes.connections);
            (nodes.listening.get(address).filter(|node| !node.accepting.is_cancelled()).cloned(), id)
        };
        let remote = address.ip();
        let address = address.clone();
        let Some(node) = node else {
            return Err(DialError::Unreachable { address, reason: "no node listens there".into() });
        };
        if node.peer != peer {
            return Err(DialError::WrongKey { address, expected: peer, found: node.peer });
        }
        let connection = node.connections.child_token();
        let ends = Ends { hang_up: connection.clone(), closed: connection.clone(), ..Ends::default() };
        let inbound =
            Inbound { id, peer: self.peer, remote: self.source, ends: ends.clone(), standing: Standing::default() };
        match timeout(limit, Admission::new(node.handler.clone(), inbound).ask()).await {
            Ok(true) => {}
            Ok(false) => return Err(DialError::Refused { address, reason: "not admitted".into() }),
            Err(_) => return Err(DialError::Timeout { address, timeout: limit }),
        }
        let api = MemoryPeer {
            api: node.handler.api(),
            caller: self.peer,
            source: self.source,
            connection: connection.clone(),
            accepting: node.accepting,
            calls: node.calls,
            ends: Arc::new(connection.clone().drop_guard()),
        };
        let (caller, ended, handler) = (self.peer, connection.clone(), node.handler);
        tokio::spawn(async move {
            ended.cancelled().await;
            handler.closed(id, caller);
        });
        Ok(Link::new(peer, remote, Arc::new(api), ends))
    }

    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError> {
        let mut nodes = self.network.nodes();
        let mut address = *address;
        if address.0.port() == 0 {
            nodes.ports_given += 1;
            address.0.set_port(FIRST_PORT + nodes.ports_given);
        }
        let unusable = |error: AddressError| ListenError::Unusable { address, reason: error.to_string() };
        let bound = Address::try_from(address.0).map_err(unusable)?;
        if nodes.listening.get(&bound).is_some_and(|node| !node.accepting.is_cancelled()) {
            return Err(ListenError::AddressInUse { address });
        }
        let (accepting, connections) = (CancellationToken::new(), CancellationToken::new());
        let calls = TaskTracker::new();
        let node = Node {
            peer: self.peer,
            handler,
            accepting: accepting.clone(),
            connections: connections.clone(),
            calls: calls.clone(),
        };
        nodes.listening.insert(bound.clone(), node);
        let (done, drained) = oneshot::channel();
        let (network, address, stopped) = (self.network.clone(), bound.clone(), accepting.clone());
        tokio::spawn(async move {
            stopped.cancelled().await;
            network.forget_stopped(&address);
            calls.close();
            calls.wait().await;
            let _ = done.send(());
        });
        Ok(Listener { address: bound, accepting, connections, drained: Some(drained), memory: None })
    }
}

/// The other side of a connection, called directly.
struct MemoryPeer {
    api: Arc<dyn PeerApi>,
    caller: PeerId,
    source: IpAddr,
    connection: CancellationToken,
    /// Cancelled when the listener stops, which ends streams of frames.
    accepting: CancellationToken,
    calls: TaskTracker,
    /// Ends the connection when the last clone of the link and the last of its block streams are dropped.
    ends: Arc<DropGuard>,
}

impl MemoryPeer {
    /// The call as the responder sees it.
    fn seen(&self, call: Call) -> Call {
        Call { peer: self.caller, remote: Some(self.source), ..call }
    }

    async fn within<T>(&self, call: Call, answer: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let _under_way = self.calls.token();
        tokio::select! {
            biased;
            () = self.connection.cancelled() => Err(CallError::connection_gone()),
            answer = timeout(call.timeout, answer) => answer.unwrap_or_else(|_| Err(too_late(call))),
        }
    }

    /// The messages of an answer on their way to this side. `check` also sees the end.
    fn carry_answer<T: Send + 'static>(
        &self,
        call: Call,
        deadline: Instant,
        answer: BoxStream<'static, Result<T, CallError>>,
        check: impl FnMut(Option<T>) -> Option<Result<T, CallError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, CallError>> {
        let connection = self.connection.clone();
        let held = (answer, check, self.calls.token(), self.ends.clone());
        stream::unfold(Some(held), move |held| {
            let connection = connection.clone();
            async move {
                let (mut answer, mut check, under_way, ends) = held?;
                let message = tokio::select! {
                    biased;
                    () = connection.cancelled() => Err(CallError::connection_gone()),
                    () = sleep_until(deadline) => Err(too_late(call)),
                    message = answer.next() => match message.transpose() {
                        Ok(message) => check(message)?,
                        Err(error) => Err(error),
                    },
                };
                // Nothing follows an error.
                let rest = message.is_ok().then_some((answer, check, under_way, ends));
                Some((message, rest))
            }
        })
        .boxed()
    }

    /// Frames on their way to the other side, which checks them against its own limit.
    fn carry(&self, frames: FrameStream, limit: Limit) -> FrameStream {
        let (connection, ended) = (self.connection.clone(), self.connection.clone().cancelled_owned());
        let gone = stream::once(async move { connection.is_cancelled().then(|| Err(CallError::connection_gone())) });
        frames.map(move |frame| frame?.checked(limit.hello())).take_until(ended).chain(gone.filter_map(ready)).boxed()
    }
}

fn too_late(call: Call) -> CallError {
    CallError::new(Status::DeadlineExceeded, format!("no answer within {:?}", call.timeout))
}

#[async_trait]
impl PeerApi for MemoryPeer {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        self.within(call, self.api.get_known_peers(self.seen(call), own_info)).await?.checked()
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        self.within(call, self.api.get_commit_availability(self.seen(call))).await
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        self.within(call, self.api.get_commit_info(self.seen(call), index)).await
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        self.within(call, self.api.fetch_commits(self.seen(call), range)).await?.checked(range)
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let deadline = Instant::now() + call.timeout;
        let stream = self.within(call, self.api.fetch_blocks(self.seen(call), refs)).await?;
        Ok(self.carry_answer(call, deadline, stream, |chunk| chunk.map(checked_chunk)))
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        let deadline = Instant::now() + call.timeout;
        let mut progress = ObjectProgress::new(ids.as_slice().len());
        let stream = self.within(call, self.api.fetch_objects(self.seen(call), ids)).await?;
        let check = move |parts: Option<Vec<ObjectPart>>| match parts {
            Some(parts) => Some(progress.take(&parts).map(|()| parts)),
            None if progress.is_complete() => None,
            None => Some(Err(CallError::new(Status::MalformedAnswer, "the answer ends before the last object"))),
        };
        Ok(self.carry_answer(call, deadline, stream, check))
    }

    async fn get_snapshots(&self, call: Call) -> Result<Vec<SnapshotInfo>, CallError> {
        checked_snapshots(self.within(call, self.api.get_snapshots(self.seen(call))).await?)
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        self.within(call, self.api.push_commit(self.seen(call), index)).await
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        let hello = hello.checked()?;
        // Each side has its own tie, as over the network.
        let (callers, responders) = (Tie::of_caller(), Tie::of_responder(&self.accepting));
        let limit = Limit::of_responder(hello.topic);
        let arrives = responders.incoming(self.carry(callers.outgoing(frames), limit.clone()));
        let answer = self.within(call, self.api.broadcast(self.seen(call), hello, arrives));
        let (answered, frames) = answer.await?;
        let answered = hello.answered_by(answered)?;
        limit.set(answered);
        let arrives = callers.incoming(self.carry(responders.outgoing(frames), Limit::of_caller(hello)));
        let ends = self.ends.clone();
        let kept = arrives.inspect(move |_| {
            let _ = &ends;
        });
        Ok((answered, kept.boxed()))
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        self.within(call, self.api.get_epoch_proofs(self.seen(call), request)).await?.checked(request)
    }
}
