//! What PeerHeights is made from.

use super::{
    PeerHeights, Settings,
    shell::{Mailboxes, Stored},
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
        let (node, core, settings) = (node.clone(), core.clone(), settings.clone());
        async move {
            let stored = node.read(|store| {
                let own_height = store.watermarks()?.highest_synced.index;
                Ok(Stored { own_height, standings: store.peers(PeerList::Standings)? })
            });
            let stored = stored.await?;
            let actors = &node.actors;
            let mailboxes = Mailboxes {
                links: node.links.links(),
                io: node.io.clone(),
                target: actors.state_sync.ordered_sender(NAME),
                ban: actors.connections.ordered_sender(NAME),
                unban: actors.connections.ordered_sender(NAME),
                useful: vec![actors.connections.ordered_sender(NAME), actors.grpc_adapter.ordered_sender(NAME)],
                get_connected: actors.connections.ordered_sender(NAME),
                update_peers: actors.store_writer.ordered_sender(NAME),
            };
            Ok(PeerHeights::new(
                core.with_chosen_peers(&node.chosen_peers()),
                stored,
                settings,
                mailboxes,
                node.runtime_context.clone(),
            ))
        }
    })
}
