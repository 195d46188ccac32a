//! What a thread, a process and the machine have used. Of what the system does not tell there is `None`.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::{fs, thread};

/// Clock ticks in one second, as `/proc` counts: fixed for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of the calling thread, user and system.
pub(crate) fn thread_cpu_s() -> f64 {
    seconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU seconds of all threads of this process, user and system.
pub(crate) fn process_cpu_s() -> f64 {
    seconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Most memory that this process has ever held, in MiB.
pub(crate) fn peak_rss_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// CPU seconds that all processes of the machine have used since it started.
pub(crate) fn machine_cpu_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq; what a hypervisor stole and what guests ran is not ours.
    let used = [0, 1, 2, 5, 6].into_iter().filter_map(|field| ticks.get(field)).sum::<f64>();
    Some(used / TICKS_PER_SECOND)
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_of_its_process_and_of_the_machine() {
        let (thread, process) = (thread_cpu_s(), process_cpu_s());
        let mut sum = 0_u64;
        while thread_cpu_s() < thread + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_s() >= process + 0.01);
        if cfg!(target_os = "linux") {
            assert!(peak_rss_mib().is_some_and(|mib| mib > 1.0));
            assert!(machine_cpu_s().is_some_and(|seconds| seconds > 0.0));
        }
        assert!(cores() >= 1);
    }
}
