//! Work that must not run on the actor thread: blocking calls and network I/O.

use crate::ExitReason;
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

/// Where blocking work runs.
#[derive(Clone, Debug)]
pub enum Offload {
    /// On the blocking threads of this runtime.
    Threads(Handle),
    /// At once, on the caller: for stores in memory and for simulation, where a blocking thread would stop the
    /// virtual clock and make the order of events depend on the machine.
    Inline,
}

impl Offload {
    /// Runs `work` to its end; a panic in it fails this piece of work and nothing else.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, ExitReason> {
        match self {
            Self::Threads(runtime) => runtime.spawn_blocking(work).await.map_err(ExitReason::from),
            Self::Inline => catch_unwind(AssertUnwindSafe(work)).map_err(|panic| ExitReason::panicked(&*panic)),
        }
    }
}

/// Where network I/O runs: a runtime of its own, so that encryption and framing do not delay actors.
#[derive(Clone, Debug)]
pub struct IoTasks(Handle);

impl IoTasks {
    /// On this runtime.
    pub fn new(runtime: Handle) -> Self {
        Self(runtime)
    }

    /// Runs a task; it is cancelled when the returned future is dropped.
    pub fn spawn<R, T>(&self, task: T) -> impl Future<Output = Result<R, ExitReason>> + use<R, T>
    where
        R: Send + 'static,
        T: Future<Output = R> + Send + 'static,
    {
        let handle: JoinHandle<R> = self.0.spawn(task);
        let handle = AbortOnDropHandle::new(handle);
        async move { handle.await.map_err(ExitReason::from) }
    }

    /// Runs a task to its end, whoever is still interested.
    pub fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(task));
    }
}
