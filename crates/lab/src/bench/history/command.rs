//! One operator's command as a process, with the time, CPU and memory that it takes.

use super::{super::session::Session, report::Step};
use soma_p2p_cli::CliError;
use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often the process is looked at. Its CPU time and memory are as of the last look.
const POLL: Duration = Duration::from_millis(10);

/// Clock ticks in one second, as `/proc` counts: fixed for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs a command of `soma-p2p` that goes through so many commits.
pub(super) fn measure(session: &Session, name: &str, args: &[&OsStr], commits: u64) -> Result<Step, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{name}: {error}"));
    let log = session.work().join(format!("{name}.log"));
    let stderr = File::create(&log).map_err(|error| failed(&error))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let started = Instant::now();
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C is for this process, which then kills it.
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let (mut cpu_s, mut peak_rss_mib) = (None, None);
    let status = loop {
        cpu_s = process_cpu_s(child.id()).or(cpu_s);
        peak_rss_mib = process_peak_mib(child.id()).or(peak_rss_mib);
        if let Some(status) = child.try_wait().map_err(|error| failed(&error))? {
            break status;
        }
        if let Err(interrupted) = session.check_interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(interrupted);
        }
        thread::sleep(POLL);
    };
    if !status.success() {
        let log = fs::read_to_string(&log).unwrap_or_default();
        return Err(failed(&log.lines().last().unwrap_or("it failed and says nothing")));
    }
    let wall_s = started.elapsed().as_secs_f64();
    Ok(Step { cpu_s, peak_rss_mib, ..Step::new(name, commits, wall_s) })
}

/// User and system time of another process, until it is reaped.
fn process_cpu_s(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may have spaces; the fields behind it are numbered from 3 on.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Most memory that another process has held, in MiB.
fn process_peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}
