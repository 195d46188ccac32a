//! Results: as lines of JSON, and as tables.

use super::{
    limit::Calibration,
    record::{Step, SyncRecord},
};
use comfy_table::Table;
use soma_p2p::Verification;
use soma_p2p_cli::table;

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

/// Syncs of longer chains compared with shorter ones.
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

pub(super) fn known(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

/// As it is called in configurations, case names and results.
pub(super) fn verification_name(verification: Verification) -> &'static str {
    match verification {
        Verification::Full => "full",
        Verification::Certified => "certified",
    }
}
