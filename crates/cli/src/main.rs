//! The `soma-p2p` command. `soma-p2p help` lists what it does.

mod admin;
mod bench;
mod chaos;
mod error;
mod executor;
mod files;
mod genesis;
mod inspect;
mod keygen;
mod localnet;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;
mod node;
mod node_config;
mod peers;
mod ping;
mod record;
mod replay;
mod running;
mod status;

use clap::{Parser, Subcommand};
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

#[derive(Subcommand)]
enum Command {
    /// Make a network key.
    Keygen(keygen::Args),
    /// Make a committee with its keys, and the genesis of a new chain.
    Genesis(genesis::Args),
    /// Run a node.
    Node(node::Args),
    /// Show how a running node is doing.
    Status(status::Args),
    /// Show whom a running node is connected to, and whom it knows.
    Peers(peers::Args),
    /// Ask a node, running anywhere, who it is and how it sees us.
    Ping(ping::Args),
    /// Run a whole network on this machine and watch new nodes catch up.
    Localnet(localnet::Args),
    /// Run such a network while its nodes are killed and restarted, and count what gets lost.
    Chaos(chaos::Args),
    /// Measure how fast nodes sync, beside what the hardware allows.
    Bench(bench::Args),
    /// One node of a benchmark.
    #[command(hide = true)]
    BenchNode,
    /// Look into a store.
    Inspect(inspect::Args),
    /// Show what the actors of a node received, or feed it to their cores again.
    Replay(replay::Args),
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    memory::keep_freed();
    let result = match Cli::parse().command {
        Command::Keygen(args) => keygen::run(&args),
        Command::Genesis(args) => genesis::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Localnet(args) => localnet::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchNode => bench::node::run(),
        Command::Inspect(args) => inspect::run(&args),
        Command::Replay(args) => replay::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
