//! The caller's side of gRPC.

use super::{frames::OpenStreams, pace::Paced};
use crate::wire::{
    Availability, BlockRefs, BlockStream, CHAIN_ID_METADATA, Call, CallError, CommitRange, EpochProofs,
    EpochProofsFrom, FetchedCommits, FrameStream, Hello, KnownPeers, Limit, ObjectIds, ObjectProgress, ObjectStream,
    PeerApi, Status, Tie, checked_chunk, checked_snapshots, first_frame,
    limits::{MAX_CHUNK_BYTES, MAX_FRAME_BYTES, MAX_KNOWN_PEERS, MAX_REQUEST_BYTES, MESSAGE_OVERHEAD_BYTES},
    malformed,
    proto::{
        BroadcastFrame, FetchBlocksRequest, FetchCommitsRequest, FetchObjectsRequest, FetchObjectsResponse,
        GetCommitAvailabilityRequest, GetCommitInfoRequest, GetEpochProofsRequest, GetKnownPeersRequest,
        GetSnapshotsRequest, PushCommitRequest, p2p_client::P2pClient,
    },
    received,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use soma_types::{
    CommitIndex, CommitRef, ObjectPart, SnapshotInfo,
    limits::{MAX_NODE_INFO_BYTES, OBJECT_PIECE_BYTES},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, body::Body, metadata::MetadataValue, transport::Channel};
use tower::{ServiceExt, util::MapResponse};

/// A channel that sanitizes responses before tonic reads them.
type TameChannel = MapResponse<Channel, fn(http::Response<Body>) -> http::Response<Body>>;

/// Details of a status, which this protocol does not use. tonic 0.14 panics in the caller's task if a responder sends
/// invalid base64 here, so the client removes the entry.
const STATUS_DETAILS: &str = "grpc-status-details-bin";

fn tame(response: http::Response<Body>) -> http::Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(STATUS_DETAILS);
    http::Response::from_parts(parts, Body::new(TameBody(body)))
}

/// A body without status details in its trailers.
struct TameBody(Body);

impl http_body::Body for TameBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        let mut frame = Pin::new(&mut self.0).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            trailers.remove(STATUS_DETAILS);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// The peer at the other end of a channel.
pub(crate) struct GrpcPeer {
    client: P2pClient<TameChannel>,
    /// Tells the counter of frames that streams of `Broadcast` are open.
    streams: Arc<OpenStreams>,
}

impl GrpcPeer {
    pub(crate) fn new(channel: Channel, streams: Arc<OpenStreams>) -> Self {
        let client =
            P2pClient::new(channel.map_response(tame as fn(_) -> _)).max_encoding_message_size(MAX_REQUEST_BYTES);
        Self { client, streams }
    }

    /// A client for a call whose response has at most this many bytes of payload. It refuses a longer response by its
    /// length prefix, before it buffers any of it.
    fn client(&self, payload_bytes: usize) -> P2pClient<TameChannel> {
        self.client.clone().max_decoding_message_size(payload_bytes + MESSAGE_OVERHEAD_BYTES)
    }
}

fn request<T>(call: &Call, message: T) -> Request<T> {
    let mut request = of_chain(call, message);
    request.set_timeout(call.timeout);
    request
}

/// A request without a timeout.
fn of_chain<T>(call: &Call, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(chain) = call.chain {
        request.metadata_mut().insert_bin(CHAIN_ID_METADATA, MetadataValue::from_bytes(chain.as_bytes()));
    }
    request
}

