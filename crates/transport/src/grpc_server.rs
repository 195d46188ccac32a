//! Answers over gRPC: from generated messages to [`PeerApi`] and back.

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use soma_types::{ChainId, PeerId};
use soma_wire::{
    CHAIN_ID_METADATA, Call, PeerApi,
    proto::{
        FetchBlocksRequest, FetchBlocksResponse, FetchCommitsRequest, FetchCommitsResponse,
        GetCommitAvailabilityRequest, GetCommitAvailabilityResponse, GetCommitInfoRequest, GetCommitInfoResponse,
        GetKnownPeersRequest, GetKnownPeersResponse, PushCommitRequest, PushCommitResponse, p2p_server::P2p,
    },
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};

/// What a caller gets that does not say how long it waits, and the most that any gets.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is at the other end of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) PeerId);

/// The generated service in terms of [`PeerApi`].
pub(crate) struct GrpcService {
    api: Arc<dyn PeerApi>,
}

impl GrpcService {
    pub(crate) fn new(api: Arc<dyn PeerApi>) -> Self {
        Self { api }
    }
}

/// Caller, chain and deadline of a request.
fn call_of<T>(request: &Request<T>) -> Result<Call, Status> {
    let Some(Caller(peer)) = request.extensions().get::<Caller>().copied() else {
        return Err(Status::internal("the connection has no peer id"));
    };
    let chain = match request.metadata().get_bin(CHAIN_ID_METADATA) {
        None => None,
        Some(value) => {
            let bytes = value.to_bytes().ok().and_then(|bytes| <[u8; 32]>::try_from(&*bytes).ok());
            let wrong = || Status::invalid_argument(format!("{CHAIN_ID_METADATA} must be 32 bytes"));
            Some(ChainId(bytes.ok_or_else(wrong)?))
        }
    };
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    Ok(Call { peer, chain, timeout: timeout.unwrap_or(MAX_TIMEOUT).min(MAX_TIMEOUT) })
}

/// A gRPC timeout: up to eight digits and a unit.
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
        let answer = self.api.get_known_peers(call, request.into_inner().own_info).await?;
        Ok(Response::new(answer.into()))
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
        let answer = self.api.fetch_commits(call, request.into_inner().try_into()?).await?;
        Ok(Response::new(answer.into()))
    }

    type FetchBlocksStream = BoxStream<'static, Result<FetchBlocksResponse, Status>>;

    async fn fetch_blocks(
        &self,
        request: Request<FetchBlocksRequest>,
    ) -> Result<Response<Self::FetchBlocksStream>, Status> {
        let call = call_of(&request)?;
        let chunks = self.api.fetch_blocks(call, request.into_inner().try_into()?).await?;
        let chunks = chunks.map(|chunk| match chunk {
            Ok(blocks) => Ok(FetchBlocksResponse { blocks }),
            Err(error) => Err(error.into()),
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn push_commit(&self, request: Request<PushCommitRequest>) -> Result<Response<PushCommitResponse>, Status> {
        let call = call_of(&request)?;
        self.api.push_commit(call, request.into_inner().index).await?;
        Ok(Response::new(PushCommitResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_in_every_unit_and_nonsense_is_none() {
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
