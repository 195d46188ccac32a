//! The responder's side of gRPC: translates generated messages to [`PeerApi`] and back.

use super::answers::{BLOCKS_ROOM, KNOWN_PEERS_BYTES, LEAST_ROOM, Made, Reader, Reservation};
use super::frame_bodies::{FramesBody, Kept};
use super::pace::Paced;
use crate::wire::{
    BlockRefs, CHAIN_ID_METADATA, Call, CallError, CommitRange, EpochProofsFrom, Limit, ObjectIds, ObjectProgress,
    PeerApi, Tie, first_frame,
    proto::{
        BroadcastFrame, FetchBlocksRequest, FetchBlocksResponse, FetchCommitsRequest, FetchCommitsResponse,
        FetchObjectsRequest, FetchObjectsResponse, GetCommitAvailabilityRequest, GetCommitAvailabilityResponse,
        GetCommitInfoRequest, GetCommitInfoResponse, GetEpochProofsRequest, GetEpochProofsResponse,
        GetKnownPeersRequest, GetKnownPeersResponse, GetSnapshotsRequest, GetSnapshotsResponse, PushCommitRequest,
        PushCommitResponse, p2p_server::P2p,
    },
    received,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use http_body::Body as _;
use soma_types::{ChainId, ObjectPart, PeerId};
use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tower::Service;

/// Maximum timeout of a call, and the default for callers without a deadline.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum wait of a call for room on its connection. It also waits for at most half of its timeout, so that the caller
/// gets the refusal. An honest caller reads a response in flight much faster.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Retry hint for a call that found no room.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The peer at the other end of a request's connection.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) peer: PeerId,
    pub(crate) remote: IpAddr,
    pub(crate) reader: Reader,
    /// Places for streams of frames of this connection.
    pub(crate) streams: Arc<Semaphore>,
}

/// Implements the generated service by [`PeerApi`].
pub(crate) struct GrpcService {
    api: Arc<dyn PeerApi>,
    /// Ends streams that would otherwise last as long as the connection.
    stopping: CancellationToken,
}

impl GrpcService {
    pub(crate) fn new(api: Arc<dyn PeerApi>, stopping: CancellationToken) -> Self {
        Self { api, stopping }
    }
}

/// The caller, chain and deadline of a request.
fn call_of<T>(request: &Request<T>) -> Result<Call, Status> {
    let Caller { peer, remote, .. } = *caller_of(request)?;
    let mut ids = request.metadata().get_all_bin(CHAIN_ID_METADATA).iter();
    let chain = match ids.next() {
        None => None,
        Some(id) => {
            let bytes = id.to_bytes().ok().and_then(|bytes| <[u8; 32]>::try_from(&*bytes).ok());
            // Two values are ambiguous.
            let bytes = bytes.filter(|_| ids.next().is_none());
            let wrong = || Status::invalid_argument(format!("{CHAIN_ID_METADATA} must be one value of 32 bytes"));
            Some(ChainId(bytes.ok_or_else(wrong)?))
        }
    };
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    let remote = Some(remote);
    Ok(Call { peer, chain, remote, timeout: timeout.unwrap_or(MAX_TIMEOUT).min(MAX_TIMEOUT) })
}

fn caller_of<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request.extensions().get().ok_or_else(|| Status::internal("the connection has no peer id"))
}

/// Waits until a response of `least` to `most` bytes may be made for a request's caller.
async fn reserve_large<T>(
    request: &Request<T>,
    timeout: Duration,
    least: usize,
    most: usize,
) -> Result<Reservation, Status> {
    let reader = caller_of(request)?.reader.clone();
    match tokio::time::timeout(ROOM_WAIT.min(timeout / 2), reader.reserve_large(least, most)).await {
        Ok(Some(reserved)) => Ok(reserved),
        _ => Err(no_room().into()),
    }
}

fn no_room() -> CallError {
    CallError {
        status: crate::wire::Status::ResourceExhausted,
        message: "earlier responses are still unread".into(),
        retry_after: Some(RETRY_AFTER),
    }
}

/// The status of a request that breaks the protocol.
fn invalid(error: CallError) -> CallError {
    match error.status {
        crate::wire::Status::MalformedAnswer => CallError::new(crate::wire::Status::InvalidArgument, error.message),
        _ => error,
    }
}

/// A response that counts as unread until its body is taken.
fn counted<T>(reserved: Reservation, bytes: usize, message: T) -> Response<T> {
    let made = Made::default();
    made.message(reserved, bytes);
    let mut response = Response::new(message);
    response.extensions_mut().insert(made);
    response
}

