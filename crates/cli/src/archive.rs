//! `soma-p2p archive`

use crate::{
    error::CliError,
    files,
    inspect::{not_opened, show},
    status::table,
};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use soma_archive::{Archive, ArchiveError, Position, SegmentStorage, Verification, Walked, pull, push, walk};
use soma_p2p::{CertificateVerifier, ChainId, CommitIndex, FjallStore, Genesis, Store};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// The archive to read, and the checks.
#[derive(clap::Args)]
struct Reading {
    /// The archive: a directory, or a URL such as s3://BUCKET/PATH. Credentials come from the environment.
    #[arg(value_name = "ARCHIVE")]
    archive: String,
    /// The genesis of the chain.
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Leave the signatures of committed blocks and their transactions to the quorum that certified them.
    #[arg(long)]
    certified: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Write the commits of a stopped node into an archive that lacks them.
    Push {
        /// The store's directory: `store` in a node's data directory. No node may be running on it.
        #[arg(value_name = "STORE")]
        store: PathBuf,
        /// The archive: a directory, or a URL such as s3://BUCKET/PATH. Credentials come from the environment.
        #[arg(value_name = "ARCHIVE")]
        archive: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fill a store, new or stopped, from an archive. Everything is verified.
    Pull {
        #[command(flatten)]
        reading: Reading,
        /// The store's directory.
        #[arg(value_name = "STORE")]
        store: PathBuf,
    },
    /// Read a whole archive, and check every rule of the chain.
    Verify(Reading),
    /// List what an archive has.
    Ls {
        /// The archive: a directory, or a URL such as s3://BUCKET/PATH. Credentials come from the environment.
        #[arg(value_name = "ARCHIVE")]
        archive: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::failed)?;
    runtime.block_on(async {
        match &args.what {
            What::Push { store, archive, json } => push_store(store, archive, *json).await,
            What::Pull { reading, store } => pull_store(reading, store).await,
            What::Verify(reading) => verify(reading).await,
            What::Ls { archive, json } => list(archive, *json).await,
        }
    })
}

/// Opens an archive. `creates`: a missing directory is made.
fn open(place: &str, creates: bool) -> Result<Archive, CliError> {
    if !creates && !place.contains("://") && !Path::new(place).is_dir() {
        return Err(CliError::input(format!("archive {place}: there is no such directory")));
    }
    Archive::open(place).map_err(CliError::input)
}

/// A bar on the terminal, and nothing elsewhere.
fn bar(from: CommitIndex, to: CommitIndex) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} commit {pos} of {len}, {per_sec}, {eta} left");
    let bar = ProgressBar::new(to.into()).with_position(from.into());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn push_store(path: &Path, place: &str, json: bool) -> Result<ExitCode, CliError> {
    let store = Arc::new(FjallStore::open_existing(path).map_err(|error| not_opened(path, error))?);
    let archive = open(place, true)?;
    let watermarks = store.watermarks().map_err(CliError::failed)?;
    let highest = watermarks.highest_synced.index;
    let bar = bar(watermarks.lowest_available, highest);
    let pushed = push(&archive, store, |next| bar.set_position(next.saturating_sub(1).into())).await;
    bar.finish_and_clear();
    let pushed = pushed.map_err(CliError::failed)?;
    let last = pushed.next.saturating_sub(1);
    let value = json!({
        "archive": archive.place(),
        "segments": pushed.segments,
        "commits": pushed.commits,
        "last": last,
        "highest_synced": highest,
    });
    let mut text = format!(
        "wrote {} commits in {} segments; the archive has the store's commits {} to {last}",
        pushed.commits, pushed.segments, watermarks.lowest_available
    );
    if last < highest {
        text += &format!("\nleft out {} to {highest}: no quorum of votes is stored for them yet", pushed.next);
    }
    show(json, &value, text)
}

impl Reading {
    fn verification(&self) -> Verification {
        if self.certified { Verification::Certified } else { Verification::Full(Arc::new(CertificateVerifier)) }
    }

    /// The last commit that the archive names in its latest epoch, for the bar.
    async fn last(&self, archive: &Archive, genesis: &Genesis) -> Result<CommitIndex, CliError> {
        let chain = genesis.chain_id();
        let failed = |error: ArchiveError| CliError::failed(error);
        let Some(latest) = archive.epochs(chain).await.map_err(failed)?.last().copied() else {
            let others: Vec<_> = archive.chains().await.map_err(failed)?.iter().map(ToString::to_string).collect();
            let others = if others.is_empty() { "it is empty".into() } else { format!("it has {}", others.join(", ")) };
            return Err(CliError::failed(format!(
                "archive {} has nothing of chain {chain}: {others}",
                archive.place()
            )));
        };
        let segments = archive.segments(chain, latest).await.map_err(failed)?;
        Ok(segments.iter().map(|(name, _)| name.last).max().unwrap_or(0))
    }
}

