//! Who is alive. What is left of a system after its end is a leak.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Blocked threads that a system leaves behind before it gives up: each keeps its stack and what its actor held.
pub(crate) const MAX_BLOCKED_THREADS: usize = 8;

/// Counts the actors and threads of one system. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Census {
    actors: Arc<AtomicUsize>,
    threads: Arc<AtomicUsize>,
    blocked: Arc<AtomicUsize>,
}

impl Census {
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
    census: Census,
}

impl LeftBehind {
    /// Counts in `census`.
    pub fn new(census: Census) -> Self {
        Self { parted: Arc::default(), census }
    }

    /// Who waited stops waiting. `false` if the work was done after all.
    pub fn leave(&self) -> bool {
        let left = !self.parted.swap(true, Ordering::AcqRel);
        if left {
            self.census.left_behind();
        }
        left
    }

    /// The work is done. `true` if it had been left behind.
    pub fn come_back(&self) -> bool {
        let was_left = self.parted.swap(true, Ordering::AcqRel);
        if was_left {
            self.census.came_back();
        }
        was_left
    }
}
