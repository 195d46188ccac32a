//! Counts of living actors and threads. Anything left after the end of a system is a leak.

use dashmap::DashMap;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Blocked threads that a system leaves behind before it gives up: each keeps its stack and what its actor held.
pub(crate) const MAX_BLOCKED_THREADS: usize = 8;

/// Counts the actors and threads of one system. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ChildCounts {
    actors: Arc<AtomicUsize>,
    threads: Arc<AtomicUsize>,
    blocked: Arc<AtomicUsize>,
    workers: Arc<Workers>,
}

/// Threads that work for actors. Written when one begins or ends, read on demand.
#[derive(Default)]
struct Workers {
    next: AtomicU64,
    named: DashMap<u64, Box<dyn Fn() -> String + Send + Sync>>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("count", &self.named.len()).finish()
    }
}

impl ChildCounts {
    /// Actors that were started and have not ended, sync workers included.
    pub fn actors(&self) -> usize {
        self.actors.load(Ordering::Acquire)
    }

    /// Threads of actors, blocked ones included.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Acquire)
    }

    /// Threads that were left behind because they are blocked, and still are.
    pub fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Acquire)
    }

    /// Threads that work for actors, each with its present work.
    pub fn workers(&self) -> Vec<String> {
        let mut workers: Vec<_> = self.workers.named.iter().map(|worker| (*worker.key(), worker.value()())).collect();
        workers.sort();
        workers.into_iter().map(|(_, name)| name).collect()
    }

    /// Counts a thread that does work for actors until what is returned is dropped. `name` says which it is, and what
    /// it is at.
    pub fn worker(&self, name: impl Fn() -> String + Send + Sync + 'static) -> WorkerThread {
        let number = self.workers.next.fetch_add(1, Ordering::Relaxed);
        self.workers.named.insert(number, Box::new(name));
        WorkerThread { number, workers: self.workers.clone() }
    }

    pub(crate) fn actor(&self) -> Counted {
        Counted::new(&self.actors)
    }

    pub(crate) fn thread(&self) -> Counted {
        Counted::new(&self.threads)
    }

    fn left_behind(&self) {
        let blocked = self.blocked.fetch_add(1, Ordering::AcqRel) + 1;
        metrics::gauge!("soma_blocked_threads").set(blocked as f64);
    }

    fn came_back(&self) {
        let blocked = self.blocked.fetch_sub(1, Ordering::AcqRel) - 1;
        metrics::gauge!("soma_blocked_threads").set(blocked as f64);
    }
}

/// A thread that does work for actors, until it is dropped.
pub struct WorkerThread {
    number: u64,
    workers: Arc<Workers>,
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.workers.named.remove(&self.number);
    }
}

/// One of those counted, until it is dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A piece of work on a thread, and whoever waits for it and may stop waiting. Each of the two parts from it once; only
/// when the waiting one does first is a blocked thread left behind.
#[derive(Clone, Debug)]
pub struct LeftBehind {
    parted: Arc<AtomicBool>,
    child_counts: ChildCounts,
}

impl LeftBehind {
    /// A thread that counts in `child_counts` while it is left behind.
    pub fn new(child_counts: ChildCounts) -> Self {
        Self { parted: Arc::default(), child_counts }
    }

    /// The waiting side stops waiting. `false` if the work was done after all.
    pub fn leave(&self) -> bool {
        let left = !self.parted.swap(true, Ordering::AcqRel);
        if left {
            self.child_counts.left_behind();
        }
        left
    }

    /// The work is done. `true` if it had been left behind.
    pub fn come_back(&self) -> bool {
        let was_left = self.parted.swap(true, Ordering::AcqRel);
        if was_left {
            self.child_counts.came_back();
        }
        was_left
    }
}
