//! The commands of `soma-p2p`, as a library: `soma-lab` has them besides its experiments.

pub mod admin;
mod advice;
mod archive;
mod checkpoint;
mod config_command;
mod control;
pub mod error;
pub mod executor;
pub mod feed;
pub mod files;
mod genesis;
mod grpc_health;
mod inspect;
mod keygen;
mod logging;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;
pub mod node;
pub mod node_config;
pub mod node_status;
#[cfg(feature = "otlp")]
mod otlp;
mod overrides;
mod page;
mod peers;
mod ping;
mod process_metrics;
mod readiness;
pub mod record;
mod replay;
mod running;
mod service;
mod shell;
mod status;
mod store;
mod top;

pub use error::CliError;
pub use page::common as common_page_routes;
pub use status::{fetch as fetch_status, table};

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Peer-to-peer sync for a Soma node.
///
/// Exit codes: 0 done, 1 failed, 2 wrong input (nothing was written).
#[derive(Parser)]
#[command(name = "soma-p2p", version, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What an operator can do.
#[derive(Subcommand)]
pub enum Command {
    /// Make a network key.
    Keygen(keygen::Args),
    /// Make a committee with its keys, and the genesis of a new chain.
    Genesis(genesis::Args),
    /// Check a configuration file, or print one with all defaults.
    Config(config_command::Args),
    /// Run a node.
    Node(node::Args),
    /// Show how a running node is doing.
    Status(status::Args),
    /// Show how a running node is doing in a terminal, live.
    Top(top::Args),
    /// Show the connected peers of a running node, and its address book.
    Peers(peers::Args),
    /// Change a running node: its peers, bans and log, a checkpoint, a trace.
    Control(control::Args),
    /// Ask any node for its identity, and how it sees this caller.
    Ping(ping::Args),
    /// Look into a store.
    Inspect(inspect::Args),
    /// Prune, compact or verify the store of a stopped node.
    Store(store::Args),
    /// Copy history between a store and an archive in object storage, or check an archive.
    Archive(archive::Args),
    /// Write or check a file at which a node can begin without the past.
    Checkpoint(checkpoint::Args),
    /// Show what the actors of a node received, or feed it to their cores again.
    Replay(replay::Args),
    /// Print a script that completes the arguments of soma-p2p in a shell.
    Completions(shell::CompletionsArgs),
    /// Write the man pages of soma-p2p.
    Man(shell::ManArgs),
}

impl Command {
    /// Runs the command to its end.
    pub fn run(&self) -> Result<ExitCode, CliError> {
        match self {
            Self::Keygen(args) => keygen::run(args),
            Self::Genesis(args) => genesis::run(args),
            Self::Config(args) => config_command::run(args),
            Self::Node(args) => node::run(args),
            Self::Status(args) => status::run(args),
            Self::Top(args) => top::run(args),
            Self::Peers(args) => peers::run(args),
            Self::Control(args) => control::run(args),
            Self::Ping(args) => ping::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Store(args) => store::run(args),
            Self::Archive(args) => archive::run(args),
            Self::Checkpoint(args) => checkpoint::run(args),
            Self::Replay(args) => replay::run(args),
            Self::Completions(args) => shell::completions(args),
            Self::Man(args) => shell::man(args),
        }
    }
}

/// Runs a program made of commands: sets up its allocator, prints an error as one line, and maps it to an exit code.
///
/// Call it first in `main`, before there is a second thread.
pub fn run_program(command: impl FnOnce() -> Result<ExitCode, CliError>) -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    memory::keep_freed();
    command().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit_code()
    })
}
