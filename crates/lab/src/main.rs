//! The `soma-lab` command: networks on one machine, benchmarks and simulations. `soma-lab help` lists its commands.

#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "simulation")]
mod bless_traces;
mod chaos;
mod consensus;
mod interrupt;
mod ledger;
mod localnet;
#[cfg(feature = "simulation")]
mod mutants;
#[cfg(feature = "simulation")]
mod sim;
#[cfg(feature = "simulation")]
mod sim_broadcast;
#[cfg(feature = "simulation")]
mod sim_discovery;
#[cfg(feature = "simulation")]
mod sim_latency;
mod validator;

use clap::{Parser, Subcommand};
use soma_p2p_cli::{CliError, run_program};
use std::process::ExitCode;

/// Experiments with soma-p2p: networks on this machine, benchmarks and simulations. Has the commands of soma-p2p, too.
///
/// Exit codes: 0 done, 1 failed, 2 wrong input (nothing was written).
#[derive(Parser)]
#[command(name = "soma-lab", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole network on this machine and watch new nodes catch up.
    Localnet(localnet::Args),
    /// One validator of such a network.
    #[command(hide = true)]
    Validator(validator::Args),
    /// One full node of such a network.
    #[command(hide = true)]
    FullNode(ledger::Args),
    /// Run such a network while its nodes are killed and restarted, and count what gets lost.
    Chaos(chaos::Args),
    /// Measure how fast nodes sync, compared with the limits of the hardware.
    #[cfg(feature = "bench")]
    Bench(bench::Args),
    /// One node of a benchmark.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchNode,
    /// One node of a benchmark of objects.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchObjectNode,
    /// One node of libp2p in a benchmark.
    #[cfg(feature = "gossipsub")]
    #[command(hide = true)]
    BenchGossipsubNode,
    /// Simulate whole networks over many seeds, and shrink what fails.
    #[cfg(feature = "simulation")]
    Sim(sim::Args),
    /// Let nodes send each other messages in simulation.
    #[cfg(feature = "simulation")]
    SimBroadcast(sim_broadcast::Args),
    /// Let nodes find each other in simulation.
    #[cfg(feature = "simulation")]
    SimDiscovery(sim_discovery::Args),
    /// Measure in simulation what latency costs a sync.
    #[cfg(feature = "simulation")]
    SimLatency(sim_latency::Args),
    /// Break the range planner on purpose, and see whether simulation finds each bug.
    #[cfg(feature = "simulation")]
    Mutants,
    /// Write the golden traces anew, and show the changes.
    #[cfg(feature = "simulation")]
    BlessTraces(bless_traces::Args),
    #[command(flatten)]
    Operator(soma_p2p_cli::Command),
}

impl Command {
    fn run(&self) -> Result<ExitCode, CliError> {
        match self {
            Self::Localnet(args) => localnet::run(args),
            Self::Validator(args) => validator::run(args),
            Self::FullNode(args) => ledger::run_full_node(args),
            Self::Chaos(args) => chaos::run(args),
            #[cfg(feature = "bench")]
            Self::Bench(args) => bench::run(args),
            #[cfg(feature = "bench")]
            Self::BenchNode => bench::run_node(),
            #[cfg(feature = "bench")]
            Self::BenchObjectNode => bench::run_object_node(),
            #[cfg(feature = "gossipsub")]
            Self::BenchGossipsubNode => bench::run_gossipsub_node(),
            #[cfg(feature = "simulation")]
            Self::Sim(args) => sim::run(args),
            #[cfg(feature = "simulation")]
            Self::SimBroadcast(args) => sim_broadcast::run(args),
            #[cfg(feature = "simulation")]
            Self::SimDiscovery(args) => sim_discovery::run(args),
            #[cfg(feature = "simulation")]
            Self::SimLatency(args) => sim_latency::run(args).map_err(CliError::failed),
            #[cfg(feature = "simulation")]
            Self::Mutants => mutants::run().map_err(CliError::failed),
            #[cfg(feature = "simulation")]
            Self::BlessTraces(args) => bless_traces::run(args).map_err(CliError::failed),
            Self::Operator(command) => command.run(),
        }
    }
}

fn main() -> ExitCode {
    run_program(|| Cli::parse().command.run())
}
