//! The consensus that this process plays for the validators.

use soma_p2p::{FjallStore, Store};
use soma_p2p_cli::{CliError, feed};
use soma_testkit::ChainBuilder;
use std::{
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longest pause between two checks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// The consensus that this process plays.
pub(super) struct Consensus {
    head: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    /// `None` once it has been joined.
    thread: Option<JoinHandle<Result<Vec<ChildStdin>, String>>>,
}

impl Consensus {
    /// `reference`: takes each commit, too.
    pub(super) fn start(
        mut builder: ChainBuilder,
        rate: u32,
        head: u32,
        mut validators: Vec<ChildStdin>,
        reference: Option<FjallStore>,
    ) -> Self {
        let (head, stop) = (Arc::new(AtomicU32::new(head)), Arc::new(AtomicBool::new(false)));
        let (reached, stopping) = (head.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let started = Instant::now();
            let mut made = 0;
            while !stopping.load(Ordering::Relaxed) {
                if rate == 0 {
                    thread::sleep(POLL);
                    continue;
                }
                let due = started + Duration::from_secs_f64(f64::from(made + 1) / f64::from(rate));
                thread::sleep(due.saturating_duration_since(Instant::now()).min(POLL));
                if Instant::now() < due {
                    continue;
                }
                made += 1;
                let commit = builder.next_commit();
                if let Some(reference) = &reference {
                    let stored = reference.apply(std::slice::from_ref(&commit));
                    stored.map_err(|error| format!("the reference cannot be written: {error}"))?;
                }
                for validator in &mut validators {
                    feed::write_commit(validator, &commit).map_err(|error| format!("a validator is gone: {error}"))?;
                }
                reached.store(commit.commit.index, Ordering::Relaxed);
            }
            Ok(validators)
        });
        Self { head, stop, thread: Some(thread) }
    }

    pub(super) fn head(&self) -> u32 {
        self.head.load(Ordering::Relaxed)
    }

    /// Stops making commits. Returns the last index, and the validators' inputs, whose end stops them.
    pub(super) fn finish(mut self) -> Result<(u32, Vec<ChildStdin>), CliError> {
        self.stop.store(true, Ordering::Relaxed);
        let inputs = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.map_err(CliError::failed)?,
            Some(Err(_)) => return Err(CliError::failed("the consensus thread panicked")),
            None => Vec::new(),
        };
        // Only now: it may have been making one when it was told to stop.
        Ok((self.head(), inputs))
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Why the network fails is known already, or it was interrupted.
            let _ = thread.join();
        }
    }
}
