//! `soma-p2p checkpoint`

use crate::{
    error::CliError,
    files,
    inspect::{not_opened, show},
};
use clap::Subcommand;
use serde_json::json;
use soma_p2p::{Checkpoint, CheckpointError, CommitRef, FjallStore, Genesis, export_checkpoint, types::Epoch, verify};
use std::{
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
    /// Write the checkpoint of an ended epoch, at which another node can begin.
    Export {
        /// The store's directory: `store` in a node's data directory. No node may be running on it.
        #[arg(value_name = "STORE")]
        store: PathBuf,
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The epoch; the last one that has ended by default.
        #[arg(long)]
        epoch: Option<Epoch>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a checkpoint, and show the commit after which a node would begin.
    Show {
        /// The checkpoint.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The genesis of the chain.
        #[arg(long, value_name = "FILE")]
        genesis: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.what {
        What::Export { store, out, epoch, json } => export(store, out, *epoch, *json),
        What::Show { file, genesis, json } => {
            let genesis = files::read_genesis(genesis)?;
            let wrong = |error: String| CliError::input(format!("checkpoint {}: {error}", file.display()));
            let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let checkpoint = Checkpoint::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
            print(&genesis, &checkpoint, file, *json, &wrong)
        }
    }
}

fn export(path: &Path, out: &Path, epoch: Option<Epoch>, json: bool) -> Result<ExitCode, CliError> {
    let store = FjallStore::open_existing(path).map_err(|error| not_opened(path, error))?;
    let checkpoint = export_checkpoint(&store, epoch).map_err(|error| match error {
        CheckpointError::NotEnded { .. } => CliError::input(error),
        error => CliError::failed(error),
    })?;
    files::write_new(out, &checkpoint.encode())?;
    print(store.genesis(), &checkpoint, out, json, &|error| CliError::failed(format!("the store: {error}")))
}

/// Checks the checkpoint as a node would, and shows the proven commit.
pub(crate) fn print(
    genesis: &Genesis,
    checkpoint: &Checkpoint,
    file: &Path,
    json: bool,
    wrong: &dyn Fn(String) -> CliError,
) -> Result<ExitCode, CliError> {
    let ended = verify::verify_checkpoint(genesis, checkpoint).map_err(|error| wrong(error.to_string()))?;
    let (epoch, CommitRef { index, digest }) = (ended.last_commit.epoch, ended.last_commit.reference());
    let value = json!({
        "file": file.display().to_string(),
        "chain": checkpoint.chain_id.to_string(),
        "epoch": epoch,
        "commit": { "index": index, "digest": digest.to_string() },
        "authorities": checkpoint.committee.authorities.len(),
    });
    let text = format!(
        "checkpoint  {}\nchain       {}\nepoch       {epoch}, ended by its committee of {} with commit {index}\n\
         in [p2p]    start = {{ checkpoint = \"{}\" }}\n\
         or          start = {{ commit = {index}, digest = \"{digest}\" }}",
        file.display(),
        checkpoint.chain_id,
        checkpoint.committee.authorities.len(),
        file.display(),
    );
    show(json, &value, text)
}
