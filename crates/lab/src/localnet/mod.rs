//! `soma-lab localnet`: a whole network on this machine, each node a process of its own.
//!
//! ```text
//!   this process: builds the history and writes it into the validators' stores
//!
//!   validator 0..n  <--- gRPC over mutual TLS on loopback --->  full node 1..m (told of ONE seed peer)
//!     `- make the chain from there, with the consensus of `crate::consensus`
//! ```
//!
//! It ends by itself when every full node has caught up and followed the head for a while, stops all processes, and
//! compares what each executor was given with what the validators' stores hold.

mod args;
pub(crate) mod chain;
pub(crate) mod directory;
mod full_node;
mod network;
mod page;
pub(crate) mod process;
pub(crate) mod progress;
mod report;
mod sample;
mod validator_kill;
mod validators;

use soma_p2p_cli::CliError;
use std::process::ExitCode;

pub(crate) use args::Args;

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    if let Some(kill_after) = args.kill_after
        && kill_after >= args.commits
    {
        let reason = format!("--kill-after {kill_after} must be less than --commits {}", args.commits);
        return Err(CliError::input(reason));
    }
    if args.validators_prune() && args.rate == 0 {
        return Err(CliError::input("--prune with --archive needs --rate: validators prune when they store commits"));
    }
    if args.start() != args::StartArg::Genesis && args.prune.is_some() && args.archive.is_none() {
        return Err(CliError::input("--prune with --start needs --archive: full nodes that start late prune nothing"));
    }
    if args.join == args::JoinArg::Snapshot && args.rate == 0 && !args.history().is_multiple_of(args.snapshot_every) {
        let reason = "--join snapshot without --rate needs a snapshot at the end of the history: --snapshot-every that divides it";
        return Err(CliError::input(reason));
    }
    if let Some(count) = args.kill_validators {
        if args.rate == 0 {
            return Err(CliError::input("--kill-validators needs --rate: without, there is no chain to go on"));
        }
        if count == 0 || count >= args.validators {
            let reason = format!("--kill-validators {count} must be at least 1 and leave one of {}", args.validators);
            return Err(CliError::input(reason));
        }
    }
    network::run(args)
}
