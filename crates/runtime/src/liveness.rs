//! Signs of life: how an actor shows that it is not stuck, and what its thread is doing.
//!
//! ```text
//!   actor: timer, each input --beat--> Liveness <--looks-- monitor: no beat for the allowance: stuck
//! ```

use crossbeam_utils::atomic::AtomicCell;
use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// How often an actor that waits for another shows that it lives: several times within any allowance.
const BEAT_WHILE_WAITING: Duration = Duration::from_secs(10);

/// Looks within an allowance. Each has to find no beat: after the whole process was suspended only the first one does.
const LOOKS: u32 = 5;

tokio::task_local! {
    /// State of the actor whose task is being polled.
    static CURRENT: Liveness;
}

/// State shared between one incarnation and its monitor.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    beats: Arc<AtomicU64>,
    failure: Arc<OnceLock<String>>,
    thread: Arc<ActorThread>,
}

/// Knowledge of the thread that an actor runs on.
#[derive(Debug, Default)]
struct ActorThread {
    /// Its work was taken over: its later decisions do not count.
    retired: AtomicBool,
    busy: AtomicCell<Option<Busy>>,
}

/// Which input an actor is handling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    pub(crate) actor: &'static str,
    pub(crate) input: &'static str,
    pub(crate) sender: &'static str,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is handling {} of {}", self.actor, self.input, self.sender)
    }
}

impl Liveness {
    /// For an actor on a thread of its own.
    pub(crate) fn on_new_thread() -> Self {
        Self { beats: Arc::default(), failure: Arc::default(), thread: Arc::default() }
    }

    /// For an actor that runs where the present one does.
    pub(crate) fn on_this_thread() -> Self {
        let thread = CURRENT.try_with(|current| current.thread.clone()).unwrap_or_default();
        Self { beats: Arc::default(), failure: Arc::default(), thread }
    }

    /// A future in which the functions of this module mean this actor.
    pub(crate) fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// Resolves when there was no beat for about `allowance`.
    pub(crate) async fn silent(&self, allowance: Duration) {
        let (mut last, mut quiet) = (self.beats.load(Ordering::Relaxed), 0);
        while quiet < LOOKS {
            sleep(allowance / LOOKS).await;
            let beats = self.beats.load(Ordering::Relaxed);
            quiet = if beats == last { quiet + 1 } else { 0 };
            last = beats;
        }
    }

    /// From now on nothing that the thread decides counts.
    pub(crate) fn retire(&self) {
        self.thread.retired.store(true, Ordering::Release);
    }

    /// What the thread is doing.
    pub(crate) fn busy(&self) -> Option<Busy> {
        self.thread.busy.load()
    }

    /// Why the actor gave up, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

/// The current actor is alive.
pub(crate) fn beat() {
    // Without a monitor the reason is dropped.
    let _ = CURRENT.try_with(|liveness| liveness.beats.fetch_add(1, Ordering::Relaxed));
}

/// Waits for something that takes as long as it takes, and that whoever does it is watched over: the current actor
/// shows meanwhile that it lives.
pub async fn while_waiting<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = sleep(BEAT_WHILE_WAITING) => beat(),
        }
    }
}

/// The current actor gives up; it has to stop its context, too.
pub(crate) fn fail(reason: String) {
    // The first reason counts.
    let _ = CURRENT.try_with(|liveness| liveness.failure.set(reason));
}

/// Whether the current thread's work was taken over by another.
pub(crate) fn retired() -> bool {
    CURRENT.try_with(|liveness| liveness.thread.retired.load(Ordering::Acquire)).unwrap_or(false)
}

/// Notes what the current thread is doing, until it has done it.
pub(crate) fn handling(busy: Busy) -> Handling {
    let thread = CURRENT.try_with(|liveness| liveness.thread.clone()).ok();
    if let Some(thread) = &thread {
        thread.busy.store(Some(busy));
    }
    Handling(thread)
}

/// Ends what [`handling`] has begun.
pub(crate) struct Handling(Option<Arc<ActorThread>>);

impl Drop for Handling {
    fn drop(&mut self) {
        if let Some(thread) = &self.0 {
            thread.busy.store(None);
        }
    }
}
