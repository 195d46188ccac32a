//! Runs the broadcast simulation, and prints how long messages take, what they cost and which goals are met.
//! `make sim-broadcast` runs it.
//!
//! The scenarios are those of `soma_testkit::broadcast_simulation::Scenario`. The hostile one is played with many seeds
//! in a smaller network, and its worst seed is printed. A missed goal is an error. Equal arguments print equal tables,
//! times aside.

use soma_p2p_cli::CliError;
use soma_testkit::broadcast_simulation::{Goal, Outcome, Played, Scenario, Size, Unrest};
use std::{
    panic::resume_unwind,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Let nodes send each other messages in simulation.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scenarios: small, large, flood, churn, hostile. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = scenario)]
    scenario: Vec<Scenario>,
    /// Nodes of every scenario but `hostile` and `flood`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..))]
    nodes: u32,
    /// Nodes of the scenario `flood`.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    flood_nodes: u32,
    /// Validators among them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=1_000))]
    validators: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seed of every scenario, and the first of `hostile`.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of the nodes that leave in a minute of the scenario `churn`.
    #[arg(long, default_value_t = Unrest::default().leaves_per_minute)]
    leaves_per_minute: f64,
    /// How often each link breaks in a minute of the scenario `churn`.
    #[arg(long, default_value_t = Unrest::default().breaks_per_minute)]
    breaks_per_minute: f64,
    /// Nodes of the scenario `hostile`.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..))]
    hostile_nodes: u32,
    /// Hostile nodes among them.
    #[arg(long, default_value_t = 20)]
    hostile: u32,
    /// Seconds that the scenario `hostile` measures with each seed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    hostile_seconds: u64,
    /// Seeds of the scenario `hostile`.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Print one line of JSON for each run, too.
    #[arg(long)]
    json: bool,
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let names = Scenario::ALL.map(Scenario::name).join(", ");
    Scenario::ALL.into_iter().find(|scenario| scenario.name() == text).ok_or_else(|| format!("one of {names}"))
}

pub(crate) fn run(options: &Args) -> Result<ExitCode, CliError> {
    let chosen = match options.scenario.is_empty() {
        true => Scenario::ALL.to_vec(),
        false => options.scenario.clone(),
    };
    let mut missed = Vec::new();
    for scenario in chosen {
        let begun = Instant::now();
        let runs = play(scenario, options)?;
        if let Some(worst) = worst(&runs) {
            println!("{}", title(worst, runs.len()));
            print_outcomes(worst);
            print_goals(&runs);
            missed.extend(missed_by(&runs));
        }
        // Not on stdout: everything there is equal in two runs.
        eprintln!("{scenario:?}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    match missed.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CliError::failed(format!("goals missed: {}", missed.join("; ")))),
    }
}

fn play(scenario: Scenario, options: &Args) -> Result<Vec<Played>, CliError> {
    let size = Size {
        nodes: options.nodes as usize,
        validators: options.validators.min(options.nodes) as usize,
        hostile: 0,
        unrest: Unrest {
            leaves_per_minute: options.leaves_per_minute,
            breaks_per_minute: options.breaks_per_minute,
            ..Unrest::default()
        },
        measured: Duration::from_secs(options.seconds),
        seed: options.seed,
    };
    let sizes = match scenario {
        Scenario::Hostile => {
            let nodes = options.hostile_nodes as usize;
            let hostile = (options.hostile as usize).min(nodes / 2);
            let validators = (nodes / 5).max(4);
            let measured = Duration::from_secs(options.hostile_seconds);
            let of_seed = |more| Size { nodes, validators, hostile, measured, seed: size.seed + more, ..size.clone() };
            (0..options.seeds).map(of_seed).collect()
        }
        Scenario::Flood => {
            let nodes = options.flood_nodes as usize;
            let measured = size.measured.min(Duration::from_secs(20));
            vec![Size { nodes, validators: size.validators.min(nodes), measured, ..size }]
        }
        Scenario::Small | Scenario::Large | Scenario::Churn => vec![size],
    };
    let runs = play_each(scenario, &sizes);
    if options.json {
        for played in &runs {
            let line = serde_json::to_string(played).map_err(|error| CliError::failed(error.to_string()))?;
            println!("{line}");
        }
    }
    Ok(runs)
}

/// Plays the runs on all CPUs. They are independent: the result is the same on any number of them.
fn play_each(scenario: Scenario, sizes: &[Size]) -> Vec<Played> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get()).min(sizes.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut played = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(size) = sizes.get(place) else { return played };
            played.push((place, scenario.play(size)));
        }
    };
    let mut runs: Vec<(usize, Played)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    runs.sort_by_key(|(place, _)| *place);
    runs.into_iter().map(|(_, played)| played).collect()
}

