//! `soma-lab localnet`: a whole network on this machine, each node a process of its own.
//!
//! ```text
//!   this process: builds the history, writes it into the validators' stores, then plays their consensus
//!       | commits over stdin
//!       v
//!   validator 0..n  <--- gRPC over mutual TLS on loopback --->  full node 1..m (told of ONE seed peer)
//! ```
//!
//! It ends by itself when every full node has caught up and followed the head for a while, stops all processes, and
//! compares what each full node's executor was given with what the validators' stores hold.

pub(crate) mod chain;
pub(crate) mod directory;
mod network;
pub(crate) mod process;
pub(crate) mod progress;
mod report;

use clap::builder::RangedU64ValueParser;
use soma_p2p_cli::CliError;
use soma_testkit::ChainSpec;
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Commits that the validators have when the full nodes start.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    commits: u32,
    /// Commits per second that the validators go on making; 0: none.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    rate: u32,
    /// Validators.
    #[arg(long, default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    validators: usize,
    /// Fresh full nodes.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    full_nodes: usize,
    /// Commits in one epoch.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(5..))]
    commits_per_epoch: u32,
    /// Certified transactions in one block.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    transactions: usize,
    /// Bytes of one transaction's payload.
    #[arg(long, default_value_t = 128, value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    payload: usize,
    /// Seconds for which the full nodes follow the head once they have caught up.
    #[arg(long, default_value_t = 5, value_name = "S")]
    seconds: u64,
    /// Kill the first full node with SIGKILL when it has applied about this many commits, and start it again.
    #[arg(long, value_name = "K")]
    kill_after: Option<u32>,
    /// Record what the actors of each full node receive, in a directory for each below this one.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    trace: Option<PathBuf>,
    /// Seed of keys and chain: equal seeds make equal chains.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 900, value_name = "S")]
    timeout: u64,
    /// Directory for configurations, stores and logs; what an earlier localnet left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "localnet-data")]
    dir: PathBuf,
    /// Print the result as JSON, and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn chain_spec(&self) -> ChainSpec {
        ChainSpec {
            seed: self.seed,
            name: "localnet".into(),
            stakes: vec![1; self.validators],
            transactions_per_block: self.transactions,
            payload_bytes: self.payload,
            commits_per_epoch: self.commits_per_epoch,
            ..ChainSpec::default()
        }
    }
}

/// Nodes read paths relative to their own configuration.
fn absolute(path: &str) -> Result<PathBuf, std::io::Error> {
    std::path::absolute(path)
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    if let Some(kill_after) = args.kill_after
        && kill_after >= args.commits
    {
        let reason = format!("--kill-after {kill_after} must be less than --commits {}", args.commits);
        return Err(CliError::input(reason));
    }
    network::run(args)
}
