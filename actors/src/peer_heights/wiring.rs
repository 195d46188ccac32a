//! What PeerHeights is made from.

use super::{
    PeerHeights, Settings,
    shell::{Stored, Wiring},
};
use crate::wiring::Resources;
use soma_protocol::{
    Core,
    peer_heights::{Config, PeerHeights as PeerHeightsCore},
};
use soma_runtime::{ChildSpec, Slot};
use soma_store::PeerList;

/// How PeerHeights is made: with its own height and the standings that the store has.
pub fn spec(
    slot: Slot<PeerHeights>,
    resources: &Resources,
    core: Config,
    settings: Settings,
) -> ChildSpec<PeerHeights> {
    const NAME: &str = PeerHeightsCore::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let actors = &node.actors;
        let wiring = Wiring {
            links: node.links.links(),
            io: node.io.clone(),
            target: actors.state_sync.mailbox(NAME),
            ban: actors.connections.mailbox(NAME),
            useful: vec![actors.connections.mailbox(NAME), actors.grpc_adapter.mailbox(NAME)],
            get_connected: actors.connections.mailbox(NAME),
            update_peers: actors.store_writer.mailbox(NAME),
        };
        let stored = node.read(|store| {
            let own_height = store.watermarks()?.highest_synced.index;
            Ok(Stored { own_height, standings: store.peers(PeerList::Standings)? })
        });
        let (core, settings, runtime_context) = (core.clone(), settings.clone(), node.runtime_context.clone());
        async move { Ok(PeerHeights::new(core, stored.await?, settings, wiring, runtime_context)) }
    })
}
