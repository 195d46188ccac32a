//! `soma-lab chaos`: a local network whose nodes are killed with SIGKILL and restarted, again and again, while it syncs
//! and makes commits. Counts what got lost and what executors were given twice.
//!
//! ```text
//!   this process:  Consensus  makes commits, offers them to each validator from where its store ends
//!                  Watcher    asks every node what it has, and what the others have announced to it
//!                  Network    kills, restarts            | signals, stdin
//!                                                        v
//!   validator 0..n  <--- gRPC over mutual TLS on loopback --->  full node 0..m (told of ONE seed peer)
//!        |                                                       |
//!        +--- record.log: opened, given, acknowledged ... -------+---> Tally: lost, duplicated
//! ```
//!
//! Counts come from nothing but the records, see [`soma_p2p_cli::record`]: each node writes down what its store has when it
//! starts and every commit that its executor is given; this process adds kills and what the node had announced before.

mod consensus;
mod network;
mod node;
mod report;
mod schedule;
mod tally;
mod watcher;

use crate::{
    interrupt::{self, Stop},
    localnet::{directory, progress::Display},
};
use clap::builder::RangedU64ValueParser;
use soma_p2p_cli::CliError;
use soma_testkit::ChainSpec;
use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Instant};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// How often a node is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: u32,
    /// Seed of the chain, of the moments and of the victims. Nodes are processes: equal seeds do not make equal runs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Commits that the validators have at the start.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    commits: u32,
    /// Commits per second that are made meanwhile.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Validators; one of them is always up.
    #[arg(long, default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(2..=50))]
    validators: usize,
    /// Full nodes with nothing at first; one is there from the start, the others join on the way.
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    full_nodes: usize,
    /// Commits in one epoch.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(5..))]
    commits_per_epoch: u32,
    /// Certified transactions in one block.
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    transactions: usize,
    /// Bytes of one transaction's payload.
    #[arg(long, default_value_t = 128, value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    payload: usize,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 1_800, value_name = "S")]
    timeout: u64,
    /// Directory for configurations, stores, records and logs; what an earlier network left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "localnet-data")]
    dir: PathBuf,
    /// Tell every kill also when there is no terminal.
    #[arg(long)]
    verbose: bool,
    /// Run nothing: count again from the records that an earlier run has left in the directory.
    #[arg(long)]
    recount: bool,
}

impl Args {
    fn chain_spec(&self) -> ChainSpec {
        ChainSpec {
            seed: self.seed,
            name: "chaos".into(),
            stakes: vec![1; self.validators],
            transactions_per_block: self.transactions,
            payload_bytes: self.payload,
            commits_per_epoch: self.commits_per_epoch,
            ..ChainSpec::default()
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    if args.recount {
        return report::recount(&args.dir);
    }
    let interrupted = interrupt::on_ctrl_c()?;
    // Without a terminal only the result is printed; chaos.log tells the rest.
    let display = Display::new(!args.verbose && !std::io::stderr().is_terminal());
    let _ours = directory::prepare(&args.dir)?;
    let dir = args.dir.canonicalize().map_err(CliError::failed)?;
    let started = Instant::now();
    let outcome = network::Network::run(args, &dir, &display, &interrupted);
    match outcome.stopped {
        Some(Stop::Interrupted) => return Ok(interrupt::said(&dir)),
        Some(Stop::Failed(ref error)) => eprintln!("error: {error}"),
        None => {}
    }
    let ok = report::conclude(args, &dir, &outcome, started)? && outcome.stopped.is_none();
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
