//! Results of the steps, and what they say about growth with the chain.

use super::{super::limit::Calibration, kept::KeptChain};
use comfy_table::Table;
use serde::Serialize;
use soma_p2p_cli::table;
use std::fmt;

/// One step, a process of its own.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// `history/` and the name of the step.
    pub(super) case: String,
    /// Commits that it went through, or of the chain that a node started with.
    pub(super) commits: u64,
    /// Their blocks, if it went through blocks.
    pub(super) blocks: Option<u64>,
    pub(super) wall_s: f64,
    /// Of the process that is measured.
    pub(super) cpu_s: Option<f64>,
    /// Of the serving node.
    pub(super) server_cpu_s: Option<f64>,
    /// Most memory that the process has held, in MiB.
    pub(super) peak_rss_mib: Option<f64>,
    /// Of a whole sync.
    #[serde(flatten)]
    pub(super) windows: Option<Windows>,
}

/// One sync at its start and at its end, in windows of equal length.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Windows {
    pub(super) window_commits: u32,
    pub(super) early_blocks_per_s: f64,
    pub(super) late_blocks_per_s: f64,
    /// CPU time of the syncing node. What else runs on the machine hardly changes it.
    pub(super) early_cpu_us_per_block: f64,
    pub(super) late_cpu_us_per_block: f64,
}

impl Step {
    pub(super) fn new(name: &str, commits: u64, wall_s: f64) -> Self {
        Self {
            case: format!("history/{name}"),
            commits,
            blocks: None,
            wall_s,
            cpu_s: None,
            server_cpu_s: None,
            peak_rss_mib: None,
            windows: None,
        }
    }

    fn blocks_per_s(&self) -> Option<f64> {
        self.blocks.map(|blocks| blocks as f64 / self.wall_s)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} s", self.case, self.wall_s)?;
        if let Some(rate) = self.blocks_per_s() {
            write!(f, ", {rate:.0} blocks/s")?;
        }
        if let Some(mib) = self.peak_rss_mib {
            write!(f, ", {mib:.0} MiB")?;
        }
        Ok(())
    }
}

/// All steps of one chain.
pub(super) struct Report {
    commits: u32,
    blocks: u64,
    payload_bytes: u64,
    pub(super) steps: Vec<Step>,
    /// Bytes on the disk of the store after a whole sync and two restarts.
    pub(super) synced_disk_bytes: u64,
    pub(super) pruned_disk_bytes: u64,
    pub(super) compacted_disk_bytes: u64,
    pub(super) joined_disk_bytes: u64,
    pub(super) archive_bytes: u64,
}

/// The line of JSON that sums up. Ratios are of one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary<'a> {
    case: &'static str,
    commits: u32,
    blocks: u64,
    /// Bytes of the blocks.
    bytes: u64,
    /// Throughput of the whole sync over that of its first commits, which include its start.
    long_over_short: Option<f64>,
    /// Throughput of the last window of the whole sync over that of an early one.
    late_over_early: Option<f64>,
    /// The same as CPU time per block of the syncing node: above 1, late blocks cost less.
    late_over_early_cpu: Option<f64>,
    restart_s: Option<f64>,
    restart_peak_mib: Option<f64>,
    restart_after_kill_s: Option<f64>,
    restart_after_kill_peak_mib: Option<f64>,
    /// Time of a certified sync from one peer over that of a certified pull: above 1, the pull is faster.
    pull_over_sync_certified: Option<f64>,
    synced_disk_per_payload: f64,
    archive_per_payload: f64,
    pruned_disk_bytes: u64,
    compacted_disk_bytes: u64,
    joined_disk_bytes: u64,
    #[serde(flatten)]
    calibration: &'a Calibration,
}

impl Report {
    pub(super) fn new(chain: &KeptChain) -> Self {
        Self {
            commits: chain.commits,
            blocks: chain.blocks,
            payload_bytes: chain.bytes,
            steps: Vec::new(),
            synced_disk_bytes: 0,
            pruned_disk_bytes: 0,
            compacted_disk_bytes: 0,
            joined_disk_bytes: 0,
            archive_bytes: 0,
        }
    }

    fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.case.strip_prefix("history/") == Some(name))
    }

    fn ratio(&self, name: &str, other: &str, of: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
        Some(of(self.step(name)?)? / of(self.step(other)?)?)
    }

    pub(super) fn summary<'a>(&self, calibration: &'a Calibration) -> Summary<'a> {
        let windows = self.step("sync").and_then(|step| step.windows);
        let wall = |name| self.step(name).map(|step| step.wall_s);
        let peak = |name| self.step(name).and_then(|step| step.peak_rss_mib);
        Summary {
            case: "history",
            commits: self.commits,
            blocks: self.blocks,
            bytes: self.payload_bytes,
            long_over_short: self.ratio("sync", "sync-short", Step::blocks_per_s),
            late_over_early: windows.map(|windows| windows.late_blocks_per_s / windows.early_blocks_per_s),
            late_over_early_cpu: windows.map(|windows| windows.early_cpu_us_per_block / windows.late_cpu_us_per_block),
            restart_s: wall("restart"),
            restart_peak_mib: peak("restart"),
            restart_after_kill_s: wall("restart-after-kill"),
            restart_after_kill_peak_mib: peak("restart-after-kill"),
            pull_over_sync_certified: self.ratio("archive-pull-certified", "sync-certified", Step::blocks_per_s),
            synced_disk_per_payload: self.per_payload(self.synced_disk_bytes),
            archive_per_payload: self.per_payload(self.archive_bytes),
            pruned_disk_bytes: self.pruned_disk_bytes,
            compacted_disk_bytes: self.compacted_disk_bytes,
            joined_disk_bytes: self.joined_disk_bytes,
            calibration,
        }
    }

    fn per_payload(&self, bytes: u64) -> f64 {
        bytes as f64 / self.payload_bytes as f64
    }

    /// A row for each step.
    pub(super) fn table(&self) -> Table {
        let mut rows = table(["step", "commits", "wall s", "blocks/s", "CPU s", "server CPU s", "peak MiB"]);
        for step in &self.steps {
            rows.add_row([
                step.case.clone(),
                step.commits.to_string(),
                format!("{:.2}", step.wall_s),
                known(step.blocks_per_s(), 0),
                known(step.cpu_s, 2),
                known(step.server_cpu_s, 2),
                known(step.peak_rss_mib, 0),
            ]);
        }
        rows
    }

    /// The ratios, and the sizes on the disk.
    pub(super) fn summary_table(&self, summary: &Summary<'_>) -> Table {
        let mut rows = table(["history", "value"]);
        let mut row = |name: &str, value: String| {
            rows.add_row([name.to_owned(), value]);
        };
        if let Some(windows) = self.step("sync").and_then(|step| step.windows) {
            let Windows { window_commits, early_blocks_per_s, late_blocks_per_s, .. } = windows;
            row("blocks/s, early window", format!("{early_blocks_per_s:.0} ({window_commits} commits)"));
            row("blocks/s, last window", format!("{late_blocks_per_s:.0}"));
            row("CPU us/block, early window", format!("{:.2}", windows.early_cpu_us_per_block));
            row("CPU us/block, last window", format!("{:.2}", windows.late_cpu_us_per_block));
        }
        row("throughput, last over early window", known(summary.late_over_early, 3));
        row("CPU per block, early over last window", known(summary.late_over_early_cpu, 3));
        row("throughput, whole over short sync", known(summary.long_over_short, 3));
        row("restart s", known(summary.restart_s, 2));
        row("restart MiB", known(summary.restart_peak_mib, 0));
        row("restart after kill s", known(summary.restart_after_kill_s, 2));
        row("restart after kill MiB", known(summary.restart_after_kill_peak_mib, 0));
        row("certified: pull over sync", known(summary.pull_over_sync_certified, 2));
        row("disk over payload, synced", format!("{:.3}", summary.synced_disk_per_payload));
        row("disk over payload, archive", format!("{:.3}", summary.archive_per_payload));
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        row("disk MiB, pruned", mib(summary.pruned_disk_bytes));
        row("disk MiB, pruned and compacted", mib(summary.compacted_disk_bytes));
        row("disk MiB, joined by latest-epoch", mib(summary.joined_disk_bytes));
        rows
    }
}

fn known(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}
