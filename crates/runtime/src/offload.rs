//! Work that must not run on the actor thread: blocking calls and network I/O.

use crate::{
    causality::{carry, outside_flow},
    exit::ExitReason,
};
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Where blocking work runs.
#[derive(Clone, Debug)]
pub enum Offload {
    /// On the blocking threads of this runtime.
    Threads(Handle),
    /// On the caller, after the time that the simulated device takes: where a blocking thread would stop the virtual
    /// clock and make the order of events depend on the machine. What ends before that time has passed is not done.
    Simulated(watch::Receiver<Duration>),
}

impl Offload {
    /// Runs `work` to its end; a panic in it fails this piece of work and nothing else.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, ExitReason> {
        match self {
            Self::Threads(runtime) => runtime.spawn_blocking(work).await.map_err(ExitReason::from),
            Self::Simulated(time) => {
                let time = *time.borrow();
                if !time.is_zero() {
                    sleep(time).await;
                }
                catch_unwind(AssertUnwindSafe(work)).map_err(|panic| ExitReason::panicked(&*panic))
            }
        }
    }
}

/// Where network I/O runs: a runtime of its own, so that encryption and framing do not delay actors.
#[derive(Clone, Debug)]
pub struct IoTasks {
    runtime: Handle,
    ended: CancellationToken,
}

impl IoTasks {
    /// On this runtime.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, ended: CancellationToken::new() }
    }

    /// Runs a task; it is cancelled when the returned future is dropped.
    pub fn spawn<R, T>(&self, task: T) -> impl Future<Output = Result<R, ExitReason>> + use<R, T>
    where
        R: Send + 'static,
        T: Future<Output = R> + Send + 'static,
    {
        let handle: JoinHandle<Option<R>> = self.runtime.spawn(self.until_ended(carry(task)));
        let handle = AbortOnDropHandle::new(handle);
        async move { handle.await.map_err(ExitReason::from)?.ok_or(ExitReason::Cancelled) }
    }

    /// Runs a task to its end, even if its caller is gone. It belongs to no flow.
    pub fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(self.until_ended(outside_flow(|| carry(task)))));
    }

    /// Ends every task, present and future: none is polled again.
    pub fn end(&self) {
        self.ended.cancel();
    }

    fn until_ended<R, T>(&self, task: T) -> impl Future<Output = Option<R>> + Send + use<R, T>
    where
        T: Future<Output = R> + Send,
    {
        let ended = self.ended.clone();
        async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => None,
                result = task => Some(result),
            }
        }
    }
}
