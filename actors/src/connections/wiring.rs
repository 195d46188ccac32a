//! What Connections is made from.

use super::{Connections, Settings, shell::Wiring};
use crate::wiring::Resources;
use soma_network::Transport;
use soma_protocol::{
    Core,
    connections::{Config, Connections as ConnectionsCore},
};
use soma_runtime::{ChildSpec, Slot};
use std::sync::Arc;

/// How Connections is made.
pub fn spec(
    slot: Slot<Connections>,
    resources: &Resources,
    core: Config,
    settings: Settings,
    transport: Arc<dyn Transport>,
) -> ChildSpec<Connections> {
    const NAME: &str = ConnectionsCore::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let actors = &node.actors;
        let wiring = Wiring {
            transport: transport.clone(),
            registry: node.links.clone(),
            io: node.io.clone(),
            subscribers: vec![actors.peer_heights.mailbox(NAME), actors.discovery.mailbox(NAME)],
            dial_failed: actors.discovery.mailbox(NAME),
            probed: actors.discovery.mailbox(NAME),
            subscribe_committee: actors.state_sync.mailbox(NAME),
            report: actors.peer_heights.mailbox(NAME),
        };
        let connections = Connections::new(core.clone(), settings.clone(), wiring, node.runtime_context.clone());
        async move { Ok(connections) }
    })
}