/// The run that comes nearest to one of its limits, or exceeds it most.
fn worst(runs: &[Played]) -> Option<&Played> {
    let nearness =
        |played: &Played| played.goals.iter().map(|goal| (goal.value + 1e-9) / (goal.limit + 1e-9)).fold(0.0, f64::max);
    runs.iter().max_by(|one, other| nearness(one).total_cmp(&nearness(other)))
}

fn title(worst: &Played, runs: usize) -> String {
    let name = worst.scenario.name();
    match runs {
        1 => format!("== {name}, seed {}", worst.seed),
        _ => format!("== {name}, worst of {runs} seeds: {}", worst.seed),
    }
}

fn print_outcomes(played: &Played) {
    println!(
        "{:<14} {:>8} {:>9} {:>7} | {:>6} {:>7} {:>8} | {:>5} {:>5} {:>6} | {:>6} {:>7} {:>6} {:>5} | {:>7} {:>7}",
        "topic",
        "messages",
        "delivered",
        "missing",
        "50 %",
        "99 %",
        "100 % ms",
        "50 %",
        "99 %",
        "100 %",
        "bytes",
        "payload",
        "copies",
        "ids",
        "pulled",
        "dropped"
    );
    if let Some(alone) = &played.alone {
        print_rows(alone, " alone");
    }
    print_rows(&played.outcome, "");
    let Outcome { warm_up, left, broken_links, longest_queue, most_kept, penalties, equivocations, .. } =
        &played.outcome;
    println!(
        "bytes while the overlay took shape: {:.3}; nodes that left: {left}; links that broke: {broken_links}; \
         equivocations noticed: {equivocations}; most messages kept: {most_kept}; longest queues: {longest_queue:?}",
        warm_up.bytes_ratio
    );
    if !penalties.is_empty() {
        println!("hostile nodes were blamed: {penalties:?}");
    }
    for broken in &played.outcome.broken {
        println!("BROKEN: {broken}");
    }
}

/// A row for each topic: times in milliseconds and in mean one-way delays; traffic per delivery, of all topics.
fn print_rows(outcome: &Outcome, suffix: &str) {
    for (topic, delivery) in &outcome.topics {
        let delays = |ms: f64| ms / outcome.mean_delay_ms;
        let traffic = &outcome.traffic;
        println!(
            "{:<14} {:>8} {:>9} {:>7} | {:>6.0} {:>7.0} {:>8.0} | {:>5.2} {:>5.2} {:>6.2} | {:>6.3} {:>7.3} {:>6.3} {:>5.2} | {:>7} {:>7}",
            format!("{}{suffix}", &topic[..topic.len().min(12)]),
            delivery.messages,
            delivery.deliveries,
            delivery.missing,
            delivery.p50_ms,
            delivery.p99_ms,
            delivery.p100_ms,
            delays(delivery.p50_ms),
            delays(delivery.p99_ms),
            delays(delivery.p100_ms),
            traffic.bytes_ratio,
            traffic.payload_ratio,
            traffic.copies,
            traffic.ids,
            outcome.recovered,
            outcome.dropped,
        );
    }
}

/// Each goal, with the largest figure of all runs.
fn print_goals(runs: &[Played]) {
    let goals = runs.first().map_or(&[][..], |played| &played.goals);
    for (place, goal) in goals.iter().enumerate() {
        let of_each: Vec<&Goal> = runs.iter().filter_map(|played| played.goals.get(place)).collect();
        let largest = of_each.iter().map(|goal| goal.value).fold(0.0, f64::max);
        let met = of_each.iter().filter(|goal| goal.is_met()).count();
        let verdict = if met == runs.len() { "met" } else { "MISSED" };
        let seeds = if runs.len() == 1 { String::new() } else { format!(" ({met} of {} seeds)", runs.len()) };
        println!("{verdict:<7} {}: {largest:.3}, at most {}{seeds}", goal.what, goal.limit);
    }
    println!();
}

fn missed_by(runs: &[Played]) -> Vec<String> {
    let missed = |played: &Played| {
        let (name, seed) = (played.scenario.name(), played.seed);
        let goals = played.goals.iter().filter(|goal| !goal.is_met());
        goals.map(|goal| format!("{name}, seed {seed}: {} {:.3}", goal.what, goal.value)).collect::<Vec<_>>()
    };
    runs.iter().flat_map(missed).collect()
}
