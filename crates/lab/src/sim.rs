//! Simulates whole networks over many seeds, and shrinks what fails. `make sim` runs it.

use soma_p2p_cli::CliError;
use soma_testkit::simulation::{
    Failure, LINK_DELAYS, Report, Scenario, delays_under_attack, full, hostile_scenario, random_scenario, scenarios,
    secs, shrink, silent_majority,
};
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// Runs that shrinking a failed scenario may take.
const SHRINK_RUNS: usize = 200;

/// Seeds between two lines that say how far it has got.
const SEEDS_PER_LINE: u64 = 10;

/// Simulate whole networks: named scenarios, random ones, and one honest node among hostile ones, each twice for each
/// seed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run only this scenario: a name as `--list` prints it, `random`, `hostile` or `silent`.
    #[arg(long)]
    scenario: Option<String>,
    /// Where the trace of a failure goes.
    #[arg(long, default_value = "target/sim")]
    traces: PathBuf,
    /// Print the scenarios before they are played.
    #[arg(long)]
    tell: bool,
    /// Print everything that happens, instead of running twice.
    #[arg(long)]
    journal: bool,
    /// Print the named scenarios and end.
    #[arg(long)]
    list: bool,
}

/// Scenarios out of a seed, by the first word of their names.
const DRAWN: &[(&str, Draw)] = &[("random", random_scenario), ("hostile", hostile_scenario), (SILENT, silent_majority)];

/// Of these, in which no commit may be late.
const SILENT: &str = "silent";

type Draw = fn(u64) -> Scenario;

pub(crate) fn run(options: &Args) -> Result<ExitCode, CliError> {
    if options.list {
        for scenario in scenarios::all().iter().chain([&scenarios::large()]) {
            println!("{scenario}\n");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (from, to) = match options.seed {
        Some(seed) => (seed, seed + 1),
        None => (options.from, options.from + options.seeds),
    };
    let named = match options.scenario.as_deref() {
        None => scenarios::all(),
        Some(name) if DRAWN.iter().any(|(drawn, _)| *drawn == name) => Vec::new(),
        Some(name) => match scenarios::all().into_iter().chain([scenarios::large()]).find(|known| known.name == name) {
            Some(scenario) => vec![scenario],
            None => return Err(CliError::input(format!("no scenario is called {name:?}; --list prints them"))),
        },
    };
    let drawn = DRAWN.iter().filter(|(drawn, _)| options.scenario.as_deref().is_none_or(|name| name == *drawn));
    let begun = Instant::now();
    for seed in from..to {
        for scenario in named.iter().cloned().chain(drawn.clone().map(|(_, draw)| draw(seed))) {
            if options.tell {
                println!("{scenario}\n");
            }
            if options.journal {
                for line in scenario.tell(seed).unwrap_or_else(|error| vec![error.to_string()]) {
                    println!("{line}");
                }
                continue;
            }
            let run = Instant::now();
            match scenario.run_twice(seed) {
                Ok(report) => {
                    tell(options, &scenario, &report, run);
                    let latest = delays_under_attack(&report, full(0)).into_iter().max().unwrap_or_default();
                    if scenario.name == format!("{SILENT} {seed}") && latest > secs(1) + LINK_DELAYS {
                        println!("scenario {:?}: a commit came {latest:?} late", scenario.name);
                        tell_trace(options, &scenario, seed);
                        return Ok(ExitCode::FAILURE);
                    }
                }
                Err(failure) => {
                    report_failure(options, &scenario, seed, failure);
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        let done = seed - from + 1;
        if !options.journal && (done % SEEDS_PER_LINE == 0 || seed + 1 == to) {
            println!("{done} seeds ({from} to {seed}), all as it must be, {:.1} s", begun.elapsed().as_secs_f64());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each run, where there are few.
fn tell(options: &Args, scenario: &Scenario, report: &Report, run: Instant) {
    if options.seed.is_some() || options.scenario.is_some() {
        println!("{}: {report}, {:.2} s for two runs", scenario.name, run.elapsed().as_secs_f64());
    }
}

fn report_failure(options: &Args, scenario: &Scenario, seed: u64, failure: Failure) {
    println!("\nscenario {:?}: {failure}", scenario.name);
    if let Failure::Broken { tail, .. } = &failure {
        println!("what happened last:\n  {}", tail.join("\n  "));
    }
    println!("shrinking ...");
    let shrunk = shrink(scenario, SHRINK_RUNS, |smaller| match &failure {
        // Only two runs show that they differ.
        Failure::Diverged { .. } => smaller.run_twice(seed).is_err_and(|other| other.is_like(&failure)),
        _ => smaller.run(seed).is_err_and(|other| other.is_like(&failure)),
    });
    println!("after {} runs, this still fails:\n\n{}\n", shrunk.runs, shrunk.scenario);
    tell_trace(options, &shrunk.scenario, seed);
    let drawn = DRAWN.iter().map(|(drawn, _)| *drawn).find(|drawn| scenario.name == format!("{drawn} {seed}"));
    let name = drawn.unwrap_or(&scenario.name);
    println!("rerun: make sim SEED={seed} SCENARIO={name:?}");
}

fn tell_trace(options: &Args, scenario: &Scenario, seed: u64) {
    match write_trace(options, scenario, seed) {
        Ok(path) => println!("its trace: soma-lab replay show {}", path.display()),
        Err(error) => println!("its trace could not be written: {error}"),
    }
}

/// Writes what the actors of the failed run were fed.
fn write_trace(options: &Args, scenario: &Scenario, seed: u64) -> anyhow::Result<PathBuf> {
    let path = options.traces.join(format!("{seed}.trace"));
    std::fs::create_dir_all(&options.traces)?;
    std::fs::write(&path, scenario.record(seed)?)?;
    Ok(path)
}
