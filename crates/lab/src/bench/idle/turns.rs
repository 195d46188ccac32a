//! What the threads of idle processes use.

use crate::bench::session::Session;
use soma_p2p_cli::CliError;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How often a wait looks whether the benchmark is interrupted.
const POLL: Duration = Duration::from_millis(100);

/// Time between two wakes of the thread that does nothing else: about as often as a pair of nodes wakes up.
const WAKE_EVERY: Duration = Duration::from_millis(25);

/// What processes have used meanwhile.
pub(super) struct Usage {
    pub(super) wall_s: f64,
    /// Of one core, each process.
    pub(super) cpu_percent: [f64; 2],
    /// Times that a thread was put aside, in a second, all processes together: about how often one woke up.
    pub(super) switches_per_s: f64,
    /// CPU seconds that this machine takes to wake a thread that does nothing.
    pub(super) wake_s: f64,
}

/// Lets `meanwhile` pass, and says what the processes have used.
pub(super) fn usage_while(pids: [u32; 2], meanwhile: impl FnOnce() -> Result<(), CliError>) -> Result<Usage, CliError> {
    let threads = || Ok::<_, CliError>([threads_of(pids[0])?, threads_of(pids[1])?]);
    let (before, started) = (threads()?, Instant::now());
    let (stop, stopped) = mpsc::channel::<()>();
    let waking = thread::spawn(move || {
        let own = Path::new("/proc/thread-self");
        let before = turns_of(own).unwrap_or_default();
        // The sender says nothing: it goes.
        while stopped.recv_timeout(WAKE_EVERY) == Err(RecvTimeoutError::Timeout) {}
        let after = turns_of(own).unwrap_or_default();
        (after.cpu_ns - before.cpu_ns) as f64 / 1e9 / (after.switches - before.switches).max(1) as f64
    });
    meanwhile()?;
    drop(stop);
    let (after, wall_s) = (threads()?, started.elapsed().as_secs_f64());
    let wake_s = waking.join().map_err(|_| CliError::failed("the thread that only wakes up panicked"))?;
    let used = [0, 1].map(|process: usize| used_between(&before[process], &after[process]));
    Ok(Usage {
        wall_s,
        cpu_percent: used.map(|used| 100.0 * used.cpu_ns as f64 / 1e9 / wall_s),
        switches_per_s: used.iter().map(|used| used.switches).sum::<u64>() as f64 / wall_s,
        wake_s,
    })
}

/// Waits, unless the benchmark is interrupted.
pub(super) fn wait(session: &Session, time: Duration) -> Result<(), CliError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        session.check_interrupted()?;
        thread::sleep(POLL);
    }
    Ok(())
}

/// What a thread has used.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    cpu_ns: u64,
    switches: u64,
}

/// What a thread has used, by its directory below `/proc`; none if it has ended.
///
/// From its `schedstat`: to the nanosecond, where `/proc/PID/stat` counts hundredths of a second, which is a tenth of
/// what a good pair uses in half a minute.
fn turns_of(thread: &Path) -> Option<Turns> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    // Time on a core, time waiting for one, turns.
    let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [cpu_ns, _, switches] = fields[..] else { return None };
    Some(Turns { cpu_ns, switches })
}

/// What each thread of a process has used, by its id.
fn threads_of(pid: u32) -> Result<BTreeMap<OsString, Turns>, CliError> {
    let failed = |error: io::Error| CliError::failed(format!("what process {pid} uses is not known: {error}"));
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let thread = thread.map_err(failed)?;
        threads.extend(turns_of(&thread.path()).map(|turns| (thread.file_name(), turns)));
    }
    Ok(threads)
}

/// Resources used meanwhile. Threads that have ended do not count.
fn used_between(before: &BTreeMap<OsString, Turns>, after: &BTreeMap<OsString, Turns>) -> Turns {
    after.iter().fold(Turns::default(), |sum, (thread, now)| {
        let then = before.get(thread).copied().unwrap_or_default();
        Turns {
            cpu_ns: sum.cpu_ns + (now.cpu_ns - then.cpu_ns),
            switches: sum.switches + (now.switches - then.switches),
        }
    })
}
