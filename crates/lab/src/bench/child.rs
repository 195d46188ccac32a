//! A node of a benchmark, as the benchmark sees it.

use super::{
    node_io::{Event, Setup},
    session::Session,
};
use serde::Serialize;
use soma_p2p::SeedPeer;
use soma_p2p_cli::CliError;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How long a node may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a wait looks whether the benchmark is interrupted, and whether a child has ended.
const POLL: Duration = Duration::from_millis(20);

/// Events that wait to be read: more than a sync tells in a minute.
const EVENTS: usize = 4_096;

/// A node's process. Stopped when dropped, so that none outlives the benchmark, however that comes to its end; should
/// the benchmark be killed itself, the end of their standard input stops them.
pub(crate) struct BenchNode {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Event>,
    log: PathBuf,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// CPU seconds, user and system.
    pub(crate) cpu_s: f64,
    /// Most memory that it has held, in MiB.
    pub(crate) peak_rss_mib: Option<f64>,
}

impl BenchNode {
    /// Starts a node; `name` is for its log and for errors.
    pub(crate) fn start(session: &Session, name: &str, setup: &Setup) -> Result<Self, CliError> {
        Self::start_command(session, name, "bench-node", setup)
    }

    /// Starts a node with another command of this program, which reads its own kind of setup.
    pub(crate) fn start_command(
        session: &Session,
        name: &str,
        subcommand: &str,
        setup: &impl Serialize,
    ) -> Result<Self, CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{name} cannot be started: {error}"));
        let log = session.work().join(format!("{name}.log"));
        let stderr = File::create(&log).map_err(|error| failed(&error))?;
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C is for this process, which then stops the others in order.
        command.arg(subcommand).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, events) = mpsc::sync_channel(EVENTS);
        thread::spawn(move || {
            let lines = stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok);
            for event in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        // From here on dropping it stops the process.
        let mut node = Self { name: name.into(), child, stdin, events, log };
        let line = serde_json::to_string(setup).map_err(|error| failed(&error))?;
        if let Some(stdin) = &mut node.stdin {
            writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|error| failed(&error))?;
        }
        Ok(node)
    }

    /// The next thing that it tells, if it does before `deadline`.
    pub(crate) fn next(&mut self, session: &Session, deadline: Instant) -> Result<Event, CliError> {
        loop {
            session.check_interrupted()?;
            match self.events.recv_timeout(POLL) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone("has ended by itself")),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.gone("does not get any further")),
            }
        }
    }

    /// Waits until it listens: how others find it.
    pub(crate) fn ready(&mut self, session: &Session) -> Result<SeedPeer, CliError> {
        match self.next(session, Instant::now() + START_TIMEOUT)? {
            Event::Ready { peer_id, address } => Ok(SeedPeer { peer_id, address }),
            other => Err(self.gone(&format!("says {other:?} before it is ready"))),
        }
    }

    /// Asks it to stop, by the end of its standard input.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Kills it, as a crash of the node would.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it, and returns its use of resources since it was ready.
    pub(crate) fn stop(mut self, session: &Session) -> Result<Used, CliError> {
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Event::Stopped { cpu_s, peak_rss_mib } = self.next(session, deadline)? {
                return Ok(Used { cpu_s, peak_rss_mib });
            }
        }
    }

    /// What went wrong with it, and the last thing in its log.
    fn gone(&self, what: &str) -> CliError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("its log is empty");
        CliError::failed(format!("{} {what}: {last}", self.name))
    }
}

impl Drop for BenchNode {
    fn drop(&mut self) {
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
