//! Arguments of `soma-lab localnet`.

use crate::{ledger::Execution, validator::Work};
use clap::builder::RangedU64ValueParser;
use soma_p2p::Start;
use std::{net::SocketAddr, path::PathBuf};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Commits that the validators have when they start; up to the end of an epoch, with which their own chain begins.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) commits: u32,
    /// Commits per second that the validators make, at most; 0: none.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(super) rate: u32,
    /// Validators.
    #[arg(long, default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    pub(super) validators: usize,
    /// Fresh full nodes.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    pub(super) full_nodes: usize,
    /// Commits in one epoch. Those that the validators make have a few more.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(5..))]
    pub(super) commits_per_epoch: u32,
    /// Certified transactions in one block.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    pub(super) transactions: usize,
    /// Bytes of one transaction's payload.
    #[arg(long, default_value_t = 128, value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    pub(super) payload: usize,
    /// Seconds for which the full nodes follow the head once they have caught up.
    #[arg(long, default_value_t = 5, value_name = "S")]
    pub(super) seconds: u64,
    /// Kill the first full node with SIGKILL when it has applied about this many commits, and start it again.
    #[arg(long, value_name = "K")]
    pub(super) kill_after: Option<u32>,
    /// Kill so many validators with SIGKILL when the full nodes have caught up, and start them again: --kill-validator
    /// kills one. While fewer than a quorum live, the chain stands still.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", alias = "kill-validator")]
    pub(super) kill_validators: Option<usize>,
    /// Record what the actors of each full node receive, in a directory for each below this one.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(super) trace: Option<PathBuf>,
    /// Archive that the validators write together, and that the full nodes read: a directory, or a URL such as
    /// s3://BUCKET/PATH. With --prune, validators prune too, so that the past is in the archive alone.
    #[arg(long, value_name = "ARCHIVE", value_parser = absolute_place)]
    pub(super) archive: Option<String>,
    /// Commits that the full nodes keep, unless they start late. The validators keep all, unless there is an archive.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..))]
    pub(super) prune: Option<u32>,
    /// Where the fresh full nodes begin.
    #[arg(long, value_enum, default_value_t = StartArg::Genesis)]
    pub(super) start: StartArg,
    /// What the fresh full nodes begin with. With a snapshot they begin after the last epoch that has ended.
    #[arg(long, value_enum, default_value_t = JoinArg::Commits)]
    pub(super) join: JoinArg,
    /// Commits between two snapshots that executors take.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) snapshot_every: u32,
    /// Seed of keys and chain: equal seeds make equal chains.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 900, value_name = "S")]
    pub(super) timeout: u64,
    /// Directory for configurations, stores and logs; what an earlier localnet left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "localnet-data")]
    pub(super) dir: PathBuf,
    /// Serve a page of the whole network: nodes, links, heights and transfers.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:0", value_parser = loopback)]
    pub(super) page: Option<SocketAddr>,
    /// Print the result as JSON, and nothing else on standard output.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where a fresh full node begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StartArg {
    /// With commit 1.
    Genesis,
    /// After the last epoch that has ended.
    LatestEpoch,
}

/// What a fresh full node executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum JoinArg {
    /// Every commit from its start on.
    Commits,
    /// The commits after a snapshot of other nodes.
    Snapshot,
}

impl From<StartArg> for Start {
    fn from(start: StartArg) -> Self {
        match start {
            StartArg::Genesis => Self::Genesis,
            StartArg::LatestEpoch => Self::LatestEpoch,
        }
    }
}

impl Args {
    /// Where the full nodes begin.
    pub(super) fn start(&self) -> StartArg {
        if self.join == JoinArg::Snapshot { StartArg::LatestEpoch } else { self.start }
    }

    /// How executors work.
    pub(super) fn execution(&self, join: JoinArg) -> Execution {
        Execution { snapshot_every: self.snapshot_every, join_snapshot: join == JoinArg::Snapshot }
    }

    /// Whether the validators keep no more than the full nodes.
    pub(super) fn validators_prune(&self) -> bool {
        self.archive.is_some() && self.prune.is_some()
    }

    /// Commits of the history: whole epochs.
    pub(super) fn history(&self) -> u32 {
        self.commits.div_ceil(self.commits_per_epoch).saturating_mul(self.commits_per_epoch)
    }

    /// What the validators do.
    pub(super) fn work(&self) -> Work {
        Work {
            rate: self.rate,
            commits_per_epoch: self.commits_per_epoch,
            transactions: self.transactions,
            payload: self.payload,
            validators: self.validators,
            seed: self.seed,
        }
    }
}

/// The page has no authentication.
fn loopback(address: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = address.parse().map_err(|error| format!("{error}; an address is like 127.0.0.1:8080"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err("must be a loopback address".into()) }
}

/// As [`absolute`], but for URLs.
fn absolute_place(place: &str) -> Result<String, std::io::Error> {
    if place.contains("://") { Ok(place.into()) } else { absolute(place).map(|path| path.display().to_string()) }
}

/// Nodes read paths relative to their own configuration.
fn absolute(path: &str) -> Result<PathBuf, std::io::Error> {
    std::path::absolute(path)
}
