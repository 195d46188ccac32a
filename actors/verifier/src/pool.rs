//! The CPU pool.

use soma_messages::causality::{current, following};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::sync::oneshot;

/// One piece of work, which answers whoever asked for it.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Where checks run.
#[derive(Clone)]
pub enum CpuPool {
    /// On threads of their own.
    Threads(Arc<rayon::ThreadPool>),
    /// On the actor thread: for simulation, where the order of events must not depend on the machine.
    Inline,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("the CPU pool's threads cannot be started: {0}")]
pub struct PoolError(#[from] rayon::ThreadPoolBuildError);

impl CpuPool {
    /// A pool of `threads`.
    pub fn threads(threads: usize) -> Result<Self, PoolError> {
        let name = |index| format!("soma-verify-{index}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
        Ok(Self::Threads(Arc::new(pool)))
    }

    /// Jobs that may be on the pool at once: one for each thread, and one more each that is ready when it ends.
    pub fn permits(&self) -> usize {
        match self {
            Self::Threads(pool) => 2 * pool.current_num_threads(),
            Self::Inline => 1,
        }
    }

    /// Runs the job; resolves with whether it panicked.
    pub(crate) async fn run(self, job: Job) -> bool {
        let (done, ended) = oneshot::channel();
        let cause = current();
        let work = move || {
            // What the job answers follows from what asked for it, on whatever thread it runs.
            let panicked = catch_unwind(AssertUnwindSafe(|| following(cause, job))).is_err();
            let _ = done.send(panicked);
        };
        match self {
            Self::Threads(pool) => pool.spawn(work),
            Self::Inline => work(),
        }
        ended.await.unwrap_or(true)
    }
}
