//! `soma-p2p replay`

use crate::error::CliError;
use clap::Subcommand;
use soma_replay::{Options, Report, Trace, json, replay};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print each record as one line of JSON.
    Show {
        /// A trace file, or a directory of trace files.
        #[arg(value_name = "TRACE")]
        trace: PathBuf,
    },
    /// Make each core from its recorded state, feed it the recorded inputs, and compare its decisions.
    ///
    /// Exit codes: 0 identical, 1 something differs or was changed, 2 no trace.
    Run(RunArgs),
}

#[derive(clap::Args)]
struct RunArgs {
    /// A trace file, or a directory of trace files.
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Replay one actor only: `state-sync`, or in a simulation's trace `full-1/state-sync`.
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Stop after the record of this number.
    #[arg(long, value_name = "NUMBER")]
    until: Option<u64>,
    /// Print the state in which each actor is at the end, as JSON.
    #[arg(long)]
    dump_state: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.what {
        What::Show { trace } => show(&read(trace)?),
        What::Run(args) => run_again(args),
    }
}

fn read(path: &Path) -> Result<Trace, CliError> {
    Trace::read(path).map_err(CliError::input)
}

fn show(trace: &Trace) -> Result<ExitCode, CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = json(trace).try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(CliError::failed),
    }
}

fn run_again(args: &RunArgs) -> Result<ExitCode, CliError> {
    let trace = read(&args.trace)?;
    let options = Options { actor: args.actor.clone(), until: args.until };
    let report = replay(&trace, &options, &mut |_| ())
        .map_err(|error| CliError::input(format!("{}: {error}", args.trace.display())))?;
    if let Some(actor) = args.actor.as_ref().filter(|_| report.actors.is_empty()) {
        return Err(CliError::input(format!("{}: no messages of an actor {actor:?}", args.trace.display())));
    }
    let mut text = report.to_string();
    if args.dump_state {
        text.push_str(&states(&report)?);
    }
    print!("{text}");
    Ok(if report.is_identical() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn states(report: &Report) -> Result<String, CliError> {
    let states = report.actors.iter().filter_map(|((node, name), actor)| {
        let name = if node.is_empty() { name.clone() } else { format!("{node}/{name}") };
        Some((name, actor.state.clone()?))
    });
    let states: serde_json::Map<_, _> = states.collect();
    Ok(serde_json::to_string_pretty(&states).map_err(CliError::failed)? + "\n")
}