/// All frames of a caller. A type of its own, because the compiler cannot prove that a future with a boxed stream is
/// `Send`.
struct FramesOfCaller(BoxStream<'static, BroadcastFrame>);

impl FramesOfCaller {
    fn new(hello: Hello, frames: FrameStream) -> Self {
        // A caller has no way to send an error: it only ends the stream.
        let frames = Paced::new(frames).filter_map(|frame| ready(frame.ok().map(BroadcastFrame::from)));
        Self(stream::once(ready(hello.into())).chain(frames).boxed())
    }
}

impl Stream for FramesOfCaller {
    type Item = BroadcastFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BroadcastFrame>> {
        self.0.poll_next_unpin(context)
    }
}

fn too_late(after: Duration) -> CallError {
    CallError::new(Status::DeadlineExceeded, format!("no answer within {after:?}"))
}

/// Waits for a response, but not beyond the call's timeout: a responder may ignore the deadline.
async fn within<T>(
    call: &Call,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    in_time(call.timeout, async { Ok(answer.await?.into_inner()) }).await
}

async fn in_time<T>(timeout: Duration, answer: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    // Check the local clock first: tonic has the same deadline, but reports it as "cancelled".
    tokio::select! {
        biased;
        () = sleep(timeout) => Err(too_late(timeout)),
        answer = answer => answer,
    }
}

fn received_parts(message: FetchObjectsResponse, progress: &mut ObjectProgress) -> Result<Vec<ObjectPart>, CallError> {
    let parts = message.parts.into_iter().map(ObjectPart::try_from).collect::<Result<Vec<_>, _>>()?;
    progress.take(&parts)?;
    Ok(parts)
}

#[async_trait]
impl PeerApi for GrpcPeer {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        let mut client = self.client((MAX_KNOWN_PEERS + 1) * MAX_NODE_INFO_BYTES);
        within(&call, client.get_known_peers(request(&call, GetKnownPeersRequest { own_info }))).await?.try_into()
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        let mut client = self.client(0);
        let answer = client.get_commit_availability(request(&call, GetCommitAvailabilityRequest {}));
        within(&call, answer).await.map(Into::into)
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let mut client = self.client(0);
        within(&call, client.get_commit_info(request(&call, GetCommitInfoRequest { index }))).await?.try_into()
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        // Never buffer more than the requested size.
        let mut client = self.client(range.max_bytes());
        let message = FetchCommitsRequest::from(range);
        FetchedCommits::from(within(&call, client.fetch_commits(request(&call, message))).await?).checked(range)
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let deadline = Instant::now() + call.timeout;
        let mut client = self.client(MAX_CHUNK_BYTES);
        let message = FetchBlocksRequest::from(&refs);
        let stream = within(&call, client.fetch_blocks(request(&call, message))).await?;
        let chunks = stream::unfold(Some(stream), move |stream| async move {
            let mut stream = stream?;
            let chunk = tokio::select! {
                biased;
                () = sleep_until(deadline) => Err(too_late(call.timeout)),
                message = stream.message() => match message {
                    Ok(Some(chunk)) => checked_chunk(chunk.blocks),
                    Ok(None) => return None,
                    Err(status) => Err(status.into()),
                },
            };
            // Nothing follows an error.
            let rest = chunk.is_ok().then_some(stream);
            Some((chunk, rest))
        });
        Ok(chunks.boxed())
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        let deadline = Instant::now() + call.timeout;
        let mut client = self.client(OBJECT_PIECE_BYTES);
        let progress = ObjectProgress::new(ids.as_slice().len());
        let message = FetchObjectsRequest::from(ids);
        let stream = within(&call, client.fetch_objects(request(&call, message))).await?;
        let parts = stream::unfold(Some((stream, progress)), move |rest| async move {
            let (mut stream, mut progress) = rest?;
            let parts = tokio::select! {
                biased;
                () = sleep_until(deadline) => Err(too_late(call.timeout)),
                message = stream.message() => match message {
                    Ok(Some(message)) => received_parts(message, &mut progress),
                    Ok(None) if progress.is_complete() => return None,
                    Ok(None) => Err(malformed("the answer ends before the last object".into())),
                    Err(status) => Err(status.into()),
                },
            };
            // Nothing follows an error.
            let rest = parts.is_ok().then_some((stream, progress));
            Some((parts, rest))
        });
        Ok(parts.boxed())
    }

    async fn get_snapshots(&self, call: Call) -> Result<Vec<SnapshotInfo>, CallError> {
        let mut client = self.client(0);
        let answer = within(&call, client.get_snapshots(request(&call, GetSnapshotsRequest {}))).await?;
        // The message is too small for many, so that all are converted before they are counted.
        checked_snapshots(answer.snapshots.into_iter().map(SnapshotInfo::try_from).collect::<Result<_, _>>()?)
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        let mut client = self.client(0);
        within(&call, client.push_commit(request(&call, PushCommitRequest { index }))).await.map(drop)
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        let hello = hello.checked()?;
        let tie = Tie::of_caller();
        let failed = tie.guard();
        // The timeout is not sent: by the rules of gRPC it would cover the whole stream.
        let open = self.streams.open();
        let request = of_chain(&call, FramesOfCaller::new(hello, tie.outgoing(frames)));
        let mut client = self.client(MAX_FRAME_BYTES).max_encoding_message_size(MAX_FRAME_BYTES);
        let exchange = async {
            let mut frames = client.broadcast(request).await?.into_inner();
            Ok((first_frame(&mut frames).await?, frames))
        };
        let (answered, frames) = in_time(call.timeout, exchange).await?;
        let frames = tie.incoming(received(frames, Limit::of_caller(hello))).inspect(move |_| {
            let _ = &open;
        });
        let answered = hello.answered_by(answered)?;
        failed.disarm();
        Ok((answered, frames.boxed()))
    }

    async fn get_epoch_proofs(&self, call: Call, asked: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        let mut client = self.client(asked.max_bytes());
        let message = GetEpochProofsRequest::from(asked);
        EpochProofs::from(within(&call, client.get_epoch_proofs(request(&call, message))).await?).checked(asked)
    }
}
