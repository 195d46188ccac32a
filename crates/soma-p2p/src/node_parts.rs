//! The parts and the resources of a node.

use crate::config::Config;
use soma_actors::verifier::PoolSize;
use soma_archive::SegmentStorage;
use soma_network::Transport;
use soma_replay::Recorder;
use soma_runtime::{IoTasks, MetricsRecorder, Offload, PlannedFaults, RuntimeContext};
use soma_store::{ObjectSource, Store};
use soma_types::{Genesis, SigningKey};
use soma_verify::{MessageValidator, TransactionVerifier};
use std::sync::Arc;
use tokio::sync::watch;

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) config: Config,
    pub(crate) genesis: Genesis,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) protocol_keys: Vec<SigningKey>,
    pub(crate) transactions: Arc<dyn TransactionVerifier>,
    pub(crate) validator: Arc<dyn MessageValidator>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) archive: Option<Arc<dyn SegmentStorage>>,
    pub(crate) objects: Option<Arc<dyn ObjectSource>>,
    pub(crate) seed: u64,
    pub(crate) faults: Option<PlannedFaults>,
    pub(crate) metrics: Option<MetricsRecorder>,
}

/// What a node runs on.
pub(crate) struct NodeResources {
    pub(crate) io: IoTasks,
    pub(crate) offload: Offload,
    pub(crate) pool: PoolSize,
    pub(crate) runtime_context: RuntimeContext,
    /// Sets what the actors are recorded with.
    pub(crate) record: watch::Sender<Option<Recorder>>,
}
