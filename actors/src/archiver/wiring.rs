//! What the Archiver is made from.

use super::{Archiver, shell::Access};
use crate::wiring::Resources;
use soma_archive::SegmentStorage;
use soma_protocol::{
    Core,
    archiver::{Archiver as ArchiverCore, Config},
};
use soma_runtime::{ChildSpec, Slot};
use std::sync::Arc;

/// How the Archiver is made: from the end of the stored chain.
pub fn spec(
    slot: Slot<Archiver>,
    resources: &Resources,
    core: Config,
    storage: Arc<dyn SegmentStorage>,
) -> ChildSpec<Archiver> {
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let (node, core, storage) = (node.clone(), core.clone(), storage.clone());
        async move {
            let highest = node.read(|store| Ok(store.watermarks()?.highest_synced.index)).await?;
            let access = Access {
                chain: node.chain,
                storage,
                store: node.store.clone(),
                io: node.io.clone(),
                offload: node.offload.clone(),
            };
            let archived = node.actors.store_writer.ordered_sender(ArchiverCore::NAME);
            Ok(Archiver::new(core, highest, access, archived, node.runtime_context.clone()))
        }
    })
}
