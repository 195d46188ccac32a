//! The last known state of a full node.

use soma_p2p_cli::node_status::NodeStatus;
use std::time::Duration;

/// A full node as it was last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(super) height: u32,
    pub(super) executed: u32,
    pub(super) digest: String,
    pub(super) peers: usize,
    pub(super) epoch: u64,
    pub(super) commits_fetched: u64,
    pub(super) blocks_fetched: u64,
    pub(super) bytes_fetched: u64,
    pub(super) commits_from_archive: u64,
    pub(super) blocks_per_second: f64,
    pub(super) megabytes_per_second: f64,
}

impl Sample {
    pub(super) fn update(&mut self, status: &NodeStatus, elapsed: Duration) {
        let before = self.clone();
        self.height = status.p2p.height;
        self.executed = status.executor.index;
        self.digest = status.executor.digest.clone();
        self.peers = status.p2p.peers.iter().filter(|peer| peer.outbound).count();
        self.epoch = status.p2p.epoch.unwrap_or(before.epoch);
        if let Some(sync) = &status.p2p.state_sync {
            self.commits_fetched = sync.commits_fetched;
            self.blocks_fetched = sync.blocks_fetched;
            self.bytes_fetched = sync.bytes_fetched;
            self.commits_from_archive = sync.commits_from_archive;
        }
        let seconds = elapsed.as_secs_f64().max(0.001);
        // Smoothed over about ten looks: a range comes all at once.
        let rate =
            |smooth: f64, now: u64, before: u64| 0.9 * smooth + 0.1 * now.saturating_sub(before) as f64 / seconds;
        self.blocks_per_second = rate(before.blocks_per_second, self.blocks_fetched, before.blocks_fetched);
        self.megabytes_per_second =
            rate(before.megabytes_per_second * 1e6, self.bytes_fetched, before.bytes_fetched) / 1e6;
    }

    pub(super) fn describe(&self, head: u32) -> String {
        let lag = head.saturating_sub(self.height);
        let mut text = format!(
            "{} peers, {:.0} blocks/s, {:.1} MB/s, epoch {}, lag {lag}",
            self.peers, self.blocks_per_second, self.megabytes_per_second, self.epoch
        );
        let commits_per_second =
            self.blocks_per_second * f64::from(self.height.max(1)) / (self.blocks_fetched.max(1) as f64);
        if lag > 10 && commits_per_second > 1.0 {
            text.push_str(&format!(", {:.0} s left", f64::from(lag) / commits_per_second));
        }
        text
    }
}
