//! The result: a table, or JSON.

use serde::Serialize;
use soma_p2p_cli::{CliError, table};

/// How one full node did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) name: String,
    /// First commit that its executor was given.
    pub(super) first: u32,
    /// Commit of the snapshot that its executor began with.
    pub(super) snapshot: Option<u32>,
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
    /// Digest of its accounts and balances at the end.
    pub(super) state: String,
    /// Whether every validator's executor has the same. `None` if the node has not executed the commits before its
    /// start, and did not begin with a snapshot.
    pub(super) state_equal: Option<bool>,
    pub(super) reached_head: bool,
    /// Whether it stopped in order when asked to.
    pub(super) stopped_in_order: bool,
}

impl NodeReport {
    /// First commit that its digest covers. The state in a snapshot has the digest of all commits before.
    pub(super) fn digest_from(&self) -> u32 {
        if self.snapshot.is_some() { 1 } else { self.first }
    }

    /// Whether it did all that it was to do.
    pub(super) fn is_ok(&self) -> bool {
        self.digests_equal && self.state_equal != Some(false) && self.reached_head && self.stopped_in_order
    }
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

/// What validators do, and one of them did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ValidatorReport {
    pub(super) name: String,
    /// Its blocks in commits that the validators made.
    pub(super) committed_blocks: u64,
    /// Those of them in commits after it had been killed.
    pub(super) committed_after_kill: Option<u64>,
    /// Digest over every sub-dag that its executor was given.
    pub(super) digest: String,
    /// Whether the store that the full nodes are compared with has the same.
    pub(super) digest_equal: bool,
}

/// A kill of validators, and what the chain did meanwhile.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ValidatorKillReport {
    pub(super) validators: Vec<String>,
    /// Whether the others were a quorum.
    pub(super) has_quorum: bool,
    /// The head when they were killed.
    pub(super) height: u32,
    /// Commits until they returned.
    pub(super) commits_meanwhile: u32,
    /// Why the chain stood still, as a status said.
    pub(super) cause: Option<String>,
    /// Seconds until several blocks of each were in commits again.
    pub(super) seconds_to_return: f64,
}

/// How the network did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) chain: String,
    pub(super) validators: usize,
    pub(super) head: u32,
    pub(super) epochs: u64,
    /// Commits of the history, which no validator made.
    pub(super) history: u32,
    pub(super) full_nodes: Vec<NodeReport>,
    pub(super) validator_nodes: Vec<ValidatorReport>,
    pub(super) validator_kill: Option<ValidatorKillReport>,
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
        let snapshot = self.full_nodes.iter().any(|node| node.snapshot.is_some());
        if snapshot {
            header.push("from snapshot");
        }
        header.extend(["digest", "equal", "state", "equal"]);
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
            if snapshot {
                row.push(node.snapshot.map_or_else(|| "-".into(), |index| index.to_string()));
            }
            row.push(node.digest.chars().take(16).collect());
            row.push(if node.digests_equal { "yes" } else { "NO" }.into());
            row.push(node.state.chars().take(8).collect());
            row.push(match node.state_equal {
                Some(true) => "yes".into(),
                Some(false) => "NO".into(),
                None => "-".into(),
            });
            rows.add_row(row);
        }
        println!("{rows}");
        println!("{}", self.validator_table());
        println!(
            "chain {} with {} validators, {} commits in {} epochs; data in {}",
            self.chain, self.validators, self.head, self.epochs, self.data
        );
        let have_states = self.full_nodes.iter().all(|node| node.state_equal == Some(true));
        let verdict = match (self.ok, have_states) {
            (true, true) => {
                "ok: every full node reached the head, and all executors were given the same and have the same state"
            }
            (true, false) => "ok: every full node reached the head, and all executors were given the same",
            (false, _) => "FAILED: see the table; each node's log is node.log in its folder",
        };
        println!("{verdict}");
        Ok(())
    }

    fn validator_table(&self) -> impl std::fmt::Display {
        let killed = self.validator_kill.is_some();
        let mut header = vec!["validator", "blocks in commits"];
        if killed {
            header.extend(["killed at", "blocks after"]);
        }
        header.extend(["digest", "equal"]);
        let mut rows = table([""]);
        rows.set_header(header);
        for node in &self.validator_nodes {
            let mut row = vec![node.name.clone(), node.committed_blocks.to_string()];
            if let Some(kill) = &self.validator_kill {
                row.extend(match node.committed_after_kill {
                    Some(blocks) => [kill.height.to_string(), blocks.to_string()],
                    None => ["-"; 2].map(Into::into),
                });
            }
            row.push(node.digest.chars().take(16).collect());
            row.push(if node.digest_equal { "yes" } else { "NO" }.into());
            rows.add_row(row);
        }
        rows
    }
}
