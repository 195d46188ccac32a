//! The CPU pool.

use soma_messages::causality::{current, following};
use soma_supervision::{Census, LeftBehind};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Longest time for one check, with one before it on the same thread: a hundred times what the largest takes. One that
/// takes longer, say in a transaction verifier of the node's own, does not end.
const MAX_CHECK_TIME: Duration = Duration::from_secs(60);

/// Where checks run.
#[derive(Clone)]
pub(crate) enum CpuPool {
    /// On threads of their own.
    Threads(Arc<rayon::ThreadPool>),
    /// On the actor thread.
    Inline,
}

/// What a CPU pool is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSize {
    /// So many threads of its own.
    Threads(usize),
    /// The actor thread: for simulation, where the order of events must not depend on the machine.
    Inline,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("the CPU pool's threads cannot be started: {0}")]
pub struct PoolError(#[from] rayon::ThreadPoolBuildError);

impl PoolSize {
    /// A pool of this size.
    pub(crate) fn build(self) -> Result<CpuPool, PoolError> {
        let Self::Threads(threads) = self else { return Ok(CpuPool::Inline) };
        let name = |index| format!("soma-verify-{index}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
        Ok(CpuPool::Threads(Arc::new(pool)))
    }
}

impl CpuPool {
    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.current_num_threads(),
            Self::Inline => 1,
        }
    }

    /// Jobs that may be on the pool at once: one for each thread, and one more each that is ready when it ends.
    pub(crate) fn permits(&self) -> usize {
        match self {
            Self::Threads(pool) => 2 * pool.current_num_threads(),
            Self::Inline => 1,
        }
    }

    /// Runs the job.
    pub(crate) async fn run<R: Send + 'static>(
        self,
        job: impl FnOnce() -> R + Send + 'static,
        census: Census,
    ) -> JobEnd<R> {
        let (done, mut ended) = oneshot::channel();
        let cause = current();
        let on_thread = Arc::new(OnceLock::new());
        let left_behind = LeftBehind::new(census);
        let (thread, leaving) = (on_thread.clone(), left_behind.clone());
        let work = move || {
            // Set once, here.
            let _ = thread.set(thread::current().name().unwrap_or("unnamed").to_owned());
            // What the job answers follows from what asked for it, on whatever thread it runs.
            let result = catch_unwind(AssertUnwindSafe(|| following(cause, job))).ok();
            leaving.come_back();
            let _ = done.send(result);
        };
        match self {
            Self::Threads(pool) => pool.spawn(work),
            Self::Inline => work(),
        }
        let end = match timeout(MAX_CHECK_TIME, &mut ended).await {
            Ok(end) => end,
            Err(_) if left_behind.leave() => {
                let thread = on_thread.get().cloned().unwrap_or_else(|| "none yet".into());
                return JobEnd::Blocked { thread };
            }
            // It has come back at this very moment.
            Err(_) => ended.await,
        };
        match end {
            Ok(Some(result)) => JobEnd::Done(result),
            Ok(None) | Err(_) => JobEnd::Panicked,
        }
    }
}

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JobEnd<R> {
    Done(R),
    Panicked,
    /// It did not.
    Blocked {
        thread: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_check_that_panics_costs_itself_and_the_pool_lives_on() {
        let pool = PoolSize::Threads(1).build().unwrap();
        let census = Census::default();
        assert_eq!(pool.clone().run(|| panic!("on purpose"), census.clone()).await, JobEnd::<()>::Panicked);
        assert_eq!(pool.run(|| 7, census).await, JobEnd::Done(7));
    }

    // In virtual time the limit has passed as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_end_is_reported_with_its_thread_and_no_longer_counted_when_it_does() {
        let pool = PoolSize::Threads(1).build().unwrap();
        let census = Census::default();
        let (release, released) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let job = move || {
            let _ = started.send(());
            // The error is that the sender was dropped.
            let _ = released.recv();
            // Dropped when the job is.
            let _ = &ended;
        };
        let running = pool.run(job, census.clone());
        let running = tokio::spawn(running);
        // The thread has it before time passes.
        tokio::task::yield_now().await;
        has_started.recv().unwrap();
        assert_eq!(running.await.unwrap(), JobEnd::Blocked { thread: "soma-verify-0".into() });
        assert_eq!(census.blocked(), 1);
        drop(release);
        // Disconnected: the job is done.
        let _ = has_ended.recv() as Result<(), _>;
        while census.blocked() > 0 {
            std::thread::yield_now();
        }
    }
}
