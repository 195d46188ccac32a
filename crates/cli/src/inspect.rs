//! `soma-p2p inspect`

use crate::{error::CliError, status::table};
use clap::Subcommand;
use serde_json::{Value, json};
use soma_p2p::{BlockRef, CommitIndex, FjallStore, PeerList, SignedBlock, Store, StoreError};
use soma_store::NotAStoreReason;
use std::io::Write;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(clap::Args)]
pub struct Args {
    /// The store's directory: `store` in a node's data directory. No node may be running on it.
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Watermarks and epochs (the default).
    Summary,
    /// One commit with its blocks and votes.
    Commit {
        /// Its index.
        index: CommitIndex,
    },
    /// One block of a commit, with its contents.
    Block {
        /// The commit's index.
        commit: CommitIndex,
        /// The block's place in it, from 0.
        position: usize,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let store = FjallStore::open_existing(&args.store).map_err(|error| not_opened(&args.store, error))?;
    match args.what {
        None | Some(What::Summary) => summary(&store, args.json),
        Some(What::Commit { index }) => commit(&store, index, args.json),
        Some(What::Block { commit, position }) => block(&store, commit, position, args.json),
    }
}

/// The error for a missing store: `inspect` never creates one.
pub(crate) fn not_opened(path: &Path, error: StoreError) -> CliError {
    let StoreError::NotAStore { reason: NotAStoreReason::Foreign { entry }, .. } = error else {
        return CliError::input(error);
    };
    let (shown, inside) = (path.display(), path.join("store"));
    if inside.is_dir() {
        return CliError::input(format!("{shown} is no store; the one in it is {}", inside.display()));
    }
    CliError::input(format!(
        "{shown} is no store: it holds something else ({entry:?}); give the path of a node's store"
    ))
}

pub(crate) fn show(json: bool, value: &Value, text: String) -> Result<ExitCode, CliError> {
    let text = if json { serde_json::to_string_pretty(value).map_err(CliError::failed)? } else { text };
    match writeln!(std::io::stdout(), "{text}") {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        result => result.map_err(CliError::failed)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(store: &FjallStore, as_json: bool) -> Result<ExitCode, CliError> {
    let watermarks = store.watermarks().map_err(CliError::failed)?;
    let latest = store.latest_epoch().map_err(CliError::failed)?;
    let mut epochs = Vec::new();
    let mut rows = table(["epoch", "authorities", "stake", "last commit"]);
    for epoch in 0..=latest {
        let Some(committee) = store.committee(epoch).map_err(CliError::failed)? else { continue };
        let last = store.last_commit_of_epoch(epoch).map_err(CliError::failed)?;
        rows.add_row([
            epoch.to_string(),
            committee.authorities.len().to_string(),
            committee.total_stake().to_string(),
            last.map_or("not over".into(), |last| last.to_string()),
        ]);
        epochs.push(json!({
            "epoch": epoch,
            "authorities": committee.authorities.len(),
            "stake": committee.total_stake(),
            "last_commit": last,
        }));
    }
    let highest = watermarks.highest_synced;
    let disk_bytes = store.disk_bytes().map_err(CliError::failed)?;
    let value = json!({
        "chain": store.chain_id().to_string(),
        "name": store.genesis().name(),
        "highest_synced": { "index": highest.index, "digest": highest.digest.to_string() },
        "lowest_available": watermarks.lowest_available,
        "disk_bytes": disk_bytes,
        "epochs": epochs,
        "known_peers": store.peers(PeerList::Infos).map_err(CliError::failed)?.len(),
    });
    let text = format!(
        "chain             {} ({})\nhighest synced    {} {}\nlowest available  {}\non the disk       {} MiB\nknown peers       {}\n\n{rows}",
        store.chain_id(),
        store.genesis().name(),
        highest.index,
        highest.digest,
        watermarks.lowest_available,
        disk_bytes >> 20,
        value["known_peers"],
    );
    show(as_json, &value, text)
}

fn commit(store: &FjallStore, index: CommitIndex, as_json: bool) -> Result<ExitCode, CliError> {
    let found = store.commit(index).map_err(CliError::failed)?;
    let commit = found.ok_or_else(|| not_here(store, index))?;
    let votes = store.votes(commit.reference()).map_err(CliError::failed)?;
    let names = |refs: &[BlockRef]| refs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = json!({
        "index": commit.index,
        "digest": commit.reference().digest.to_string(),
        "previous_digest": commit.previous_digest.to_string(),
        "epoch": commit.epoch,
        "timestamp_ms": commit.timestamp_ms,
        "leader": commit.leader.to_string(),
        "blocks": commit.blocks.iter().map(reference_json).collect::<Vec<_>>(),
        "votes": votes.iter().map(reference_json).collect::<Vec<_>>(),
    });
    let text = format!(
        "commit    {}\ndigest    {}\nprevious  {}\nepoch     {}\ntime      {} ms\nleader    {}\nblocks    {}\nvotes     {}",
        commit.index,
        commit.reference().digest,
        commit.previous_digest,
        commit.epoch,
        commit.timestamp_ms,
        commit.leader,
        names(&commit.blocks).join("\n          "),
        names(&votes).join("\n          "),
    );
    show(as_json, &value, text)
}

fn block(store: &FjallStore, index: CommitIndex, position: usize, as_json: bool) -> Result<ExitCode, CliError> {
    let found = store.commit(index).map_err(CliError::failed)?;
    let commit = found.ok_or_else(|| not_here(store, index))?;
    let reference = commit.blocks.get(position).ok_or_else(|| {
        CliError::input(format!("commit {index} has {} blocks: there is none at {position}", commit.blocks.len()))
    })?;
    let mut bytes = store.blocks(&[*reference]).map_err(CliError::failed)?;
    let bytes = bytes.pop().flatten().ok_or_else(|| CliError::failed(format!("block {reference} is missing")))?;
    let size = bytes.len();
    let block = SignedBlock::decode(bytes).map_err(CliError::failed)?;
    let votes: Vec<_> = block.commit_votes.iter().map(ToString::to_string).collect();
    let value = json!({
        "reference": reference_json(reference),
        "bytes": size,
        "timestamp_ms": block.timestamp_ms,
        "ancestors": block.ancestors.iter().map(reference_json).collect::<Vec<_>>(),
        "transactions": block.transactions.iter().map(|bytes| bytes.0.len()).collect::<Vec<_>>(),
        "commit_votes": votes,
        "ends_epoch": block.end_of_epoch.is_some(),
    });
    let ancestors: Vec<_> = block.ancestors.iter().map(ToString::to_string).collect();
    let transactions: usize = block.transactions.iter().map(|bytes| bytes.0.len()).sum();
    let text = format!(
        "block         {reference}\ndigest        {}\nbytes         {size}\ntime          {} ms\nancestors     {}\n\
         transactions  {} of {transactions} bytes in all\nvotes         {}\nends epoch    {}",
        reference.digest,
        block.timestamp_ms,
        ancestors.join("\n              "),
        block.transactions.len(),
        votes.join("\n              "),
        block.end_of_epoch.is_some(),
    );
    show(as_json, &value, text)
}

fn reference_json(reference: &BlockRef) -> Value {
    json!({
        "epoch": reference.epoch,
        "round": reference.round,
        "author": reference.author,
        "digest": reference.digest.to_string(),
    })
}

fn not_here(store: &FjallStore, index: CommitIndex) -> CliError {
    match store.watermarks() {
        Ok(here) => CliError::input(format!(
            "commit {index} is not here: the store has {} to {}",
            here.lowest_available, here.highest_synced.index
        )),
        Err(error) => CliError::failed(error),
    }
}
