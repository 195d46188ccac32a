//! What Connections is made from.

use super::{Connections, Settings, shell::Mailboxes};
use crate::wiring::{Resources, by_receiver};
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
        let mailboxes = Mailboxes {
            transport: transport.clone(),
            registry: node.links.clone(),
            io: node.io.clone(),
            subscribers: by_receiver([
                actors.peer_heights.ordered_sender(NAME),
                actors.discovery.ordered_sender(NAME),
                actors.broadcast.ordered_sender(NAME),
                actors.objects.ordered_sender(NAME),
            ]),
            dial_failed: actors.discovery.ordered_sender(NAME),
            probed: actors.discovery.ordered_sender(NAME),
            subscribe_committee: actors.state_sync.ordered_sender(NAME),
            report: actors.peer_heights.ordered_sender(NAME),
        };
        let core = core.clone().with_chosen_peers(&node.chosen_peers());
        let connections = Connections::new(core, settings.clone(), mailboxes, node.runtime_context.clone());
        async move { Ok(connections) }
    })
}
