//! A node's transport in simulation: the one in memory, with the simulated network between caller and responder.
//!
//! ```text
//!   caller --> Link of MemoryTransport --> request crosses --> PeerApi of the node, or HostilePeer around it -->
//!   answer crosses
//!                `- its timeout runs over all of it                       stream: each chunk crosses (see `chunks`)
//! ```

use crate::{
    hostile::{Behaviour, Mischief},
    simulation::{
        chunks::Chunks,
        frames::crossing,
        identity::address,
        names::NodeName,
        network::{Host, SimNetwork},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    FrameStream, Hello, KnownPeers, ObjectIds, ObjectStream, PeerApi,
};
use soma_network::{
    ConnectionId, DialError, Inbound, InboundHandler, Link, ListenError, Listener, MemoryTransport, Transport,
};
use soma_p2p::{Address, BlockRef, CommitIndex, CommitRef, ListenAddress, PeerId};
use soma_types::ObjectPart;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The key of those that have another one than they are known by.
const OTHER_KEY: [u8; 32] = [0xee; 32];

/// The transport of one node, or of one of the identities that it has.
pub(super) struct SimTransport {
    name: NodeName,
    peer: PeerId,
    memory: MemoryTransport,
    network: SimNetwork,
}

impl SimTransport {
    pub(super) fn new(name: NodeName, peer: PeerId, network: SimNetwork) -> Self {
        let source = address(name).ip();
        Self { name, peer, memory: network.memory().transport(peer).at(source), network }
    }
}

#[async_trait]
impl Transport for SimTransport {
    async fn dial(&self, peer: PeerId, address: &Address, limit: Duration) -> Result<Link, DialError> {
        let unknown = || DialError::Unreachable { address: address.clone(), reason: "no route".into() };
        let host = self.network.host(peer).ok_or_else(unknown)?;
        let to = host.name;
        let dialling = async {
            self.network.cross(self.name, to, "dial", 0).await;
            let link = self.memory.dial(peer, address, limit).await;
            self.network.cross(to, self.name, "dial answered", 0).await;
            match host.mischief.as_ref().map(Mischief::behaviour) {
                Some(Behaviour::HasOtherKey) => {
                    let (address, found) = (address.clone(), PeerId(OTHER_KEY));
                    Err(DialError::WrongKey { address, expected: peer, found })
                }
                _ => link,
            }
        };
        let too_late = |_| DialError::Timeout { address: address.clone(), timeout: limit };
        timeout(limit, dialling).await.map_err(too_late)?
    }

    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError> {
        let responder = Responder { name: self.name, peer: self.peer, network: self.network.clone() };
        let gate = Gate { responder, inner: handler };
        self.memory.listen(address, Arc::new(gate)).await
    }
}

/// What stands between the network and a node that listens.
struct Gate {
    responder: Responder,
    inner: Arc<dyn InboundHandler>,
}

#[async_trait]
impl InboundHandler for Gate {
    async fn connected(&self, inbound: Inbound) -> bool {
        let admitted = self.inner.connected(inbound.clone()).await;
        let Responder { name, network, .. } = &self.responder;
        if let Some(caller) = network.host(inbound.peer()) {
            network.connected(caller.name, *name, inbound, admitted);
        }
        admitted
    }

    fn closed(&self, connection: ConnectionId, peer: PeerId) {
        self.responder.network.closed(connection);
        self.inner.closed(connection, peer);
    }

    fn api(&self) -> Arc<dyn PeerApi> {
        Arc::new(Wire { responder: self.responder.clone(), inner: self.inner.api() })
    }
}

/// The node that answers.
#[derive(Clone)]
struct Responder {
    name: NodeName,
    peer: PeerId,
    network: SimNetwork,
}

impl Responder {
    /// As it is now: it may have begun to misbehave.
    fn host(&self) -> Result<Host, CallError> {
        self.network.host(self.peer).ok_or_else(CallError::connection_gone)
    }

    fn caller(&self, call: &Call) -> Result<Host, CallError> {
        self.network.host(call.peer).ok_or_else(CallError::connection_gone)
    }

    /// Takes the request over the wire, has it answered, and takes the answer over the wire.
    async fn answer<T>(
        &self,
        call: &Call,
        rpc: Rpc<T>,
        answering: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let caller = self.caller(call)?.name;
        self.network.cross(caller, self.name, rpc.request, rpc.request_bytes).await;
        let answer = answering.await;
        let bytes = answer.as_ref().map_or(0, rpc.answer_bytes);
        self.network.cross(self.name, caller, rpc.answer, bytes).await;
        answer
    }
}

/// A call's messages: their names in the journal, and what of their payload is not small.
struct Rpc<T> {
    request: &'static str,
    request_bytes: usize,
    answer: &'static str,
    answer_bytes: fn(&T) -> usize,
}

impl<T> Rpc<T> {
    /// A call of which both messages are small.
    fn small(request: &'static str, answer: &'static str) -> Self {
        Self { request, request_bytes: 0, answer, answer_bytes: |_| 0 }
    }
}

/// One node's answers, behind the network.
struct Wire {
    responder: Responder,
    inner: Arc<dyn PeerApi>,
}

impl Wire {
    /// The running node, and its service.
    fn answering(&self) -> Result<(Host, Arc<dyn PeerApi>), CallError> {
        let host = self.responder.host()?;
        let api: Arc<dyn PeerApi> = match &host.mischief {
            Some(mischief) => Arc::new(mischief.wrap(self.inner.clone())),
            None => self.inner.clone(),
        };
        Ok((host, api))
    }
}

#[async_trait]
impl PeerApi for Wire {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        let size = |said: &KnownPeers| said.known_peers.iter().chain([&said.own_info]).map(Bytes::len).sum();
        let rpc =
            Rpc { request_bytes: own_info.len(), answer_bytes: size, ..Rpc::small("GetKnownPeers", "KnownPeers") };
        let (_, api) = self.answering()?;
        self.responder.answer(&call, rpc, api.get_known_peers(call, own_info)).await
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        let answering = async {
            let (host, api) = self.answering()?;
            let said = api.get_commit_availability(call).await?;
            self.responder.network.check_told(&host, said.highest_synced, "GetCommitAvailability");
            Ok(said)
        };
        let rpc = Rpc::small("GetCommitAvailability", "CommitAvailability");
        self.responder.answer(&call, rpc, answering).await
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let answering = async {
            let (host, api) = self.answering()?;
            let said = api.get_commit_info(call, index).await?;
            self.responder.network.check_told(&host, said.index, "GetCommitInfo");
            Ok(said)
        };
        let rpc = Rpc::small("GetCommitInfo", "CommitInfo");
        self.responder.answer(&call, rpc, answering).await
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let answering = async {
            let (_, api) = self.answering()?;
            api.fetch_commits(call, range).await
        };
        let rpc = Rpc { answer_bytes: FetchedCommits::size, ..Rpc::small("FetchCommits", "Commits") };
        self.responder.answer(&call, rpc, answering).await
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let (_, api) = self.answering()?;
        let (request, answer, request_bytes) = ("FetchBlocks", "Blocks", refs.as_slice().len() * BlockRef::BYTES);
        let answering = api.fetch_blocks(call, refs);
        let responder = self.responder.clone();
        if responder.network.has_bandwidth() {
            let caller = responder.caller(&call)?.name;
            responder.network.cross(caller, responder.name, request, request_bytes).await;
            let answered = answering.await;
            let fate = responder.network.depart(responder.name, caller, answer, 0);
            let arrival = responder.network.arrive(responder.name, caller, fate);
            let Ok(stream) = answered else {
                arrival.await;
                return answered;
            };
            let mut chunks = Chunks::new(responder.network.clone(), responder.name, caller, stream);
            // Chunks follow the head of the answer.
            tokio::select! {
                biased;
                () = arrival => {}
                () = chunks.send() => {}
            }
            return Ok(chunks.into_stream());
        }
        let rpc = Rpc { request_bytes, ..Rpc::small(request, answer) };
        let stream = responder.answer(&call, rpc, answering).await?;
        let caller = responder.caller(&call)?.name;
        let chunks = futures::stream::unfold(Some(stream), move |stream| {
            let responder = responder.clone();
            async move {
                let mut stream = stream?;
                let chunk = stream.next().await?;
                responder.network.cross(responder.name, caller, "chunk of blocks", 0).await;
                // After an error nothing follows.
                let rest = chunk.is_ok().then_some(stream);
                Some((chunk, rest))
            }
        });
        Ok(chunks.boxed())
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        let caller = self.responder.caller(&call)?;
        // The check uses the caller's knowledge when it sent the message.
        self.responder.network.check_told(&caller, index, "PushCommit");
        let told = caller.mischief.map_or(index, |mischief| mischief.pushed(index));
        let rpc = Rpc::small("PushCommit", "PushCommit taken");
        self.responder.answer(&call, rpc, self.inner.push_commit(call, told)).await
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        let answering = async {
            let (_, api) = self.answering()?;
            api.get_epoch_proofs(call, request).await
        };
        let rpc = Rpc { answer_bytes: EpochProofs::size, ..Rpc::small("GetEpochProofs", "EpochProofs") };
        self.responder.answer(&call, rpc, answering).await
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        let (_, api) = self.answering()?;
        let (responder, caller) = (self.responder.clone(), self.responder.caller(&call)?.name);
        let rpc = Rpc { request_bytes: 32 * ids.as_slice().len(), ..Rpc::small("FetchObjects", "Objects") };
        let messages = self.responder.answer(&call, rpc, api.fetch_objects(call, ids)).await?;
        let crossing = messages.then(move |message| {
            let responder = responder.clone();
            async move {
                let bytes = message.as_ref().map_or(0, |parts| parts.iter().map(ObjectPart::size).sum());
                responder.network.cross(responder.name, caller, "objects", bytes).await;
                message
            }
        });
        Ok(crossing.boxed())
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        let (_, api) = self.answering()?;
        let (network, name) = (&self.responder.network, self.responder.name);
        let caller = self.responder.caller(&call)?.name;
        let frames = crossing(network.clone(), caller, name, frames);
        let rpc = Rpc::small("Broadcast", "Broadcast begun");
        let (hello, frames) = self.responder.answer(&call, rpc, api.broadcast(call, hello, frames)).await?;
        Ok((hello, crossing(network.clone(), name, caller, frames)))
    }
}
