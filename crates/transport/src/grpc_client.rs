//! Calls over gRPC.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_types::CommitIndex;
use soma_types::CommitRef;
use soma_wire::{
    Availability, BlockRefs, BlockStream, CHAIN_ID_METADATA, Call, CallError, CommitRange, FetchedCommits, KnownPeers,
    PeerApi, Status,
    convert::checked_chunk,
    limits::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES},
    proto::{
        FetchBlocksRequest, FetchCommitsRequest, GetCommitAvailabilityRequest, GetCommitInfoRequest,
        GetKnownPeersRequest, PushCommitRequest, p2p_client::P2pClient,
    },
};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

/// The responder at the other end of a channel.
pub(crate) struct GrpcPeer {
    client: P2pClient<Channel>,
}

impl GrpcPeer {
    pub(crate) fn new(channel: Channel) -> Self {
        let client = P2pClient::new(channel)
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES);
        Self { client }
    }
}

fn request<T>(call: &Call, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(call.timeout);
    if let Some(chain) = call.chain {
        request.metadata_mut().insert_bin(CHAIN_ID_METADATA, MetadataValue::from_bytes(chain.as_bytes()));
    }
    request
}

fn too_late(after: Duration) -> CallError {
    CallError::new(Status::DeadlineExceeded, format!("no answer within {after:?}"))
}

/// Waits for an answer no longer than the call may take: a responder that ignores the deadline is not waited for.
async fn within<T>(
    call: &Call,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    match timeout(call.timeout, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(too_late(call.timeout)),
    }
}

#[async_trait]
impl PeerApi for GrpcPeer {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        let mut client = self.client.clone();
        within(&call, client.get_known_peers(request(&call, GetKnownPeersRequest { own_info }))).await?.try_into()
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        let mut client = self.client.clone();
        let answer = client.get_commit_availability(request(&call, GetCommitAvailabilityRequest {}));
        within(&call, answer).await.map(Into::into)
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let mut client = self.client.clone();
        within(&call, client.get_commit_info(request(&call, GetCommitInfoRequest { index }))).await?.try_into()
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let mut client = self.client.clone();
        let message = FetchCommitsRequest::from(range);
        within(&call, client.fetch_commits(request(&call, message))).await?.try_into()
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let deadline = Instant::now() + call.timeout;
        let mut client = self.client.clone();
        let message = FetchBlocksRequest::from(&refs);
        let stream = within(&call, client.fetch_blocks(request(&call, message))).await?;
        let chunks = futures::stream::unfold(Some(stream), move |stream| async move {
            let mut stream = stream?;
            let chunk = match timeout_at(deadline, stream.message()).await {
                Ok(Ok(Some(chunk))) => checked_chunk(chunk.blocks),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => Err(status.into()),
                Err(_) => Err(too_late(call.timeout)),
            };
            // After an error nothing follows.
            let rest = chunk.is_ok().then_some(stream);
            Some((chunk, rest))
        });
        Ok(chunks.boxed())
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        let mut client = self.client.clone();
        within(&call, client.push_commit(request(&call, PushCommitRequest { index }))).await.map(drop)
    }
}
