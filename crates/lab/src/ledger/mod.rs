//! What the executors of a network compute: balances of accounts, in a store of their own.
//!
//! ```text
//!   commits in order --> State (memory) --now and then, atomically--> Ledger (disk)
//!                                       '--every N commits--> SnapshotDirectory, which peers fetch from
//!   --join-snapshot, empty ledger: snapshot of peers --> Ledger; then the commits after it
//! ```

mod disk;
mod executor;
mod join;
mod state;

use soma_p2p::CommitIndex;
use soma_p2p_cli::{
    CliError,
    node::{self, Companion},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(crate) use disk::Ledger;
pub(crate) use executor::Executor;

/// Arguments of `soma-lab full-node`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Configuration file of the node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    execution: Execution,
}

/// How the executor of a node works.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Execution {
    /// Commits between two snapshots.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) snapshot_every: CommitIndex,
    /// Begin with a snapshot of other nodes.
    #[arg(long)]
    pub(crate) join_snapshot: bool,
}

impl Execution {
    /// The arguments that say the same.
    pub(crate) fn to_args(self) -> Vec<String> {
        let mut args = vec!["--snapshot-every".to_owned(), self.snapshot_every.to_string()];
        args.extend(self.join_snapshot.then(|| "--join-snapshot".to_owned()));
        args
    }
}

/// Where a node with this data directory has its ledger.
pub(crate) fn ledger_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger")
}

/// A full node with such an executor, which stops at the end of standard input.
pub(crate) fn run_full_node(args: &Args) -> Result<ExitCode, CliError> {
    node::run_in_process(&node::Args::watching_stdin(args.config.clone()), |parts, builder| {
        let executor = Executor::open(parts, args.execution)?;
        let builder = executor.serve_snapshots(builder);
        Ok(Companion { executor: Some(executor.into_task()), ..Companion::none(builder) })
    })
}
