//! `soma-lab bench`: how fast nodes are, beside what the hardware allows.
//!
//! ```text
//!   mod.rs: which cases            session.rs: directories, chains, results of one run
//!     |
//!     +-- sync.rs, growth.rs, head.rs, ...: a file for each kind of measurement, listed in MEASUREMENTS
//!           |-- chain.rs     what is synced, on disk
//!           |-- limit.rs     what its irreducible parts cost (tls_stream.rs, usage.rs)
//!           |-- child.rs     a node's process, seen from here; node.rs, pace.rs: seen from there
//!           `-- report.rs, plot.rs
//! ```

mod chain;
mod child;
mod growth;
mod head;
mod idle;
mod limit;
pub(crate) mod node;
mod pace;
mod plot;
mod report;
mod serving;
mod session;
mod sync;
mod tls_stream;
mod usage;

use crate::interrupt;
use session::Session;
use soma_p2p_cli::CliError;
use std::{path::PathBuf, process::ExitCode};

/// Every kind of measurement, in the order in which they are run.
const MEASUREMENTS: &[Measurement] =
    &[sync::MEASUREMENT, growth::MEASUREMENT, head::MEASUREMENT, idle::MEASUREMENT, serving::MEASUREMENT];

/// A kind of measurement.
struct Measurement {
    /// The first part of the names of its cases.
    name: &'static str,
    /// Names of its cases; of the few short ones for `--quick`.
    cases: fn(quick: bool) -> Vec<String>,
    /// Runs the cases named: a line of JSON for each, a table on standard output for all.
    run: fn(&mut Session, &[String]) -> Result<(), CliError>,
}

/// Measure how fast nodes sync, beside what the hardware allows.
///
/// Every node is a process of its own, with its store on disk, and talks gRPC over mutual TLS on loopback. The `limit`
/// is what the irreducible parts of a sync cost alone, on the same bytes, measured before and after: signatures in
/// batches, TLS, and writing to the disk. `ratio` is the time of the sync over the limit.
///
/// Prints tables, and appends a line of JSON for each case to `OUT/TIME.jsonl`, with plots beside it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Cases to run: those whose name contains one of these; all without any.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// A few short cases, for a first impression: under three minutes.
    #[arg(long)]
    quick: bool,
    /// List the cases that would be run, and run none.
    #[arg(long)]
    list: bool,
    /// Directory for results; stores are kept there, too, while it runs.
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    out: PathBuf,
    /// Blocks of each chain that is synced; what the case says without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(40..=10_000_000))]
    blocks: Option<u32>,
    /// Commits in one epoch.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(5..))]
    commits_per_epoch: u32,
    /// Users who send the transactions of C blocks in turn: fewer keys are cheaper for a verifier that joins equal ones.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    senders: u32,
    /// Syncs of each case, of which the median counts: other guests of the machine make single ones differ.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Give a sync up after this many seconds.
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let wanted = |name: &String| args.filters.is_empty() || args.filters.iter().any(|filter| name.contains(filter));
    let chosen = MEASUREMENTS.iter().map(|measurement| {
        let cases: Vec<String> = (measurement.cases)(args.quick).into_iter().filter(wanted).collect();
        (measurement, cases)
    });
    let chosen: Vec<_> = chosen.filter(|(_, cases)| !cases.is_empty()).collect();
    if chosen.is_empty() {
        let filters = args.filters.join(", ");
        return Err(CliError::input(format!("no case has a name with {filters} in it; --list shows all")));
    }
    if args.list {
        chosen.iter().flat_map(|(_, cases)| cases).for_each(|case| println!("{case}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut session = Session::open(args.clone())?;
    let mut failed = None;
    for (measurement, cases) in chosen {
        if let Err(error) = (measurement.run)(&mut session, &cases) {
            failed.get_or_insert(format!("{}: {error}", measurement.name));
        }
        if session.is_interrupted() {
            drop(session);
            return Ok(interrupt::said(&args.out));
        }
    }
    println!("{}", session.results().display());
    failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(CliError::failed(error)))
}
