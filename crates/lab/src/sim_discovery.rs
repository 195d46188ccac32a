//! Runs the discovery simulation, and prints the progress after each interval. `make sim-discovery` runs it.
//!
//! First a thousand nodes, each of which knows one of three seeds; then 300 among 500 identities of an attacker in two
//! networks. In each run 30 % of the nodes crash after twelve intervals and restart. The first broken promise
//! (see `soma_testkit::discovery_simulation::Run`) is an error. Equal arguments print equal tables, times aside.

use soma_p2p_cli::CliError;
use soma_testkit::discovery_simulation::{Progress, Run, Settings};
use std::{process::ExitCode, time::Instant};

/// Let nodes find each other in simulation.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Honest nodes of the run without an attacker.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_ten)]
    nodes: usize,
    /// Honest nodes of the run with an attacker.
    #[arg(long, default_value_t = 300, value_parser = at_least_ten)]
    besieged: usize,
    /// Identities of the attacker; 0 skips the run with an attacker.
    #[arg(long, default_value_t = 500)]
    attackers: usize,
    /// Seeds of the simulation; each adds a run.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seed: Vec<u64>,
}

fn at_least_ten(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes) if nodes >= 10 => Ok(nodes),
        Ok(_) => Err("at least 10".into()),
        Err(error) => Err(format!("{error}")),
    }
}

pub(crate) fn run(options: &Args) -> Result<ExitCode, CliError> {
    for seed in &options.seed {
        let mut runs = vec![(options.nodes, 0)];
        if options.attackers > 0 {
            runs.push((options.besieged, options.attackers));
        }
        for (nodes, attackers) in runs {
            if let Err(broken) = play(Settings { nodes, attackers, seed: *seed, ..Settings::default() }) {
                let reason = format!("seed {seed}, {nodes} nodes, {attackers} attackers: {broken}");
                return Err(CliError::failed(reason));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn play(settings: Settings) -> Result<(), soma_testkit::discovery_simulation::Broken> {
    let Settings { nodes, seeds, attackers, attacker_networks, networks, interval, target_connections, seed, .. } =
        settings;
    println!(
        "{nodes} nodes in {networks} networks, {seeds} seeds; {attackers} identities of an attacker in {attacker_networks}; \
         interval {interval:?}, {target_connections} links wanted, seed {seed}"
    );
    println!(
        "{:>8} {:>6} {:>16} {:>14} {:>10} {:>13} {:>8} {:>6} {:>9}",
        "interval", "up", "known %", "links", "at target", "of attacker", "honest", "parts", "diameter"
    );
    let begun = Instant::now();
    Run::new(settings).play(|interval, progress| println!("{}", row(interval, progress)))?;
    println!("every promise was kept; {:.1} s\n", begun.elapsed().as_secs_f64());
    Ok(())
}

/// One line of the table: least and mean over all nodes.
fn row(interval: u32, progress: &Progress) -> String {
    format!(
        "{interval:>8} {:>6} {:>8.1} {:>7.1} {:>7} {:>6.1} {:>10} {:>13} {:>8} {:>6} {:>9}",
        progress.up,
        progress.known_least,
        progress.known_mean,
        progress.links_least,
        progress.links_mean,
        progress.at_target,
        progress.attacker_links_most,
        progress.honest_least,
        progress.parts,
        progress.diameter,
    )
}
