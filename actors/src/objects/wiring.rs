//! What Objects is made from.

use super::{
    Objects,
    shell::{Mailboxes, Settings},
};
use crate::wiring::Resources;
use soma_protocol::{
    Core,
    objects::{Config, Objects as ObjectsCore},
};
use soma_runtime::{ChildSpec, Slot};
use std::time::Duration;

/// How Objects is made: without requests and calls.
pub fn spec(slot: Slot<Objects>, resources: &Resources, core: Config, timeout: Duration) -> ChildSpec<Objects> {
    const NAME: &str = ObjectsCore::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let actors = &node.actors;
        let mailboxes = Mailboxes {
            links: node.links.links(),
            io: node.io.clone(),
            offload: node.offload.clone(),
            verify: actors.verifier.mailbox(NAME),
            report: actors.peer_heights.ordered_sender(NAME),
            get_connected: actors.connections.ordered_sender(NAME),
            subscribe_committee: actors.state_sync.ordered_sender(NAME),
        };
        let settings = Settings { chain: node.chain, timeout };
        let objects = Objects::new(core.clone(), settings, mailboxes, node.runtime_context.clone());
        async move { Ok(objects) }
    })
}
