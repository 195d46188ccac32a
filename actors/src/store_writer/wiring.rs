//! What StoreWriter is made from.

use super::StoreWriter;
use crate::wiring::Resources;
use soma_runtime::{ChildSpec, Slot};
use soma_store::Retention;

/// How StoreWriter is made.
pub fn spec(
    slot: Slot<StoreWriter>,
    resources: &Resources,
    retention: Retention,
    archives: bool,
) -> ChildSpec<StoreWriter> {
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let (store, offload) = (node.store.clone(), node.offload.clone());
        let writer = StoreWriter::new(store, offload, retention, archives, node.runtime_context.clone());
        async move { Ok(writer) }
    })
}
