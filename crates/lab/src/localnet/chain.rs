//! The chain of a local network: its history on the validators' disks, and what comes after.

use soma_p2p::{CertifiedCommit, CommitIndex, FjallStore, Store, SubDagDigest};
use soma_p2p_cli::CliError;
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// Commits written in one batch.
const BATCH: usize = 100;

/// A builder for a chain with these arguments.
pub(crate) fn builder(spec: ChainSpec) -> Result<ChainBuilder, CliError> {
    ChainBuilder::new(spec).map_err(CliError::input)
}

/// Builds the history and writes it into the stores of all validators, each on a thread of its own.
pub(crate) fn write_history(
    builder: &mut ChainBuilder,
    commits: u32,
    stores: &[PathBuf],
    mut written: impl FnMut(&[CertifiedCommit]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let genesis = builder.genesis().clone();
    let opened: Result<Vec<_>, _> = stores.iter().map(|path| FjallStore::open(path, &genesis)).collect();
    let opened = opened.map_err(CliError::failed)?;
    let mut done = 0;
    while done < commits {
        let count = BATCH.min((commits - done) as usize);
        let batch: Vec<CertifiedCommit> = (0..count).map(|_| builder.next_commit()).collect();
        let failed = thread::scope(|scope| {
            let writers: Vec<_> = opened.iter().map(|store| scope.spawn(|| store.apply(&batch))).collect();
            writers.into_iter().find_map(|writer| match writer.join() {
                Ok(result) => result.err().map(|error| error.to_string()),
                Err(_) => Some("a writer panicked".into()),
            })
        });
        if let Some(error) = failed {
            return Err(CliError::failed(format!("the history cannot be written: {error}")));
        }
        done += count as u32;
        written(&batch)?;
    }
    Ok(())
}

/// What an executor would have been given by a store that no process has open, from commit `first` up to each of the
/// `wanted` commits.
pub(crate) fn digests(
    path: &Path,
    first: CommitIndex,
    wanted: &[CommitIndex],
) -> Result<BTreeMap<CommitIndex, SubDagDigest>, CliError> {
    let store: Arc<FjallStore> = Arc::new(FjallStore::open_existing(path).map_err(CliError::failed)?);
    let highest = store.watermarks().map_err(CliError::failed)?.highest_synced.index;
    let last = wanted.iter().copied().max().unwrap_or(0).min(highest);
    let mut digest = SubDagDigest::default();
    let mut digests = BTreeMap::new();
    for index in first..=last {
        let sub_dag = store.sub_dag(index).map_err(CliError::failed)?;
        let sub_dag =
            sub_dag.ok_or_else(|| CliError::failed(format!("{}: commit {index} is missing", path.display())))?;
        digest.push(&sub_dag);
        if wanted.contains(&index) {
            digests.insert(index, digest);
        }
    }
    Ok(digests)
}
