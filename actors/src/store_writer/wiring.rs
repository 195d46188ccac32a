//! What StoreWriter is made from.

use super::StoreWriter;
use crate::wiring::Resources;
use soma_runtime::{ChildSpec, Slot};
use soma_store::Retention;

/// How StoreWriter is made.
pub fn spec(slot: Slot<StoreWriter>, resources: &Resources, retention: Retention) -> ChildSpec<StoreWriter> {
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let node = node.clone();
        async move {
            let watermarks = node.read(|store| store.watermarks()).await?;
            let lowest = watermarks.lowest_available;
            Ok(StoreWriter::new(node.store, node.offload, retention, lowest, node.runtime_context))
        }
    })
}
