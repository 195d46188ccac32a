//! What GrpcAdapter is made from.

use super::{GrpcAdapter, InboundGate, Service, call_flows::CallFlows, service::ServiceWiring};
use crate::wiring::Resources;
use soma_protocol::{
    Core,
    grpc_adapter::{Config, Serving},
};
use soma_runtime::{ChildSpec, Slot};
use std::sync::Arc;

/// How GrpcAdapter is made.
pub fn spec(slot: Slot<GrpcAdapter>, resources: &Resources, core: Config) -> ChildSpec<GrpcAdapter> {
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let subscribe_committee = node.actors.state_sync.ordered_sender(Serving::NAME);
        let core = core.clone().with_chosen_peers(&node.chosen_peers());
        let adapter = GrpcAdapter::new(core, subscribe_committee, node.runtime_context.clone());
        async move { Ok(adapter) }
    })
}

/// What a listener gives connections and calls to.
pub fn gate(resources: &Resources, spreads_messages: bool) -> Arc<InboundGate> {
    let actors = &resources.actors;
    let service = Service::new(ServiceWiring {
        store: resources.store.clone(),
        offload: resources.offload.clone(),
        calls: actors.grpc_adapter.mailbox("service"),
        known_peers: actors.discovery.mailbox("service"),
        pushed: actors.peer_heights.mailbox("service"),
        streams: spreads_messages.then(|| actors.broadcast.mailbox("service")),
        objects: resources.objects.clone(),
    });
    let connections = &actors.connections;
    let (arrived, closed) = (connections.mailbox("transport"), connections.mailbox("transport"));
    Arc::new(InboundGate::new(arrived, closed, Arc::new(CallFlows(Arc::new(service))), &resources.io))
}
