//! Answering the calls of peers.

use crate::broadcast::messages::StreamArrived;
use crate::discovery::messages::KnownPeersAsked;
use crate::grpc_adapter::{
    messages::{CallArrived, CallPermit},
    object_answer,
};
use crate::peer_heights::messages::Pushed;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    FrameStream, Hello, KnownPeers, ObjectIds, ObjectStream, PeerApi, Status, limits::MAX_EPOCH_PROOFS_PER_FETCH,
};
use soma_protocol::grpc_adapter::{Class, Refusal, Rpc};
use soma_runtime::Offload;
use soma_runtime::{Delivery, Mailbox};
use soma_store::{
    NotServed, ObjectSource, ProofNotServed, Served, Store, StoreError, serve_commits, serve_epoch_proofs,
};
use soma_types::{BlockRef, CommitIndex, CommitRef, SnapshotInfo, limits::MAX_BLOCK_BYTES};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// Bytes of blocks in a chunk, or one block: far below the protocol's limit even with the largest block. Reading them
/// takes a millisecond, so that going to a blocking thread and back costs little.
const CHUNK_BYTES: usize = 512 << 10;

/// Calls of one class of callers that read blocks at the same moment. The others wait in line: each is as fast as any
/// other, strangers do not hold up known peers, and readers do not take the processor from the node's own work.
const READS_AT_ONCE: usize = 2;

/// Classes of callers.
const CLASSES: usize = 3;

/// Bytes of all chunks that are read at the same moment.
pub const READ_BYTES: usize = CLASSES * READS_AT_ONCE * MAX_BLOCK_BYTES;

const _: () = assert!(CHUNK_BYTES <= MAX_BLOCK_BYTES, "a chunk is no longer than the largest block");

/// Longest time for one answer, slow readers included. A caller cannot extend it.
const MAX_SERVING_TIME: Duration = Duration::from_secs(30);

/// Retry hint for a caller beyond the limit.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What the service is connected to.
#[derive(Clone)]
pub struct ServiceWiring {
    /// For reading.
    pub store: Arc<dyn Store>,
    /// Where reads run.
    pub offload: Offload,
    /// The actor.
    pub calls: Mailbox<CallArrived>,
    /// Discovery.
    pub known_peers: Mailbox<KnownPeersAsked>,
    /// PeerHeights.
    pub pushed: Mailbox<Pushed>,
    /// Broadcast. None in a node that does not spread messages.
    pub streams: Option<Mailbox<StreamArrived>>,
    /// What the node has of objects. None in a node that serves none.
    pub objects: Option<Arc<dyn ObjectSource>>,
}

/// Turns to read blocks: first come, first served, in each class.
struct Turns {
    trusted: Arc<Semaphore>,
    proven: Arc<Semaphore>,
    new: Arc<Semaphore>,
}

impl Turns {
    fn new() -> Self {
        let turns = || Arc::new(Semaphore::new(READS_AT_ONCE));
        Self { trusted: turns(), proven: turns(), new: turns() }
    }

    fn of(&self, class: Class) -> Arc<Semaphore> {
        match class {
            Class::Trusted => self.trusted.clone(),
            Class::Proven => self.proven.clone(),
            Class::New => self.new.clone(),
        }
    }
}

/// Answers calls.
pub struct Service {
    wiring: ServiceWiring,
    turns: Turns,
}

impl Service {
    /// A service that answers from the given store and actors.
    pub fn new(wiring: ServiceWiring) -> Self {
        Self { wiring, turns: Turns::new() }
    }

    async fn admit(&self, call: &Call, rpc: Rpc) -> Result<CallPermit, CallError> {
        let (peer, chain) = (call.peer, call.chain);
        let mut calls = self.wiring.calls.clone();
        let answer = calls.ask(|reply| CallArrived { peer, chain, rpc, reply }).await;
        match answer.map_err(|error| CallError::new(Status::Unavailable, error.to_string()))? {
            Ok(permit) => Ok(permit),
            Err(refusal) => {
                let (status, retry_after) = match refusal {
                    Refusal::OtherChain { .. } => (Status::FailedPrecondition, None),
                    Refusal::TooMany { .. } => (Status::ResourceExhausted, Some(RETRY_AFTER)),
                    Refusal::TooFast { retry_after, .. } => (Status::ResourceExhausted, Some(retry_after)),
                };
                tracing::debug!(peer = %peer.short(), ?rpc, %refusal, "call refused");
                Err(CallError { status, message: refusal.to_string(), retry_after })
            }
        }
    }

