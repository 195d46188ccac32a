//! Access to the store for reading where its history begins.

use soma_runtime::Offload;
use soma_store::Store;
use std::sync::Arc;

/// Reads the beginning of the stored history.
#[derive(Clone)]
pub(crate) struct HistoryReader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) offload: Offload,
}
