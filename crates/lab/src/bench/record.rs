//! Results of syncs: a line of JSON for each.

use super::{chain::Chain, limit::Limit, node_io::Synced};
use serde::Serialize;
use soma_p2p::Verification;

/// One sync, as measured from both sides.
pub(super) struct Measured {
    pub(super) synced: Synced,
    /// CPU seconds of all servers since they were ready.
    pub(super) server_cpu_s: f64,
    /// CPU seconds of everything else that ran on the machine at the same time.
    pub(super) other_cpu_s: Option<f64>,
}

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

/// The time of one length compared with a shorter one.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Step {
    /// Commits of the shorter chain.
    pub(super) from_commits: u32,
    /// Commits of the longer chain.
    pub(super) to_commits: u32,
    /// Time for the longer one / (time for the shorter one x how much longer): 1.0 is perfect, less is better.
    pub(super) growth: f64,
    /// The inverse: blocks/s of the longer chain over blocks/s of the shorter one, approximately.
    pub(super) throughput_ratio: f64,
    /// Peak memory of the longer chain over that of the shorter chain.
    pub(super) peak_rss_ratio: Option<f64>,
}

impl Step {
    pub(super) fn between(from: &SyncRecord, to: &SyncRecord) -> Self {
        let longer = f64::from(to.commits) / f64::from(from.commits);
        let growth = to.wall_s / (from.wall_s * longer);
        Self {
            from_commits: from.commits,
            to_commits: to.commits,
            growth,
            throughput_ratio: 1.0 / growth,
            peak_rss_ratio: from.peak_rss_mib.zip(to.peak_rss_mib).map(|(from, to)| to / from),
        }
    }
}
