//! The CPU pool: threads that run checks, and the present check of each thread.
//!
//! ```text
//!   job --> queue --> thread --at--> place (transaction of a block), step by step
//!             |          ^
//!             |          +-- watched: no step for SLOW_AFTER? Slow: a further thread takes its place at the queue
//!             +--> further thread, until the slow one comes back
//! ```
//!
//! A job is never given up: an embedder's transaction verifier may take as long as it likes for one transaction, and
//! its verdict counts. Only the time at work counts, not that in the queue.

use crossbeam_channel::{Receiver, Sender};
use crossbeam_utils::atomic::AtomicCell;
use soma_protocol::verifier::TransactionPlace;
use soma_runtime::causality::{self, following};
use soma_runtime::{LeftBehind, RuntimeContext, WorkerThread};
use soma_types::BlockRef;
use soma_verify::CheckObserver;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::sleep};

/// How long a job may stay at one step before it counts as slow: a hundred times what the largest takes.
const SLOW_AFTER: Duration = Duration::from_secs(30);

/// The same for a job that others of its kind must not wait for behind: see [`RunningJob::slow_after`].
pub(crate) const SLOW_MESSAGE_CHECK: Duration = Duration::from_millis(100);

/// How long a check of blocks goes on before it gives what it has done and leaves the rest for later: many times what
/// a part takes whose transactions are certificates, and soon enough that others get their turn.
const SLICE: Duration = Duration::from_millis(250);

/// Threads beyond the pool's size while others are slow: each slow thread keeps its stack and its check.
const MAX_FURTHER_THREADS: usize = 8;

/// What a CPU pool is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSize {
    /// A pool with this many threads of its own.
    Threads(usize),
    /// The actor thread: for simulation, where the order of events must not depend on the machine.
    Inline,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("the CPU pool's threads cannot be started: {0}")]
pub struct PoolError(#[from] io::Error);

/// A job for one of the threads. It returns whether the thread goes on.
type Job = Box<dyn FnOnce(&ThreadPlace) -> bool + Send>;

/// What a thread is at.
type ThreadPlace = Arc<AtomicCell<Option<TransactionPlace>>>;

/// Where checks run. Dropping it ends what runs at its next step, and leaves out what waits.
pub(crate) enum CpuPool {
    /// On threads of their own.
    Threads(Threads),
    /// On the actor thread.
    Inline,
}

pub(crate) struct Threads {
    size: usize,
    queue: Sender<Job>,
    crew: Arc<Crew>,
}

/// What all threads of a pool share.
struct Crew {
    jobs: Receiver<Job>,
    /// The pool is gone, and no job will run.
    over: AtomicBool,
    /// Threads started so far.
    started: AtomicUsize,
    /// Threads beyond the pool's size.
    further: AtomicUsize,
    runtime_context: RuntimeContext,
}

impl PoolSize {
    /// A pool of this size.
    pub(crate) fn build(self, runtime_context: &RuntimeContext) -> Result<CpuPool, PoolError> {
        let Self::Threads(size) = self else { return Ok(CpuPool::Inline) };
        // As many as there are permits.
        let (queue, jobs) = crossbeam_channel::bounded(2 * size);
        let crew = Crew {
            jobs,
            over: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            further: AtomicUsize::new(0),
            runtime_context: runtime_context.clone(),
        };
        let pool = Threads { size, queue, crew: Arc::new(crew) };
        for _ in 0..size {
            pool.crew.start()?;
        }
        Ok(CpuPool::Threads(pool))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.crew.over.store(true, Ordering::Release);
    }
}

impl Crew {
    /// Starts one thread more.
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("soma-verify-{number}");
        let place = ThreadPlace::default();
        let counted = {
            let (name, place) = (name.clone(), place.clone());
            self.runtime_context.child_counts().worker(move || match place.load() {
                Some(place) => format!("thread {name}, which is at {place}"),
                None => format!("thread {name}"),
            })
        };
        let crew = self.clone();
        thread::Builder::new().name(name).spawn(move || crew.work(&place, counted)).map(drop)
    }

    fn work(&self, place: &ThreadPlace, counted: WorkerThread) {
        let _entered = self.runtime_context.enter_thread();
        while let Ok(job) = self.jobs.recv() {
            if self.over.load(Ordering::Acquire) || !job(place) {
                break;
            }
        }
        drop(counted);
    }
}

