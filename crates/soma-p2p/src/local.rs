//! A node on the caller's thread: for simulation, where many nodes live in one thread and in virtual time.

use crate::{
    handle::Handle,
    node::Node,
    node_parts::{NodeParts, NodeResources},
    shutdown_report::ShutdownReport,
    start_error::StartError,
};
use soma_actors::verifier::PoolSize;
use soma_runtime::{IoTasks, Offload, RuntimeContext};
use std::time::Duration;
use tokio::{runtime, sync::watch};

/// Resources of a simulated node, besides the current thread.
pub struct LocalResources {
    /// Its time, its faults.
    pub runtime_context: RuntimeContext,
    /// How long each read or write of its store takes, from now on: sent by the simulation.
    pub disk_time: watch::Receiver<Duration>,
    /// Threads for checks; none: they run on the current thread, so that equal runs are equal.
    pub check_threads: Option<usize>,
}

/// A node whose actors, I/O, checks and reads of the store all run on the current thread's
/// [`LocalSet`](tokio::task::LocalSet).
///
/// Dropping it together with that set is a crash: nothing of the node is polled again, its connections break, and
/// only durable data is left.
pub struct LocalSystem {
    node: Option<Node>,
    handle: Handle,
}

impl LocalSystem {
    pub(crate) async fn start(parts: NodeParts, local_resources: LocalResources) -> Result<Self, StartError> {
        let node_resources = NodeResources {
            io: IoTasks::new(runtime::Handle::current()),
            offload: Offload::Simulated(local_resources.disk_time),
            pool: local_resources.check_threads.map_or(PoolSize::Inline, PoolSize::Threads),
            runtime_context: local_resources.runtime_context,
            // A simulation records with a recorder of its own.
            record: watch::channel(None).0,
        };
        let node = Node::start(parts, node_resources).await?;
        Ok(Self { handle: node.handle(), node: Some(node) })
    }

    /// A handle to pass around.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops in order, as [`ActorSystem::shutdown`](crate::ActorSystem::shutdown) does.
    pub async fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        match self.node.take() {
            Some(node) => ShutdownReport { overdue: node.shutdown(deadline).await, ..ShutdownReport::default() },
            None => ShutdownReport::default(),
        }
    }
}

impl Drop for LocalSystem {
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            node.cut_off();
        }
    }
}
