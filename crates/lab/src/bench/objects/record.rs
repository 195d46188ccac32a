//! Results: as lines of JSON, and as a table.

use super::{super::report::known, limit::Limit};
use comfy_table::Table;
use serde::Serialize;
use soma_p2p_cli::table;
use std::fmt;

/// One fetch.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ObjectRecord {
    pub(super) case: String,
    /// Serving nodes.
    pub(super) peers: usize,
    /// Objects or chunks.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// From the call to the last object.
    pub(super) seconds: f64,
    pub(super) objects_per_s: f64,
    /// Time of TLS, BLAKE3 and, of a snapshot, writing.
    pub(super) limit_s: Option<f64>,
    pub(super) limit_ratio: Option<f64>,
    /// CPU of all nodes over the CPU of the limit's parts.
    pub(super) cpu_ratio: Option<f64>,
    /// Of one object.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Most memory that the fetching node has held, of all runs.
    pub(super) peak_rss_mib: Option<f64>,
    pub(super) cpu_s: f64,
    pub(super) server_cpu_s: f64,
    #[serde(flatten)]
    pub(super) kills: Option<Kills>,
}

/// What kills cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Kills {
    pub(super) kills: u32,
    /// Chunks that were on their way, or not written yet, when the node was killed.
    pub(super) chunks_served_again: u64,
}

impl ObjectRecord {
    /// Compares it with its limit.
    pub(super) fn beside(self, limit: Limit) -> Self {
        Self {
            limit_s: Some(limit.seconds),
            limit_ratio: Some(self.seconds / limit.seconds),
            cpu_ratio: Some((self.cpu_s + self.server_cpu_s) / limit.cpu_s),
            ..self
        }
    }
}

impl fmt::Display for ObjectRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} s, {:.0} objects/s", self.case, self.seconds, self.objects_per_s)?;
        if let (Some(limit), Some(ratio)) = (self.limit_s, self.limit_ratio) {
            write!(f, ", limit {limit:.2} s, ratio {ratio:.2}")?;
        }
        if let (Some(p50), Some(p99)) = (self.p50_ms, self.p99_ms) {
            write!(f, ", p50 {p50:.2} ms, p99 {p99:.2} ms")?;
        }
        if let Some(Kills { kills, chunks_served_again }) = self.kills {
            write!(f, ", {kills} kills, {chunks_served_again} chunks served again")?;
        }
        Ok(())
    }
}

pub(super) fn table_of(records: &[ObjectRecord]) -> Table {
    let mut rows = table([
        "case",
        "objects",
        "objects/s",
        "MB/s",
        "seconds",
        "limit s",
        "ratio",
        "CPU ratio",
        "p50 ms",
        "p99 ms",
        "peak MiB",
        "kills",
        "served again",
    ]);
    let count = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
    for record in records {
        rows.add_row([
            record.case.clone(),
            record.objects.to_string(),
            format!("{:.0}", record.objects_per_s),
            format!("{:.0}", record.bytes as f64 / record.seconds / 1e6),
            format!("{:.2}", record.seconds),
            known(record.limit_s, 2),
            known(record.limit_ratio, 2),
            known(record.cpu_ratio, 2),
            known(record.p50_ms, 2),
            known(record.p99_ms, 2),
            known(record.peak_rss_mib, 0),
            count(record.kills.map(|kills| kills.kills.into())),
            count(record.kills.map(|kills| kills.chunks_served_again)),
        ]);
    }
    rows
}