    /// Reads the store on a blocking thread.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, CallError> {
        read_store(&self.wiring, read).await
    }
}

async fn read_store<R: Send + 'static>(
    wiring: &ServiceWiring,
    read: impl FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, CallError> {
    let store = wiring.store.clone();
    let failed = |error: String| {
        tracing::error!(error, "the store cannot be read");
        // The peer must not learn of this node's disk.
        CallError::new(Status::Unavailable, "the store cannot be read now")
    };
    match wiring.offload.run(move || read(&*store)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(exit) => Err(failed(exit.to_string())),
    }
}

/// One answer with blocks. A chunk is read when the reader has taken the one before, so that a slow reader holds one.
struct Answer {
    wiring: ServiceWiring,
    turns: Arc<Semaphore>,
    refs: Arc<[BlockRef]>,
    /// Position of the first reference that is not answered yet.
    next: usize,
    /// Given back with the last chunk: the transport bounds unread bytes.
    permit: Option<CallPermit>,
    deadline: Instant,
    /// What ends the answer, after the chunk that came before.
    failed: Option<CallError>,
}

impl Answer {
    /// The next chunk, or an error, which comes last.
    async fn chunk(&mut self) -> Result<Option<Vec<Bytes>>, CallError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.next == self.refs.len() {
            return Ok(None);
        }
        let Ok(read) = timeout_at(self.deadline, self.read()).await else {
            return Err(CallError::new(Status::DeadlineExceeded, "the answer was not read in time"));
        };
        let mut blocks = Vec::new();
        for block in read? {
            let Some(block) = block else {
                let missing = self.refs[self.next];
                self.failed = Some(CallError::new(Status::NotFound, format!("block {missing} is not here")));
                break;
            };
            blocks.push(block);
            self.next += 1;
        }
        if blocks.is_empty() {
            let unread = || CallError::new(Status::Unavailable, "the store cannot be read now");
            return Err(self.failed.take().unwrap_or_else(unread));
        }
        if let Some(permit) = &mut self.permit {
            let bytes: usize = blocks.iter().map(Bytes::len).sum();
            permit.count(bytes as u64, blocks.len() as u64);
        }
        if self.next == self.refs.len() {
            self.permit = None;
        }
        Ok(Some(blocks))
    }

    /// Reads some blocks from the next one on, when it is this call's turn; at least one.
    async fn read(&self) -> Result<Vec<Option<Bytes>>, CallError> {
        let turn = self.turns.clone().acquire_owned().await;
        let (refs, next) = (self.refs.clone(), self.next);
        read_store(&self.wiring, move |store| {
            // The semaphore is never closed. The turn lasts as long as the reading, even if its caller is gone.
            let _turn = turn;
            store.blocks_within(&refs[next..], CHUNK_BYTES)
        })
        .await
    }
}

