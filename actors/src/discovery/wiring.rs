//! What Discovery is made from.

use super::{Discovery, Settings, shell::Mailboxes};
use crate::wiring::Resources;
use soma_protocol::{
    Core,
    discovery::{Config, Discovery as DiscoveryCore},
};
use soma_runtime::{ChildSpec, Slot};
use soma_store::PeerList;
use soma_types::{NodeInfo, SigningKey};
use std::{sync::Arc, time::Duration};

/// How Discovery is made: with the address book that the store has.
pub fn spec(
    slot: Slot<Discovery>,
    resources: &Resources,
    core: Config,
    key: Arc<SigningKey>,
    own_info: NodeInfo,
    timeout: Duration,
) -> ChildSpec<Discovery> {
    const NAME: &str = DiscoveryCore::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let (node, core, key, own_info) = (node.clone(), core.clone(), key.clone(), own_info.clone());
        async move {
            let book = node.read(|store| store.peers(PeerList::Infos)).await?;
            let (store, offload) = (node.store.clone(), node.offload.clone());
            let settings = Settings { key, own_info, store, offload, timeout, book };
            let actors = &node.actors;
            let mailboxes = Mailboxes {
                links: node.links.links(),
                io: node.io.clone(),
                dial: actors.connections.ordered_sender(NAME),
                get_connected: actors.connections.ordered_sender(NAME),
                subscribe_committee: actors.state_sync.ordered_sender(NAME),
                verify: actors.verifier.mailbox(NAME),
                update_peers: actors.store_writer.ordered_sender(NAME),
            };
            let core = core.with_chosen_peers(&node.chosen_peers());
            Ok(Discovery::new(core, settings, mailboxes, node.runtime_context.clone()))
        }
    })
}
