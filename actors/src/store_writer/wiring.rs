//! What StoreWriter is made from.

use super::StoreWriter;
use crate::wiring::Resources;
use soma_runtime::{ChildSpec, Slot};

/// How StoreWriter is made.
pub fn spec(slot: Slot<StoreWriter>, resources: &Resources) -> ChildSpec<StoreWriter> {
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let writer = StoreWriter::new(node.store.clone(), node.offload.clone(), node.runtime_context.clone());
        async move { Ok(writer) }
    })
}