impl CpuPool {
    /// How many threads it has, while none is slow.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.size,
            Self::Inline => 1,
        }
    }

    /// Jobs that may be on the pool at once: one for each thread, and one more each that is ready when it ends.
    pub(crate) fn permits(&self) -> usize {
        match self {
            Self::Threads(pool) => 2 * pool.size,
            Self::Inline => 1,
        }
    }

    /// Begins a job.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut JobWatch) -> R + Send + 'static,
    ) -> RunningJob<R> {
        let (done, ended) = oneshot::channel();
        let origin = causality::origin("verifier");
        let progress = Arc::new(Progress::default());
        // The cause of the answer is the request, on whatever thread the job runs.
        let run = move |watch: &mut JobWatch| catch_unwind(AssertUnwindSafe(|| following(origin, || job(watch)))).ok();
        match self {
            Self::Inline => {
                let mut watch = JobWatch { progress: progress.clone(), place: ThreadPlace::default(), limits: None };
                let _ = done.send(run(&mut watch));
                RunningJob { ended, progress, left_behind: None, slow_after: SLOW_AFTER }
            }
            Self::Threads(Threads { queue, crew, .. }) => {
                let left_behind = LeftBehind::new(crew.runtime_context.child_counts().clone());
                let (leaving, follows, crew_of_job) = (left_behind.clone(), progress.clone(), crew.clone());
                let work = move |place: &ThreadPlace| {
                    let slice_end = crew_of_job.runtime_context.clock().monotonic() + SLICE;
                    let limits = Some(Limits { crew: crew_of_job.clone(), slice_end });
                    // Set once, here.
                    let _ = follows.place.set(place.clone());
                    let mut watch = JobWatch { progress: follows, place: place.clone(), limits };
                    watch.step(None);
                    let result = run(&mut watch);
                    place.store(None);
                    let was_left = leaving.come_back();
                    // The asker may have ended.
                    let _ = done.send(result);
                    // Another thread has taken this one's place.
                    let is_surplus = was_left && take_one(&crew_of_job.further);
                    !is_surplus
                };
                // The queue has room for every permit. Without room the asker would get no answer, and ask again.
                let _ = queue.try_send(Box::new(work));
                let left_behind = Some((left_behind, crew.clone()));
                RunningJob { ended, progress, left_behind, slow_after: SLOW_AFTER }
            }
        }
    }
}

/// Counts one down, if it is not 0.
fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1)).is_ok()
}

/// How far a job has got.
#[derive(Default)]
struct Progress {
    /// Steps begun; 0 while it waits.
    steps: AtomicU64,
    /// Where its thread reports its present check.
    place: OnceLock<ThreadPlace>,
}

/// Progress that a job reports while it runs.
pub(crate) struct JobWatch {
    progress: Arc<Progress>,
    place: ThreadPlace,
    limits: Option<Limits>,
}

struct Limits {
    crew: Arc<Crew>,
    slice_end: Duration,
}

impl JobWatch {
    /// The job begins a step. Returns whether it is still wanted.
    pub(crate) fn step(&mut self, at: Option<TransactionPlace>) -> bool {
        self.place.store(at);
        self.progress.steps.fetch_add(1, Ordering::Release);
        self.limits.as_ref().is_none_or(|limits| !limits.crew.over.load(Ordering::Acquire))
    }
}

/// Follows a check of blocks that returns the rest after one slice of time.
pub(crate) struct Sliced<'a>(pub(crate) &'a mut JobWatch);

