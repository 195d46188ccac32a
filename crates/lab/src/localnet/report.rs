//! The result: a table, or JSON.

use serde::Serialize;
use soma_p2p_cli::{CliError, table};

/// How one full node did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) name: String,
    /// First commit that its executor was given.
    pub(super) first: u32,
    /// Highest commit that its executor was given.
    pub(super) height: u32,
    /// Seconds until it had caught up, time between kill and restart included.
    pub(super) seconds: f64,
    pub(super) blocks_per_second: f64,
    pub(super) megabytes_per_second: f64,
    /// Commits that it got from the archive.
    pub(super) from_archive: u64,
    /// Peers that it can ask.
    pub(super) peers: usize,
    /// What happened if it was killed.
    pub(super) kill: Option<KillReport>,
    /// Digest over every sub-dag that its executor was given.
    pub(super) digest: String,
    /// Whether every validator's store gives the same digest up to this height.
    pub(super) digests_equal: bool,
    pub(super) reached_head: bool,
    /// Whether it stopped in order when asked to.
    pub(super) stopped_in_order: bool,
}

/// A kill and its cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct KillReport {
    /// Highest commit on disk after the kill.
    pub(super) durable: u32,
    /// Commits fetched and not yet on disk when it was last looked at before: the batch in flight.
    pub(super) in_flight: u32,
    /// Commits fetched after the restart although they were on disk.
    pub(super) fetched_twice: u64,
}

/// How the network did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) chain: String,
    pub(super) validators: usize,
    pub(super) head: u32,
    pub(super) epochs: u64,
    pub(super) full_nodes: Vec<NodeReport>,
    pub(super) data: String,
    pub(super) ok: bool,
}

impl Report {
    pub(super) fn print(&self, json: bool) -> Result<(), CliError> {
        if json {
            println!("{}", serde_json::to_string(self).map_err(CliError::failed)?);
            return Ok(());
        }
        let killed = self.full_nodes.iter().any(|node| node.kill.is_some());
        let mut header = vec!["node", "height", "caught up in", "blocks/s", "MB/s", "peers"];
        if killed {
            header.extend(["killed at", "lost in flight", "fetched twice"]);
        }
        let archive = self.full_nodes.iter().any(|node| node.from_archive > 0);
        if archive {
            header.push("from archive");
        }
        header.extend(["digest", "equal"]);
        let mut rows = table([""]);
        rows.set_header(header);
        for node in &self.full_nodes {
            let mut row = vec![
                node.name.clone(),
                if node.first > 1 {
                    format!("{} to {} of {}", node.first, node.height, self.head)
                } else {
                    format!("{} of {}", node.height, self.head)
                },
                format!("{:.1} s", node.seconds),
                format!("{:.0}", node.blocks_per_second),
                format!("{:.1}", node.megabytes_per_second),
                node.peers.to_string(),
            ];
            if killed {
                row.extend(match node.kill {
                    Some(kill) => {
                        [kill.durable, kill.in_flight, kill.fetched_twice as u32].map(|count| count.to_string())
                    }
                    None => ["-"; 3].map(Into::into),
                });
            }
            if archive {
                row.push(node.from_archive.to_string());
            }
            row.push(node.digest.chars().take(16).collect());
            row.push(if node.digests_equal { "yes" } else { "NO" }.into());
            rows.add_row(row);
        }
        println!("{rows}");
        println!(
            "chain {} with {} validators, {} commits in {} epochs; data in {}",
            self.chain, self.validators, self.head, self.epochs, self.data
        );
        let verdict = if self.ok {
            "ok: every full node reached the head, and was given exactly what the validators have"
        } else {
            "FAILED: see the table; each node's log is node.log in its folder"
        };
        println!("{verdict}");
        Ok(())
    }
}