/// A stream that makes each message only when there is room for it. `count` returns the bytes of a message, and whether
/// it is the last: the end of the stream needs no room.
fn with_room<T: Send + 'static>(
    messages: BoxStream<'static, Result<T, CallError>>,
    count: impl FnMut(&T) -> (usize, bool) + Send + 'static,
    reader: Reader,
    timeout: Duration,
    made: Made,
) -> BoxStream<'static, Result<T, CallError>> {
    stream::unfold(Some((messages, count, false)), move |rest| {
        let (reader, made) = (reader.clone(), made.clone());
        async move {
            let (mut messages, mut count, is_complete) = rest?;
            if is_complete {
                return Some((messages.next().await?, Some((messages, count, is_complete))));
            }
            let room = tokio::time::timeout(ROOM_WAIT.min(timeout / 2), reader.reserve(BLOCKS_ROOM, BLOCKS_ROOM)).await;
            let Ok(reserved) = room else { return Some((Err(no_room()), None)) };
            let message = messages.next().await?;
            let mut is_last = false;
            if let Ok(message) = &message {
                let (bytes, last) = count(message);
                is_last = last;
                made.message(reserved, bytes);
            }
            Some((message, Some((messages, count, is_last))))
        }
    })
    .boxed()
}

/// The generated service, with every response watched until it is taken. `frames` is the same service for streams of
/// frames, which have their own limit and no deadline.
#[derive(Clone)]
pub(crate) struct Watched<S> {
    pub(crate) calls: S,
    pub(crate) frames: S,
}

/// The path of calls whose responses have no deadline.
const BROADCAST_PATH: &str = "/soma.p2p.v1.P2p/Broadcast";

impl<S: NamedService> NamedService for Watched<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Watched<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<http::Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == BROADCAST_PATH {
            return serve_frames(&mut self.frames, request);
        }
        let reader = request.extensions().get::<Caller>().map(|caller| caller.reader.clone());
        let answer = self.calls.call(request);
        async move {
            let (mut parts, body) = answer.await?.into_parts();
            let made = parts.extensions.remove::<Made>();
            let body = match reader {
                // A response of headers only has no body to watch.
                Some(reader) if !body.is_end_stream() => reader.watch(body, made),
                _ => body,
            };
            Ok(http::Response::from_parts(parts, body))
        }
        .boxed()
    }
}

/// Serves a stream of frames: a connection has few, and their memory is counted.
fn serve_frames<S>(
    service: &mut S,
    request: http::Request<Body>,
) -> BoxFuture<'static, Result<http::Response<Body>, S::Error>>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    let caller = request.extensions().get::<Caller>().cloned();
    let place = caller.and_then(|caller| Some((caller.streams.try_acquire_owned().ok()?, caller.reader)));
    let Some((stream, reader)) = place else {
        let refused = Status::resource_exhausted("this connection has too many streams of frames");
        return ready(Ok(refused.into_http())).boxed();
    };
    let stream = Arc::new(stream);
    let gathered = reader.clone();
    let kept = stream.clone();
    let answer = service.call(request.map(|body| Body::new(FramesBody::new(body, gathered, kept))));
    async move {
        let response = answer.await?;
        Ok(response.map(|body| Body::new(Kept { body: reader.count_frames(body), _stream: stream })))
    }
    .boxed()
}

/// Parses a gRPC timeout: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[async_trait]
impl P2p for GrpcService {
    async fn get_known_peers(
        &self,
        request: Request<GetKnownPeersRequest>,
    ) -> Result<Response<GetKnownPeersResponse>, Status> {
        let call = call_of(&request)?;
        let reserved = reserve_large(&request, call.timeout, LEAST_ROOM, KNOWN_PEERS_BYTES).await?;
        let answer = self.api.get_known_peers(call, request.into_inner().own_info).await?;
        let bytes = answer.known_peers.iter().map(Bytes::len).sum::<usize>() + answer.own_info.len();
        Ok(counted(reserved, bytes, answer.into()))
    }

    async fn get_commit_availability(
        &self,
        request: Request<GetCommitAvailabilityRequest>,
    ) -> Result<Response<GetCommitAvailabilityResponse>, Status> {
        let call = call_of(&request)?;
        Ok(Response::new(self.api.get_commit_availability(call).await?.into()))
    }

    async fn get_commit_info(
        &self,
        request: Request<GetCommitInfoRequest>,
    ) -> Result<Response<GetCommitInfoResponse>, Status> {
        let call = call_of(&request)?;
        Ok(Response::new(self.api.get_commit_info(call, request.into_inner().index).await?.into()))
    }

    async fn fetch_commits(
        &self,
        request: Request<FetchCommitsRequest>,
    ) -> Result<Response<FetchCommitsResponse>, Status> {
        let call = call_of(&request)?;
        let range = CommitRange::try_from(*request.get_ref())?;
        let asked = range.max_bytes();
        let reserved = reserve_large(&request, call.timeout, LEAST_ROOM.min(asked), asked).await?;
        let range = range.within(reserved.bytes() as u64);
        let answer = match self.api.fetch_commits(call, range).await {
            // The commits exist, but the first certified one does not fit the reduced room.
            Err(error) if error.status == crate::wire::Status::NotFound && range.max_bytes() < asked => {
                return Err(no_room().into());
            }
            answer => answer?,
        };
        Ok(counted(reserved, answer.size(), answer.into()))
    }

    type FetchBlocksStream = BoxStream<'static, Result<FetchBlocksResponse, Status>>;