#[async_trait]
impl PeerApi for Service {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        let _permit = self.admit(&call, Rpc::GetKnownPeers).await?;
        let mut discovery = self.wiring.known_peers.clone();
        let (peer, remote) = (call.peer, call.remote);
        let answer = discovery.ask(|reply| KnownPeersAsked { peer, remote, own_info, reply }).await;
        let mut answer = answer.map_err(|error| CallError::new(Status::Unavailable, error.to_string()))?;
        answer.seen.ip = remote;
        Ok(answer)
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        let _permit = self.admit(&call, Rpc::GetCommitAvailability).await?;
        let watermarks = self.read(|store| store.watermarks()).await?;
        Ok(Availability {
            highest_synced: watermarks.highest_synced.index,
            lowest_available: watermarks.lowest_available,
        })
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let _permit = self.admit(&call, Rpc::GetCommitInfo).await?;
        let (highest, found) = self
            .read(move |store| {
                let highest = store.watermarks()?.highest_synced;
                match index {
                    Some(index) => Ok((highest, store.commit(index)?.map(|commit| commit.reference()))),
                    None => Ok((highest, Some(highest))),
                }
            })
            .await?;
        found.ok_or_else(|| {
            let index = index.unwrap_or_default();
            if index > highest.index {
                CallError::new(Status::OutOfRange, format!("commit {index} is beyond {}", highest.index))
            } else {
                CallError::new(Status::NotFound, format!("commit {index} is not kept here any more"))
            }
        })
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let mut permit = self.admit(&call, Rpc::FetchCommits).await?;
        let (start, end, max_bytes) = (range.start(), range.end(), range.max_bytes());
        match self.read(move |store| serve_commits(store, start, end, max_bytes)).await? {
            Ok(Served { commits, certifiers }) => {
                let answer = FetchedCommits { commits, certifier_blocks: certifiers };
                permit.count(answer.size() as u64, 0);
                Ok(answer)
            }
            Err(reason) => {
                let beyond = matches!(reason, NotServed::NotHere { highest, .. } if start > highest);
                let status = if beyond { Status::OutOfRange } else { Status::NotFound };
                Err(CallError::new(status, format!("commit {start} cannot be served: {reason}")))
            }
        }
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let permit = self.admit(&call, Rpc::FetchBlocks).await?;
        let deadline = Instant::now() + call.timeout.min(MAX_SERVING_TIME);
        let (wiring, turns) = (self.wiring.clone(), self.turns.of(permit.class()));
        let refs = refs.into_vec().into();
        let answer = Answer { wiring, turns, refs, next: 0, permit: Some(permit), deadline, failed: None };
        let chunks = stream::unfold(Some(answer), |answer| async move {
            let mut answer = answer?;
            let chunk = answer.chunk().await.transpose()?;
            let rest = chunk.is_ok().then_some(answer);
            Some((chunk, rest))
        });
        Ok(chunks.boxed())
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        let Some(source) = self.wiring.objects.clone() else {
            return Err(CallError::new(Status::Unimplemented, "this node has no objects"));
        };
        let permit = self.admit(&call, Rpc::FetchObjects).await?;
        let deadline = Instant::now() + call.timeout.min(MAX_SERVING_TIME);
        let turns = self.turns.of(permit.class());
        Ok(object_answer::answer(source, self.wiring.offload.clone(), turns, ids, permit, deadline))
    }

    async fn get_snapshots(&self, call: Call) -> Result<Vec<SnapshotInfo>, CallError> {
        let Some(source) = self.wiring.objects.clone() else {
            return Err(CallError::new(Status::Unimplemented, "this node has no objects"));
        };
        let permit = self.admit(&call, Rpc::GetSnapshots).await?;
        object_answer::snapshots(source, &self.wiring.offload, self.turns.of(permit.class())).await
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        let _permit = self.admit(&call, Rpc::PushCommit).await?;
        let mut heights = self.wiring.pushed.clone();
        match heights.tell(Pushed { peer: call.peer, index }) {
            Delivery::Accepted => Ok(()),
            Delivery::Busy => Err(CallError {
                status: Status::ResourceExhausted,
                message: "too many pushes".into(),
                retry_after: Some(RETRY_AFTER),
            }),
            Delivery::Closed => Err(CallError::new(Status::Unavailable, "this node does not take pushes now")),
        }
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        let mut permit = self.admit(&call, Rpc::GetEpochProofs).await?;
        let (from, max_bytes) = (request.from_epoch(), request.max_bytes());
        let answer =
            self.read(move |store| serve_epoch_proofs(store, from, MAX_EPOCH_PROOFS_PER_FETCH, max_bytes)).await?;
        match answer {
            Ok(proofs) => {
                let answer = EpochProofs { proofs: proofs.into_iter().map(Bytes::from).collect() };
                permit.count(answer.size() as u64, 0);
                Ok(answer)
            }
            Err(reason) => {
                let beyond = matches!(reason, ProofNotServed::NotEnded { .. });
                let status = if beyond { Status::OutOfRange } else { Status::NotFound };
                Err(CallError::new(status, format!("no proof of epoch {from}: {reason}")))
            }
        }
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        let Some(streams) = &self.wiring.streams else {
            return Err(CallError::new(Status::Unimplemented, "this node does not spread messages"));
        };
        // Its place is free again once Broadcast has the stream, which bounds the streams of each peer.
        let _permit = self.admit(&call, Rpc::Broadcast).await?;
        let (mut streams, peer) = (streams.clone(), call.peer);
        let answer = streams.ask(|reply| StreamArrived { peer, hello, frames, reply }).await;
        answer.map_err(|error| CallError::new(Status::Unavailable, error.to_string()))?
    }
}
