//! What Discovery is made from.

use super::{Discovery, Settings, shell::Wiring};
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
        let actors = &node.actors;
        let wiring = Wiring {
            links: node.links.links(),
            io: node.io.clone(),
            dial: actors.connections.mailbox(NAME),
            get_connected: actors.connections.mailbox(NAME),
            subscribe_committee: actors.state_sync.mailbox(NAME),
            verify: actors.verifier.mailbox(NAME),
            update_peers: actors.store_writer.mailbox(NAME),
        };
        let book = node.read(|store| store.peers(PeerList::Infos));
        let (core, runtime_context) = (core.clone(), node.runtime_context.clone());
        let (key, own_info) = (key.clone(), own_info.clone());
        async move {
            let settings = Settings { key, own_info, timeout, book: book.await? };
            Ok(Discovery::new(core, settings, wiring, runtime_context))
        }
    })
}
