//! A kind of measurement, as the list of all measurements names it.

use super::{chain_cache::ChainCache, session::Session};
use soma_p2p_cli::CliError;

/// A kind of measurement.
pub(super) struct Measurement {
    /// The first part of the names of its cases.
    pub(super) name: &'static str,
    /// Names of its cases; of the few short ones for `--quick`.
    pub(super) cases: fn(quick: bool) -> Vec<String>,
    /// Runs the cases named: a line of JSON for each, a table on standard output for all.
    pub(super) run: fn(&Session, &mut ChainCache, &[String]) -> Result<(), CliError>,
}
