//! `soma-p2p store`

use crate::{
    error::CliError,
    executor::Executed,
    inspect::{not_opened, show},
};
use clap::Subcommand;
use serde_json::json;
use soma_p2p::{CommitIndex, FjallStore, Store, StoreError, types::CommitDigest};
use soma_store::{Retention, serve_commits};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// A store on which no node is running.
#[derive(clap::Args)]
struct Stopped {
    /// The store's directory: `store` in a node's data directory. No node may be running on it.
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Remove old commits; the largest of the given windows is kept.
    Prune {
        #[command(flatten)]
        stopped: Stopped,
        /// Keep this many commits.
        #[arg(long)]
        commits: Option<CommitIndex>,
        /// Keep the commits of this many epochs; the current one is the first.
        #[arg(long)]
        epochs: Option<u64>,
        /// Keep the commits of this time before the last one, such as `30days`.
        #[arg(long, value_parser = humantime::parse_duration)]
        time: Option<Duration>,
    },
    /// Rewrite the database without removed values.
    Compact(Stopped),
    /// Read every commit with its blocks, and check digests, the chain, committees and the votes for the last commit.
    Verify(Stopped),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.what {
        What::Prune { stopped, commits, epochs, time } => {
            prune(stopped, Retention { commits: *commits, epochs: *epochs, time: *time })
        }
        What::Compact(stopped) => compact(stopped),
        What::Verify(stopped) => verify(stopped),
    }
}

fn open(stopped: &Stopped) -> Result<FjallStore, CliError> {
    FjallStore::open_existing(&stopped.store).map_err(|error| not_opened(&stopped.store, error))
}

/// The next commit of the executor, if the node of this store has one.
fn executor_next(store: &Path) -> Result<Option<CommitIndex>, CliError> {
    let file = store.parent().unwrap_or(Path::new(".")).join("executor.json");
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(Executed::load(&file)?.index.saturating_add(1)))
}

fn prune(stopped: &Stopped, retention: Retention) -> Result<ExitCode, CliError> {
    if retention.keeps_all() {
        return Err(CliError::input("nothing to do: give at least one of --commits, --epochs and --time"));
    }
    let store = open(stopped)?;
    let wanted = retention.lowest_kept(&store).map_err(CliError::failed)?;
    let executor = executor_next(&stopped.store)?;
    let lowest = executor.map_or(wanted, |next| wanted.min(next));
    let before = (store.watermarks().map_err(CliError::failed)?, store.disk_bytes().map_err(CliError::failed)?);
    while !store.prune(lowest).map_err(CliError::failed)?.is_complete {}
    let after = (store.watermarks().map_err(CliError::failed)?, store.disk_bytes().map_err(CliError::failed)?);
    let value = json!({
        "pruned": after.0.lowest_available - before.0.lowest_available,
        "lowest_available": after.0.lowest_available,
        "highest_synced": after.0.highest_synced.index,
        "disk_bytes_before": before.1,
        "disk_bytes": after.1,
    });
    let mut text = format!(
        "pruned {} commits; the store has {} to {}\non the disk: {} MiB, {} MiB before; `soma-p2p store compact` may free more",
        value["pruned"],
        after.0.lowest_available,
        after.0.highest_synced.index,
        after.1 >> 20,
        before.1 >> 20,
    );
    if lowest < wanted {
        text += &format!("\nkept from {lowest} instead of {wanted}: the node's executor has not taken these commits");
    }
    show(stopped.json, &value, text)
}

fn compact(stopped: &Stopped) -> Result<ExitCode, CliError> {
    let store = open(stopped)?;
    let before = store.disk_bytes().map_err(CliError::failed)?;
    store.compact().map_err(CliError::failed)?;
    let after = store.disk_bytes().map_err(CliError::failed)?;
    let value = json!({ "disk_bytes_before": before, "disk_bytes": after });
    show(stopped.json, &value, format!("on the disk: {} MiB, {} MiB before", after >> 20, before >> 20))
}

/// Bytes of blocks that are read at once.
const READ_BYTES: usize = 4 << 20;

fn verify(stopped: &Stopped) -> Result<ExitCode, CliError> {
    let store = open(stopped)?;
    let watermarks = store.watermarks().map_err(CliError::failed)?;
    let (lowest, highest) = (watermarks.lowest_available, watermarks.highest_synced);
    let (mut next, mut blocks, mut bytes) = (lowest, 0_usize, 0_usize);
    let mut previous: Option<CommitDigest> = None;
    while next <= highest.index {
        let sub_dags = store.sub_dags(next..=highest.index, READ_BYTES).map_err(CliError::failed)?;
        if sub_dags.is_empty() {
            return Err(CliError::failed(format!(
                "commit {next} is missing: the store states {lowest} to {}",
                highest.index
            )));
        }
        for sub_dag in &sub_dags {
            if previous.is_some_and(|previous| previous != sub_dag.previous_digest) {
                return Err(CliError::failed(format!("commit {next} does not continue the commit before it")));
            }
            previous = Some(sub_dag.commit_ref.digest);
            blocks += sub_dag.blocks.len();
            bytes += sub_dag.blocks.iter().map(|block| block.bytes().len()).sum::<usize>();
            next += 1;
        }
    }
    check_committees(&store).map_err(CliError::failed)?;
    let commits = next - lowest;
    let is_certified = commits > 0
        && serve_commits(&store, highest.index, highest.index, usize::MAX).map_err(CliError::failed)?.is_ok();
    let value = json!({
        "lowest_available": lowest,
        "highest_synced": highest.index,
        "commits": commits,
        "blocks": blocks,
        "block_bytes": bytes,
        "last_commit_has_a_quorum": is_certified,
    });
    let votes = if is_certified {
        "a quorum of votes is stored for the last"
    } else {
        "no quorum of votes is stored for the last"
    };
    let text = format!("{commits} commits with {blocks} blocks of {} MiB are whole and chained; {votes}", bytes >> 20);
    show(stopped.json, &value, text)
}

/// Reads the committee and the end of each epoch.
fn check_committees(store: &FjallStore) -> Result<(), StoreError> {
    for epoch in 0..=store.latest_epoch()? {
        store.committee(epoch)?;
        store.epoch_proof(epoch)?;
    }
    Ok(())
}
