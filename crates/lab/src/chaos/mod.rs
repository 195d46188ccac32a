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
//! Counts come from nothing but the records, see [`soma_p2p_cli::record`]: each node writes down what its store has
//! when it starts and every commit that its executor is given; this process adds kills and what the node had
//! announced before.

mod args;
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
use soma_p2p_cli::CliError;
use std::{io::IsTerminal, process::ExitCode, time::Instant};

pub(crate) use args::Args;

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