    async fn fetch_blocks(
        &self,
        request: Request<FetchBlocksRequest>,
    ) -> Result<Response<Self::FetchBlocksStream>, Status> {
        let call = call_of(&request)?;
        let (reader, made) = (caller_of(&request)?.reader.clone(), Made::default());
        let refs = BlockRefs::try_from(request.into_inner())?;
        let mut left = refs.as_slice().len();
        let count = move |blocks: &Vec<Bytes>| {
            left = left.saturating_sub(blocks.len());
            (blocks.iter().map(Bytes::len).sum(), left == 0)
        };
        let chunks = self.api.fetch_blocks(call, refs).await?;
        let chunks = with_room(chunks, count, reader, call.timeout, made.clone());
        let chunks = chunks.map(|chunk| match chunk {
            Ok(blocks) => Ok(FetchBlocksResponse { blocks }),
            Err(error) => Err(error.into()),
        });
        let mut response = Response::new(chunks.boxed());
        response.extensions_mut().insert(made);
        Ok(response)
    }

    type FetchObjectsStream = BoxStream<'static, Result<FetchObjectsResponse, Status>>;

    async fn fetch_objects(
        &self,
        request: Request<FetchObjectsRequest>,
    ) -> Result<Response<Self::FetchObjectsStream>, Status> {
        let call = call_of(&request)?;
        let (reader, made) = (caller_of(&request)?.reader.clone(), Made::default());
        let ids = ObjectIds::try_from(request.into_inner())?;
        let mut progress = ObjectProgress::new(ids.as_slice().len());
        let count = move |parts: &Vec<ObjectPart>| {
            // The source of the parts is this node. Its last message is followed by the end in any case.
            let is_last = progress.take(parts).is_err() || progress.is_complete();
            (parts.iter().map(ObjectPart::size).sum(), is_last)
        };
        let messages = self.api.fetch_objects(call, ids).await?;
        let messages = with_room(messages, count, reader, call.timeout, made.clone());
        let messages = messages.map(|parts| match parts {
            Ok(parts) => Ok(FetchObjectsResponse { parts: parts.into_iter().map(Into::into).collect() }),
            Err(error) => Err(error.into()),
        });
        let mut response = Response::new(messages.boxed());
        response.extensions_mut().insert(made);
        Ok(response)
    }

    async fn get_snapshots(
        &self,
        request: Request<GetSnapshotsRequest>,
    ) -> Result<Response<GetSnapshotsResponse>, Status> {
        let snapshots = self.api.get_snapshots(call_of(&request)?).await?;
        Ok(Response::new(GetSnapshotsResponse { snapshots: snapshots.into_iter().map(Into::into).collect() }))
    }

    async fn push_commit(&self, request: Request<PushCommitRequest>) -> Result<Response<PushCommitResponse>, Status> {
        let call = call_of(&request)?;
        self.api.push_commit(call, request.into_inner().index).await?;
        Ok(Response::new(PushCommitResponse {}))
    }

    type BroadcastStream = BoxStream<'static, Result<BroadcastFrame, Status>>;

    async fn broadcast(
        &self,
        request: Request<tonic::Streaming<BroadcastFrame>>,
    ) -> Result<Response<Self::BroadcastStream>, Status> {
        let call = call_of(&request)?;
        let mut frames = request.into_inner();
        let hello = first_frame(&mut frames).await.map_err(invalid)?;
        let (tie, limit) = (Tie::of_responder(&self.stopping), Limit::of_responder(hello.topic));
        let frames = tie.incoming(received(frames, limit.clone()));
        let (own, frames) = self.api.broadcast(call, hello, frames).await?;
        limit.set(own);
        let frames = Paced::new(tie.outgoing(frames)).map(|frame| Ok(frame?.into()));
        Ok(Response::new(stream::once(ready(Ok(own.into()))).chain(frames).boxed()))
    }

    async fn get_epoch_proofs(
        &self,
        request: Request<GetEpochProofsRequest>,
    ) -> Result<Response<GetEpochProofsResponse>, Status> {
        let call = call_of(&request)?;
        let from = EpochProofsFrom::from(*request.get_ref());
        let asked = from.max_bytes();
        let reserved = reserve_large(&request, call.timeout, LEAST_ROOM.min(asked), asked).await?;
        let from = from.within(reserved.bytes() as u64);
        let answer = match self.api.get_epoch_proofs(call, from).await {
            // The first proof exists, but does not fit the reduced room.
            Err(error) if error.status == crate::wire::Status::NotFound && from.max_bytes() < asked => {
                return Err(no_room().into());
            }
            answer => answer?,
        };
        Ok(counted(reserved, answer.size(), answer.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeout_is_parsed_in_every_unit_and_nonsense_is_none() {
        assert_eq!(parse_timeout("30S"), Some(Duration::from_secs(30)));
        assert_eq!(parse_timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_timeout("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse_timeout("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse_timeout("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for nonsense in ["", "S", "123456789S", "-1S", "5x", "5é"] {
            assert_eq!(parse_timeout(nonsense), None, "{nonsense:?}");
        }
    }
}