impl CheckObserver for Sliced<'_> {
    fn before_block(&mut self) -> bool {
        self.0.limits.as_ref().is_none_or(|limits| limits.crew.runtime_context.clock().monotonic() < limits.slice_end)
    }

    fn before_transaction(&mut self, block: &BlockRef, position: usize) -> bool {
        self.0.step(Some(TransactionPlace { block: *block, position: position as u32 }))
    }
}

/// Follows a check of blocks that is done in one go.
pub(crate) struct Whole<'a>(pub(crate) &'a mut JobWatch);

impl CheckObserver for Whole<'_> {
    fn before_block(&mut self) -> bool {
        true
    }

    fn before_transaction(&mut self, block: &BlockRef, position: usize) -> bool {
        Sliced(self.0).before_transaction(block, position)
    }
}

/// A job that waits for a thread or runs on one.
pub(crate) struct RunningJob<R> {
    ended: oneshot::Receiver<Option<R>>,
    progress: Arc<Progress>,
    /// The link to its thread, and the thread's colleagues; none on the actor thread.
    left_behind: Option<(LeftBehind, Arc<Crew>)>,
    /// How long it may stay at one step.
    slow_after: Duration,
}

/// What became of a job.
pub(crate) enum JobEvent<R> {
    /// It is done.
    Done(R),
    /// It panicked, or the pool is gone.
    Panicked,
    /// It has been at one step for long. It goes on.
    Slow {
        /// The transaction that it is at, if it is at one.
        at: Option<TransactionPlace>,
        /// The job.
        job: RunningJob<R>,
    },
}

impl<R> RunningJob<R> {
    /// Counts the job as slow after this time at one step.
    pub(crate) fn slow_after(self, slow_after: Duration) -> Self {
        Self { slow_after, ..self }
    }

    /// Waits for its end, or until it is slow.
    pub(crate) async fn next(mut self) -> JobEvent<R> {
        loop {
            let before = self.progress.steps.load(Ordering::Acquire);
            tokio::select! {
                biased;
                end = &mut self.ended => return match end {
                    Ok(Some(result)) => JobEvent::Done(result),
                    Ok(None) | Err(_) => JobEvent::Panicked,
                },
                () = sleep(self.slow_after) => {}
            }
            let steps = self.progress.steps.load(Ordering::Acquire);
            if steps == 0 || steps != before {
                continue;
            }
            if let Some((left_behind, crew)) = &self.left_behind
                && left_behind.leave()
            {
                crew.replace_one();
            }
            let at = self.progress.place.get().and_then(|place| place.load());
            return JobEvent::Slow { at, job: self };
        }
    }
}

