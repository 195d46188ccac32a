//! Lets a network find itself in simulation, and prints how far it has got after each interval. `make sim-discovery` runs
//! it.
//!
//! First a thousand nodes, each of which knows one of three seeds; then 300 among 500 identities of an attacker in two
//! networks. In each run 30 % of the nodes crash after twelve intervals and come back. Ends with an error as soon as a
//! promise is broken (see `soma_testkit::crowd::Run`). Equal arguments print equal tables, times aside.

use soma_p2p_cli::CliError;
use soma_testkit::crowd::{Run, Settings, Standing};
use std::{process::ExitCode, time::Instant};

/// Let nodes find each other in simulation.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Honest nodes of the run without an attacker.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_ten)]
    nodes: usize,
    /// Honest nodes of the run with one.
    #[arg(long, default_value_t = 300, value_parser = at_least_ten)]
    besieged: usize,
    /// Identities of the attacker; 0: no such run.
    #[arg(long, default_value_t = 500)]
    attackers: usize,
    /// Seeds of the simulation, each of which is a run more.
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

fn play(settings: Settings) -> Result<(), soma_testkit::crowd::Broken> {
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
    Run::new(settings).play(|interval, standing| println!("{}", row(interval, standing)))?;
    println!("every promise was kept; {:.1} s\n", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The least of all nodes, and the mean.
fn row(interval: u32, standing: &Standing) -> String {
    format!(
        "{interval:>8} {:>6} {:>8.1} {:>7.1} {:>7} {:>6.1} {:>10} {:>13} {:>8} {:>6} {:>9}",
        standing.up,
        standing.known_least,
        standing.known_mean,
        standing.links_least,
        standing.links_mean,
        standing.at_target,
        standing.attacker_links_most,
        standing.honest_least,
        standing.parts,
        standing.diameter,
    )
}
