//! `soma-lab bench`: how fast nodes are, compared with the limits of the hardware.
//!
//! ```text
//!   mod.rs: which cases            session.rs: directories, chains, results of one run
//!     |
//!     +-- sync.rs, growth.rs, history/, ...: a module for each kind of measurement, listed in MEASUREMENTS
//!           |-- chain.rs     what is synced, on disk
//!           |-- limit.rs     what its irreducible parts cost (tls_stream.rs, usage.rs)
//!           |-- child.rs     a node's process, seen from here; node.rs, pace.rs: seen from there
//!           `-- report.rs, plot.rs
//! ```

mod args;
mod broadcast;
mod chain;
mod chain_cache;
mod child;
mod cost;
#[cfg(feature = "gossipsub")]
mod gossipsub_node;
mod growth;
mod head;
mod head_node;
mod history;
mod idle;
mod limit;
mod measurement;
mod message_load;
mod message_node;
mod node;
mod node_io;
mod objects;
mod percentile;
mod plot;
mod record;
mod report;
mod serving;
mod session;
mod sync;
mod tls_stream;
mod usage;

use crate::interrupt;
use chain_cache::ChainCache;
use measurement::Measurement;
use session::Session;
use soma_p2p_cli::CliError;
use std::process::ExitCode;

pub(crate) use args::Args;
#[cfg(feature = "gossipsub")]
pub(crate) use gossipsub_node::run as run_gossipsub_node;
pub(crate) use node::run as run_node;
pub(crate) use objects::node::run as run_object_node;

/// Every kind of measurement, in the order in which they are run.
const MEASUREMENTS: &[Measurement] = &[
    sync::MEASUREMENT,
    growth::MEASUREMENT,
    head::MEASUREMENT,
    idle::MEASUREMENT,
    serving::MEASUREMENT,
    broadcast::MEASUREMENT,
    objects::MEASUREMENT,
    history::MEASUREMENT,
];

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
    let session = Session::open(args.clone())?;
    let mut chains = ChainCache::default();
    let mut failed = None;
    for (measurement, cases) in chosen {
        if let Err(error) = (measurement.run)(&session, &mut chains, &cases) {
            failed.get_or_insert(format!("{}: {error}", measurement.name));
        }
        if session.is_interrupted() {
            drop((chains, session));
            return Ok(interrupt::said(&args.out));
        }
    }
    println!("{}", session.results().display());
    failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(CliError::failed(error)))
}
