//! Answering the calls of peers.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_messages::{
    Delivery, Mailbox,
    discovery::KnownPeersAsked,
    grpc_adapter::{CallArrived, CallPermit},
    peer_heights::Pushed,
};
use soma_protocol::serving::{Refusal, Rpc};
use soma_store::{NotServed, Served, Store, StoreError, serve_commits};
use soma_supervision::{IoTasks, Offload};
use soma_types::{BlockRef, CommitIndex, CommitRef};
use soma_wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, FetchedCommits, KnownPeers, PeerApi, Status,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of blocks after which a chunk is sent. A chunk ends with the block that reaches them, so it is far below
/// the protocol's limit even with the largest block.
const CHUNK_BYTES: usize = 256 << 10;

/// Bytes of blocks that one call reads at once, before it is another one's turn: several chunks, so that going to a
/// blocking thread and back costs little; few enough for a call whose reader is slow to hold little.
const READ_BYTES: usize = 1 << 20;

/// Calls that read blocks at the same moment. The others wait in line: each is as fast as any other, and a crowd of
/// readers does not take the processor from the node's own work.
const READS_AT_ONCE: usize = 4;

/// After so long, a reader is slow: what was read ahead for it is dropped, and read again when it is its time.
const SLOW_READER: Duration = Duration::from_secs(1);

/// Longest time for one answer, slow readers included, whatever the caller allows itself and the transport passes on.
const MAX_SERVING_TIME: Duration = Duration::from_secs(30);

/// What a caller who is one too many is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What the service is connected to.
#[derive(Clone)]
pub struct ServiceWiring {
    /// For reading.
    pub store: Arc<dyn Store>,
    /// Where reads run.
    pub offload: Offload,
    /// Where answers are streamed.
    pub io: IoTasks,
    /// The actor.
    pub calls: Mailbox<CallArrived>,
    /// Discovery.
    pub known_peers: Mailbox<KnownPeersAsked>,
    /// PeerHeights.
    pub pushed: Mailbox<Pushed>,
}

/// Answers calls.
pub struct Service {
    wiring: ServiceWiring,
    /// First come, first served.
    turns: Arc<Semaphore>,
}

impl Service {
    /// A service that answers from what it is connected to.
    pub fn new(wiring: ServiceWiring) -> Self {
        Self { wiring, turns: Arc::new(Semaphore::new(READS_AT_ONCE)) }
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
        // What is wrong with our disk is no business of a peer's.
        CallError::new(Status::Unavailable, "the store cannot be read now")
    };
    match wiring.offload.run(move || read(&*store)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(exit) => Err(failed(exit.to_string())),
    }
}

/// One answer with blocks.
struct Answer {
    wiring: ServiceWiring,
    turns: Arc<Semaphore>,
    refs: Arc<[BlockRef]>,
    permit: CallPermit,
    sender: mpsc::Sender<Result<Vec<Bytes>, CallError>>,
}

impl Answer {
    /// Sends chunk after chunk until all are sent, something is missing, or the reader goes away. An error comes last.
    async fn send(&mut self) {
        if let Err(Some(error)) = self.send_chunks().await {
            // Who has gone away does not want to know.
            let _ = self.sender.send(Err(error)).await;
        }
    }

    /// Without an error in `Err`: the reader has gone away.
    async fn send_chunks(&mut self) -> Result<(), Option<CallError>> {
        let refs = self.refs.clone();
        let (mut next, mut chunk, mut bytes) = (0, Vec::new(), 0);
        while next < refs.len() {
            let mut blocks = self.read_from(next).await.map_err(Some)?.into_iter();
            while let Some(block) = blocks.next() {
                let Some(block) = block else {
                    self.send_chunk(chunk, bytes).await?;
                    return Err(Some(CallError::new(Status::NotFound, format!("block {} is not here", refs[next]))));
                };
                next += 1;
                bytes += block.len();
                chunk.push(block);
                if bytes >= CHUNK_BYTES {
                    if timeout(SLOW_READER, self.sender.reserve()).await.is_err() {
                        blocks = Vec::new().into_iter();
                    }
                    self.send_chunk(std::mem::take(&mut chunk), std::mem::take(&mut bytes)).await?;
                }
            }
        }
        self.send_chunk(chunk, bytes).await
    }

    /// Some blocks from position `next` on, when it is this call's turn; at least one.
    async fn read_from(&self, next: usize) -> Result<Vec<Option<Bytes>>, CallError> {
        let turn = self.turns.clone().acquire_owned().await;
        let refs = self.refs.clone();
        read_store(&self.wiring, move |store| {
            // Nobody closes the semaphore. The turn lasts as long as the reading, whether or not somebody waits for it.
            let _turn = turn;
            store.blocks_within(&refs[next..], READ_BYTES)
        })
        .await
    }

    async fn send_chunk(&mut self, chunk: Vec<Bytes>, bytes: usize) -> Result<(), Option<CallError>> {
        let blocks = chunk.len();
        if blocks > 0 {
            self.sender.send(Ok(chunk)).await.map_err(|_| None)?;
            self.permit.count(bytes as u64, blocks as u64);
        }
        Ok(())
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
        let time = call.timeout.min(MAX_SERVING_TIME);
        // One chunk on its way, the next ones read.
        let (sender, receiver) = mpsc::channel(1);
        let (wiring, turns, refs) = (self.wiring.clone(), self.turns.clone(), refs.into_vec().into());
        let mut answer = Answer { wiring, turns, refs, permit, sender };
        // A task of its own: the transport does not poll a stream that nobody reads, but its time runs out all the same.
        self.wiring.io.detach(async move {
            if timeout(time, answer.send()).await.is_err() {
                let error = CallError::new(Status::DeadlineExceeded, "the answer was not read in time");
                // Only if there is room: whoever does not read is not waited for.
                let _ = answer.sender.try_send(Err(error));
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
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
}