fn show_walked(walked: &Walked, seconds: f64, json: bool, done: &str) -> Result<ExitCode, CliError> {
    let Walked { commits, blocks, position } = walked;
    let value = json!({
        "commits": commits,
        "blocks": blocks,
        "seconds": seconds,
        "last": { "index": position.commit.index, "digest": position.commit.digest.to_string() },
        "epoch": position.epoch(),
    });
    let text = format!(
        "{done} {commits} commits with {blocks} blocks in {seconds:.1} s ({:.0} blocks/s); the last is {} {}",
        *blocks as f64 / seconds.max(1e-9),
        position.commit.index,
        position.commit.digest,
    );
    show(json, &value, text)
}

async fn pull_store(reading: &Reading, path: &Path) -> Result<ExitCode, CliError> {
    let genesis = files::read_genesis(&reading.genesis)?;
    let archive = open(&reading.archive, false)?;
    // Before a store is made for nothing.
    let last = reading.last(&archive, &genesis).await?;
    let store = Arc::new(FjallStore::open(path, &genesis).map_err(|error| not_opened(path, error))?);
    let from = store.watermarks().map_err(CliError::failed)?.highest_synced.index;
    let bar = bar(from, last);
    let begun = Instant::now();
    let pulled = pull(&archive, store.clone(), &reading.verification(), |last| bar.set_position(last.into())).await;
    bar.finish_and_clear();
    store.flush().map_err(CliError::failed)?;
    show_walked(&pulled.map_err(CliError::failed)?, begun.elapsed().as_secs_f64(), reading.json, "stored")
}

async fn verify(reading: &Reading) -> Result<ExitCode, CliError> {
    let genesis = files::read_genesis(&reading.genesis)?;
    let archive = open(&reading.archive, false)?;
    let position = Position::genesis(&genesis).map_err(CliError::input)?;
    let bar = bar(0, reading.last(&archive, &genesis).await?);
    let (begun, verification) = (Instant::now(), reading.verification());
    let walked = walk(&archive, position, &verification, async |commits| {
        commits.last().into_iter().for_each(|last| bar.set_position(last.commit.index.into()));
        Ok(())
    })
    .await;
    bar.finish_and_clear();
    show_walked(&walked.map_err(CliError::failed)?, begun.elapsed().as_secs_f64(), reading.json, "verified")
}

async fn list(place: &str, json: bool) -> Result<ExitCode, CliError> {
    let archive = open(place, false)?;
    let mut rows = table(["chain", "epoch", "commits", "objects", "MiB", "missing"]);
    let mut listed = Vec::new();
    for chain in archive.chains().await.map_err(CliError::failed)? {
        list_chain(&archive, chain, &mut rows, &mut listed).await.map_err(CliError::failed)?;
    }
    let text = if listed.is_empty() { format!("archive {place} is empty") } else { rows.to_string() };
    show(json, &json!({ "archive": place, "epochs": listed }), text)
}

async fn list_chain(
    archive: &Archive,
    chain: ChainId,
    rows: &mut comfy_table::Table,
    listed: &mut Vec<serde_json::Value>,
) -> Result<(), ArchiveError> {
    let mut next: Option<CommitIndex> = None;
    for epoch in archive.epochs(chain).await? {
        let segments = archive.segments(chain, epoch).await?;
        let Some(first) = segments.first().map(|(name, _)| name.first) else { continue };
        let mut missing = Vec::new();
        for (name, _) in &segments {
            let expected = next.unwrap_or(name.first);
            if name.first > expected {
                missing.push(format!("{expected} to {}", name.first - 1));
            }
            next = Some(expected.max(name.last.saturating_add(1)));
        }
        let last = segments.iter().map(|(name, _)| name.last).max().unwrap_or(first);
        let bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        rows.add_row([
            chain.to_string().chars().take(16).collect(),
            epoch.to_string(),
            format!("{first} to {last}"),
            segments.len().to_string(),
            format!("{:.1}", bytes as f64 / f64::from(1 << 20)),
            if missing.is_empty() { "-".into() } else { missing.join(", ") },
        ]);
        listed.push(json!({
            "chain": chain.to_string(),
            "epoch": epoch,
            "first": first,
            "last": last,
            "objects": segments.len(),
            "bytes": bytes,
            "missing": missing,
        }));
    }
    Ok(())
}
