//! Each call of a peer begins a flow, whose spans follow it through the actors.

use async_trait::async_trait;
use bytes::Bytes;
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    FrameStream, Hello, KnownPeers, ObjectIds, ObjectStream, PeerApi,
};
use soma_protocol::grpc_adapter::Rpc;
use soma_replay::{FLOW_TARGET, Flow};
use soma_runtime::causality::in_flow;
use soma_types::{CommitIndex, CommitRef, SnapshotInfo};
use std::sync::Arc;
use tracing::debug_span;

/// Answers calls as another does, each in a flow of its own.
pub(super) struct CallFlows(pub(super) Arc<dyn PeerApi>);

/// Begins the flow of a call.
fn begin(call: &Call, rpc: Rpc) -> Flow {
    Flow::begin(debug_span!(
        target: FLOW_TARGET, "call", otel.name = ?rpc, ?rpc, peer = %call.peer.short(), commit = tracing::field::Empty
    ))
}

#[async_trait]
impl PeerApi for CallFlows {
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError> {
        in_flow(begin(&call, Rpc::GetKnownPeers), self.0.get_known_peers(call, own_info)).await
    }

    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError> {
        in_flow(begin(&call, Rpc::GetCommitAvailability), self.0.get_commit_availability(call)).await
    }

    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        in_flow(begin(&call, Rpc::GetCommitInfo), self.0.get_commit_info(call, index)).await
    }

    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        in_flow(begin(&call, Rpc::FetchCommits), self.0.fetch_commits(call, range)).await
    }

    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        in_flow(begin(&call, Rpc::FetchBlocks), self.0.fetch_blocks(call, refs)).await
    }

    async fn fetch_objects(&self, call: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        in_flow(begin(&call, Rpc::FetchObjects), self.0.fetch_objects(call, ids)).await
    }

    async fn get_snapshots(&self, call: Call) -> Result<Vec<SnapshotInfo>, CallError> {
        in_flow(begin(&call, Rpc::GetSnapshots), self.0.get_snapshots(call)).await
    }

    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError> {
        let flow = begin(&call, Rpc::PushCommit);
        flow.record("commit", index);
        in_flow(flow, self.0.push_commit(call, index)).await
    }

    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        in_flow(begin(&call, Rpc::GetEpochProofs), self.0.get_epoch_proofs(call, request)).await
    }

    async fn broadcast(
        &self,
        call: Call,
        hello: Hello,
        frames: FrameStream,
    ) -> Result<(Hello, FrameStream), CallError> {
        // Its messages are many calls in one, and none of them belongs to it.
        self.0.broadcast(call, hello, frames).await
    }
}
