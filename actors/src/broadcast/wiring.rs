//! What Broadcast is made from.

use super::{
    Broadcast, Publisher,
    shell::{Mailboxes, Settings},
};
use crate::wiring::Resources;
use soma_protocol::{
    Core,
    broadcast::{Broadcast as BroadcastCore, Config},
};
use soma_runtime::{ChildSpec, Slot};
use soma_types::PublicKey;
use std::time::Duration;
use tokio::sync::watch;

/// How Broadcast is made: without streams and messages.
pub fn spec(
    slot: Slot<Broadcast>,
    resources: &Resources,
    core: Config,
    protocol_keys: Vec<PublicKey>,
    timeout: Duration,
    publisher: watch::Sender<Option<Publisher>>,
) -> ChildSpec<Broadcast> {
    const NAME: &str = BroadcastCore::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let actors = &node.actors;
        let mailboxes = Mailboxes {
            links: node.links.links(),
            io: node.io.clone(),
            verify: actors.verifier.mailbox(NAME),
            report: actors.peer_heights.ordered_sender(NAME),
            get_connected: actors.connections.ordered_sender(NAME),
            subscribe_committee: actors.state_sync.ordered_sender(NAME),
            own: actors.broadcast.clone(),
            publisher: publisher.clone(),
        };
        let settings = Settings {
            chain: node.chain,
            own: core.own,
            protocol_keys: protocol_keys.clone(),
            max_message_bytes: core.max_message_bytes,
            timeout,
        };
        let broadcast = Broadcast::new(core.clone(), settings, mailboxes, node.runtime_context.clone());
        async move { Ok(broadcast) }
    })
}