impl Crew {
    /// Starts a thread in the place of one that is slow, unless there are too many already.
    fn replace_one(self: &Arc<Self>) {
        let count = |further| (further < MAX_FURTHER_THREADS).then_some(further + 1);
        if self.further.fetch_update(Ordering::AcqRel, Ordering::Acquire, count).is_err() {
            tracing::error!("{MAX_FURTHER_THREADS} checks do not end: no further thread is started for others");
            return;
        }
        if let Err(error) = self.start() {
            take_one(&self.further);
            tracing::error!(%error, "no thread can be started in the place of one that is slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_runtime::{ChildCounts, Clock};
    use soma_types::BlockDigest;
    use std::sync::mpsc;

    /// A pool, and the counts of its threads.
    fn pool(threads: usize) -> (CpuPool, ChildCounts) {
        let runtime_context = RuntimeContext::new(Clock::system());
        (PoolSize::Threads(threads).build(&runtime_context).unwrap(), runtime_context.child_counts().clone())
    }

    fn place(position: u32) -> TransactionPlace {
        TransactionPlace { block: BlockRef { epoch: 0, round: 1, author: 2, digest: BlockDigest([3; 32]) }, position }
    }

    /// A job that waits at a transaction until it is released.
    fn stays_at(
        position: u32,
        released: mpsc::Receiver<()>,
        started: mpsc::Sender<()>,
    ) -> impl FnOnce(&mut JobWatch) -> u32 {
        move |watch| {
            watch.step(Some(place(position)));
            let _ = started.send(());
            // The error is that the sender was dropped.
            let _ = released.recv();
            position
        }
    }

    /// Virtual time may pass before a thread has done what takes it no time: then the job is slow at first.
    async fn done<R>(mut job: RunningJob<R>) -> R {
        loop {
            match job.next().await {
                JobEvent::Done(result) => return result,
                JobEvent::Panicked => panic!("it panicked"),
                JobEvent::Slow { job: goes_on, .. } => job = goes_on,
            }
        }
    }

    #[tokio::test]
    async fn a_check_that_panics_costs_itself_and_the_pool_lives_on() {
        let (pool, _) = pool(1);
        let panics = pool.run(|_| -> () { panic!("on purpose") });
        assert!(matches!(panics.next().await, JobEvent::Panicked));
        assert_eq!(done(pool.run(|_| 7)).await, 7);
    }

    // In virtual time the limit has passed as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn slow_check_is_named_others_go_on_and_its_verdict_counts() {
        let (pool, child_counts) = pool(1);
        let (release, released) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let job = pool.run(stays_at(5, released, started));
        has_started.recv().unwrap();
        let JobEvent::Slow { at, job } = job.next().await else { panic!("it does not end") };
        assert_eq!((at, child_counts.blocked()), (Some(place(5)), 1));
        let named = format!("thread soma-verify-0, which is at {}", place(5));
        assert!(child_counts.workers().contains(&named), "{:?}", child_counts.workers());
        assert_eq!(done(pool.run(|_| 7)).await, 7, "by the further thread");
        release.send(()).unwrap();
        assert_eq!(done(job).await, 5);
        while child_counts.blocked() > 0 || child_counts.workers().len() > 1 {
            thread::yield_now();
        }
        assert_eq!(done(pool.run(|_| 8)).await, 8, "the pool has its size again");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_the_queue_does_not_count() {
        let (pool, child_counts) = pool(1);
        let (release, released) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let slow = pool.run(stays_at(1, released, started));
        has_started.recv().unwrap();
        let waits = pool.run(|_| 7);
        let waiting = tokio::spawn(waits.next());
        // Ten times as long as a job may stay at one step.
        sleep(SLOW_AFTER * 10).await;
        assert!(!waiting.is_finished() && child_counts.blocked() == 0);
        drop(release);
        assert_eq!(done(slow).await, 1);
        let result = match waiting.await.unwrap() {
            JobEvent::Done(result) => result,
            JobEvent::Slow { job, .. } => done(job).await,
            JobEvent::Panicked => panic!("it panicked"),
        };
        assert_eq!(result, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_checks_take_a_bounded_number_of_threads() {
        let (pool, child_counts) = pool(1);
        let mut releases = Vec::new();
        for number in 0..=MAX_FURTHER_THREADS as u32 {
            let (release, released) = mpsc::channel();
            let (started, has_started) = mpsc::channel();
            let job = pool.run(stays_at(number, released, started));
            has_started.recv().unwrap();
            assert!(matches!(job.next().await, JobEvent::Slow { .. }));
            releases.push(release);
        }
        assert_eq!(child_counts.workers().len(), 1 + MAX_FURTHER_THREADS);
        drop(releases);
        while child_counts.blocked() > 0 {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn pool_that_is_dropped_gives_its_threads_no_more_work() {
        let (pool, child_counts) = pool(1);
        let (release, released) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let goes_on = pool.run(move |watch| {
            let _ = started.send(());
            let _ = released.recv();
            watch.step(Some(place(1)))
        });
        has_started.recv().unwrap();
        let waits = pool.run(|_| 7);
        assert_eq!(child_counts.workers(), ["thread soma-verify-0"]);
        drop(pool);
        drop(release);
        assert!(!done(goes_on).await, "told to stop at the next step");
        assert!(matches!(waits.next().await, JobEvent::Panicked), "never begun");
        while !child_counts.workers().is_empty() {
            thread::yield_now();
        }
    }
}
