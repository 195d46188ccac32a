//! Results: as lines of JSON, and as tables.

use super::{
    chain::Chain,
    growth::Step,
    limit::{Calibration, Limit},
    sync::Measured,
};
use comfy_table::Table;
use serde::Serialize;
use soma_p2p::Verification;
use soma_p2p_cli::table;

/// One sync of a chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SyncRecord {
    pub(crate) case: String,
    /// S, L or C.
    pub(crate) kind: String,
    /// Serving nodes.
    pub(crate) peers: usize,
    /// full or certified.
    pub(crate) verification: Verification,
    pub(crate) blocks_per_commit: u32,
    pub(crate) commits: u32,
    pub(crate) blocks: u64,
    /// Bytes of the blocks.
    pub(crate) bytes: u64,
    /// From the start of the syncing system until its executor had the last commit.
    pub(crate) wall_s: f64,
    /// The same of all runs, ascending: `wall_s` is their median.
    pub(crate) runs_s: Vec<f64>,
    pub(crate) limit_ratio: f64,
    /// CPU of both sides over that of the limit's parts: how much work there is beside them, whether or not all cores
    /// are kept busy with it. What else runs on the machine hardly changes it.
    pub(crate) cpu_ratio: f64,
    pub(crate) blocks_per_s: f64,
    /// Most memory that a syncing process has held, of all runs.
    pub(crate) peak_rss_mib: Option<f64>,
    pub(crate) client_cpu_s: f64,
    /// All serving processes together.
    pub(crate) server_cpu_s: f64,
    /// Everything else on the machine: where this is much, nothing else means anything.
    pub(crate) other_cpu_s: Option<f64>,
    #[serde(flatten)]
    pub(crate) limit: Limit,
}

impl SyncRecord {
    pub(super) fn new(
        case: &str,
        chain: &Chain,
        peers: usize,
        verification: Verification,
        limit: Limit,
        measured: &Measured,
        runs_s: Vec<f64>,
    ) -> Self {
        let wall_s = measured.synced.end.seconds;
        Self {
            case: case.into(),
            kind: chain.key.kind.to_string(),
            peers,
            verification,
            blocks_per_commit: chain.key.blocks_per_commit,
            commits: chain.commits,
            blocks: chain.blocks,
            bytes: chain.bytes,
            wall_s,
            runs_s,
            limit_ratio: wall_s / limit.limit_s,
            cpu_ratio: (measured.synced.cpu_s + measured.server_cpu_s) / limit.cpu_s(),
            blocks_per_s: chain.blocks as f64 / wall_s,
            peak_rss_mib: measured.synced.peak_rss_mib,
            client_cpu_s: measured.synced.cpu_s,
            server_cpu_s: measured.server_cpu_s,
            other_cpu_s: measured.other_cpu_s,
            limit,
        }
    }
}

/// The machine.
pub(super) fn calibration(calibration: &Calibration) -> Table {
    let mut rows = table(["calibration", "value"]);
    rows.add_row(["cores".to_owned(), calibration.cores.to_string()]);
    rows.add_row(["dalek verify_batch".into(), format!("{:.2} us/signature", calibration.verify_us_per_signature)]);
    rows.add_row(["TLS + TCP, both ends".into(), format!("{:.2} us/KB", calibration.tls_us_per_kb)]);
    rows.add_row(["append + fdatasync".into(), format!("{:.0} MB/s", calibration.append_mb_per_s)]);
    rows
}

/// Syncs, a row for each.
pub(super) fn sync_table(records: &[SyncRecord]) -> Table {
    let mut rows = table([
        "case",
        "blocks",
        "blocks/s",
        "MB/s",
        "wall s",
        "limit s",
        "ratio",
        "CPU ratio",
        "peak MiB",
        "client CPU s",
        "server CPU s",
        "other CPU s",
    ]);
    for record in records {
        rows.add_row([
            record.case.clone(),
            record.blocks.to_string(),
            format!("{:.0}", record.blocks_per_s),
            format!("{:.1}", record.bytes as f64 / record.wall_s / 1e6),
            format!("{:.2}", record.wall_s),
            format!("{:.2}", record.limit.limit_s),
            format!("{:.2}", record.limit_ratio),
            format!("{:.2}", record.cpu_ratio),
            known(record.peak_rss_mib, 0),
            format!("{:.2}", record.client_cpu_s),
            format!("{:.2}", record.server_cpu_s),
            known(record.other_cpu_s, 2),
        ]);
    }
    rows
}

/// How syncs of longer chains compare with those of shorter ones.
pub(super) fn growth_table(steps: &[Step]) -> Table {
    let mut rows = table(["commits", "growth of time", "throughput ratio", "peak memory ratio"]);
    for step in steps {
        rows.add_row([
            format!("{} to {}", step.from_commits, step.to_commits),
            format!("{:.3}", step.growth),
            format!("{:.3}", step.throughput_ratio),
            known(step.peak_rss_ratio, 2),
        ]);
    }
    rows
}

fn known(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

/// As it is called in configurations, case names and results.
pub(super) fn verification_name(verification: Verification) -> &'static str {
    match verification {
        Verification::Full => "full",
        Verification::Certified => "certified",
    }
}
