//! The `soma-p2p` command. `soma-p2p help` lists its commands.

use clap::Parser;
use soma_p2p_cli::{Command, run_program};
use std::process::ExitCode;

/// Peer-to-peer sync for a Soma node.
///
/// Exit codes: 0 done, 1 failed, 2 wrong input (nothing was written).
#[derive(Parser)]
#[command(name = "soma-p2p", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    run_program(|| Cli::parse().command.run())
}
