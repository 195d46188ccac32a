//! The `soma-p2p` command. `soma-p2p help` lists its commands.

use clap::Parser;
use soma_p2p_cli::{Cli, run_program};
use std::process::ExitCode;

fn main() -> ExitCode {
    run_program(|| Cli::parse().command.run())
}
