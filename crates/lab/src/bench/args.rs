//! Arguments of `soma-lab bench`.

use std::path::PathBuf;

/// Measure how fast nodes sync, compared with the limits of the hardware.
///
/// Every node is a process of its own, with its store on disk, and talks gRPC over mutual TLS on loopback. The `limit`
/// is what the irreducible parts of a sync cost alone, on the same bytes, measured before and after: signatures in
/// batches, TLS, and writing to the disk. `ratio` is the time of the sync over the limit.
///
/// Prints tables and plots, and appends a line of JSON for each case to `OUT/TIME.jsonl`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Cases to run, by parts of their names; all without any.
    #[arg(value_name = "FILTER")]
    pub(super) filters: Vec<String>,
    /// A few short cases, for a first impression: under three minutes.
    #[arg(long)]
    pub(super) quick: bool,
    /// List the cases that would be run, and run none.
    #[arg(long)]
    pub(super) list: bool,
    /// Directory for results; stores are kept there, too, while it runs.
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    pub(super) out: PathBuf,
    /// Blocks of each chain that is synced; what the case says without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(40..=10_000_000))]
    pub(super) blocks: Option<u32>,
    /// Commits of the chain of `history`; the chain stays in OUT for further runs.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(super) commits: u32,
    /// Commits in one epoch, of all chains but that of `history`.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(5..))]
    pub(super) commits_per_epoch: u32,
    /// Users who send the transactions of C blocks in turn: fewer keys are cheaper for a verifier that joins equal
    /// ones.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) senders: u32,
    /// Syncs of each case, of which the median counts: other guests of the machine make single ones differ.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) runs: u8,
    /// Give a sync up after this many seconds.
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(super) timeout: u64,
}
