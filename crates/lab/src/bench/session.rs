//! One run of the benchmark: its directories, its chains, its progress, and where results go.

use super::args::Args;
use crate::interrupt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use soma_p2p_cli::CliError;
use std::{
    cell::Cell,
    fmt::Display,
    fs::{self, File},
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// How the names of working directories begin.
const WORK: &str = "work-";

/// The file in one that is locked while it is in use.
const LOCK: &str = "lock";

/// What every measurement works with.
pub(crate) struct Session {
    pub(crate) args: Args,
    work: TempDir,
    /// Held for as long as the working directory is in use.
    _lock: File,
    results: PathBuf,
    started_unix: u64,
    git: Option<String>,
    interrupted: Arc<AtomicBool>,
    has_calibration: Cell<bool>,
}

/// A result with what every line tells.
#[derive(Serialize)]
struct Line<'a, R> {
    #[serde(flatten)]
    result: &'a R,
    /// Whether the smaller chains of `--quick` were used.
    quick: bool,
    /// The checked out revision, if it is known.
    git: &'a Option<String>,
    /// Seconds since 1970 when the run began.
    unix_time: u64,
}

impl Session {
    /// Makes the directories.
    pub(super) fn open(args: Args) -> Result<Self, CliError> {
        let out = &args.out;
        let refuse = |error: std::io::Error| CliError::input(format!("--out {}: {error}", out.display()));
        fs::create_dir_all(out).map_err(refuse)?;
        remove_left_behind(out);
        let work = tempfile::Builder::new().prefix(WORK).tempdir_in(out).map_err(refuse)?;
        let lock = File::create(work.path().join(LOCK)).map_err(refuse)?;
        lock.lock().map_err(refuse)?;
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let results = out.join(format!("{started_unix}.jsonl"));
        let interrupted = interrupt::on_ctrl_c()?;
        let git = git_revision();
        Ok(Self { args, work, _lock: lock, results, started_unix, git, interrupted, has_calibration: Cell::new(false) })
    }

    /// Where files of this run may go; on the disk of the results, and removed at the end.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    /// Where the lines of this run go.
    pub(crate) fn results(&self) -> &Path {
        &self.results
    }

    /// A file for a plot of this run.
    pub(crate) fn plot_file(&self, name: &str) -> PathBuf {
        let name = name.replace('/', "-");
        self.args.out.join(format!("{}-{name}.svg", self.started_unix))
    }

    /// Appends a result to the run's lines.
    pub(crate) fn record(&self, result: &impl Serialize) -> Result<(), CliError> {
        let line = Line { result, quick: self.args.quick, git: &self.git, unix_time: self.started_unix };
        let line = serde_json::to_string(&line).map_err(CliError::failed)?;
        let file = File::options().create(true).append(true).open(&self.results);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|error| CliError::failed(format!("{}: {error}", self.results.display())))
    }

    /// Prints the calibration of the machine, the first time only.
    pub(crate) fn print_calibration(&self, calibration: &impl Display) {
        if !self.has_calibration.replace(true) {
            println!("{calibration}");
        }
    }

    /// Prints one line on standard error.
    pub(crate) fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    /// A task of `total` steps. A terminal shows its progress.
    pub(crate) fn task(&self, name: &str, total: u64) -> Task {
        let bar = ProgressBar::new(total);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{prefix:<40} {bar:32} {pos:>8}/{len} {percent:>3} % {elapsed}";
        // A template that does not parse falls back to the default style.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name.to_owned());
        Task(bar)
    }

    /// Fails once Ctrl-C was pressed.
    pub(crate) fn check_interrupted(&self) -> Result<(), CliError> {
        if self.is_interrupted() { Err(CliError::failed("interrupted")) } else { Ok(()) }
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// One thing that goes on.
pub(crate) struct Task(ProgressBar);

impl Task {
    /// Shows where it is.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Ends it and removes it from the terminal.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes what runs that were killed have left of their chains, which is much. What cannot be removed is in nobody's
/// way.
fn remove_left_behind(out: &Path) {
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let dir = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(WORK);
        if ours && File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// The revision that is checked out here, with a mark if something was changed since.
fn git_revision() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
