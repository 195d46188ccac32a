//! A long history: whether anything costs more with a million commits than with ten thousand.
//!
//! ```text
//!   kept chain (kept.rs) --serves--> sync of its first commits, whole sync, certified sync, join by latest-epoch (sync.rs)
//!        |                                              |
//!        |                                              '--> kill, restart (restart.rs) --> prune (command.rs)
//!        '--> archive push --> archive pull (command.rs)
//! ```
//!
//! Every step is a process of its own, on the disk of `--out`. The chain is built once, and stays below `--out` for
//! further runs.

mod command;
mod kept;
mod report;
mod restart;
mod sync;

use super::{chain_cache::ChainCache, limit::Limit, measurement::Measurement, report as tables, session::Session};
use report::{Report, Step};
use soma_p2p::{FjallStore, Start, Verification};
use soma_p2p_cli::{CliError, files};
use std::path::{Path, PathBuf};

pub(super) const MEASUREMENT: Measurement = Measurement { name: "history", cases, run };

/// Commits of the short sync, and of what pruning keeps.
const SHORT: u32 = 10_000;

/// It takes minutes, so it is no part of `--quick`.
fn cases(quick: bool) -> Vec<String> {
    if quick { Vec::new() } else { vec!["history".into()] }
}

/// The part of the chain that the short sync takes, and that pruning keeps.
fn short(commits: u32) -> u32 {
    SHORT.min(commits / 10)
}

fn run(session: &Session, _: &mut ChainCache, _: &[String]) -> Result<(), CliError> {
    let chain = kept::open(session, session.args.commits)?;
    let calibration = Limit::measure(&chain, session.work())?.calibration;
    session.print_calibration(&tables::calibration(&calibration));
    let mut report = Report::new(&chain);
    measure_syncs(session, &chain, &mut report)?;
    measure_archive(session, &chain, &mut report)?;
    let summary = report.summary(&calibration);
    session.record(&summary)?;
    println!("{}", report.table());
    println!("{}", report.summary_table(&summary));
    Ok(())
}

fn measure_syncs(session: &Session, chain: &kept::KeptChain, report: &mut Report) -> Result<(), CliError> {
    let store = session.work().join("history-store");
    let short = short(chain.commits);
    let sync = |name, last, verification, start| sync::measure(session, chain, &store, name, last, verification, start);

    add(session, report, sync("sync-short", short, Verification::Full, Start::Genesis)?)?;
    remove(&store)?;
    add(session, report, sync("sync", chain.commits, Verification::Full, Start::Genesis)?)?;
    // The syncing node was killed: the first start goes through its journal.
    for name in ["restart-after-kill", "restart"] {
        add(session, report, restart::measure(session, chain, &store, name)?)?;
    }
    report.synced_disk_bytes = disk_bytes(&store)?;
    let keep = short.to_string();
    let args = ["store".as_ref(), "prune".as_ref(), store.as_os_str(), "--commits".as_ref(), keep.as_ref()];
    add(session, report, command::measure(session, "prune", &args, u64::from(chain.commits - short))?)?;
    report.pruned_disk_bytes = disk_bytes(&store)?;
    let args = ["store".as_ref(), "compact".as_ref(), store.as_os_str()];
    add(session, report, command::measure(session, "compact", &args, short.into())?)?;
    report.compacted_disk_bytes = disk_bytes(&store)?;
    remove(&store)?;
    add(session, report, sync("sync-certified", chain.commits, Verification::Certified, Start::Genesis)?)?;
    remove(&store)?;
    add(session, report, sync("join-latest-epoch", chain.commits, Verification::Full, Start::LatestEpoch)?)?;
    report.joined_disk_bytes = disk_bytes(&store)?;
    remove(&store)
}

fn measure_archive(session: &Session, chain: &kept::KeptChain, report: &mut Report) -> Result<(), CliError> {
    let (archive, store) = (session.work().join("archive"), session.work().join("pulled-store"));
    let commits = u64::from(chain.commits);
    let args = ["archive".as_ref(), "push".as_ref(), chain.store.as_os_str(), archive.as_os_str()];
    add(session, report, command::measure(session, "archive-push", &args, commits)?)?;
    report.archive_bytes = directory_bytes(&archive)?;
    // The command knows certificates only, so it cannot check the opaque transactions of this chain.
    let mut args = vec!["archive".as_ref(), "pull".as_ref(), "--certified".as_ref(), archive.as_os_str()];
    args.extend(["--genesis".as_ref(), chain.genesis_file.as_os_str(), store.as_os_str()]);
    let mut step = command::measure(session, "archive-pull-certified", &args, commits)?;
    step.blocks = Some(chain.blocks);
    add(session, report, step)?;
    remove(&store)?;
    remove(&archive)
}

/// Records a step, and says it.
fn add(session: &Session, report: &mut Report, step: Step) -> Result<(), CliError> {
    session.say(&step.to_string());
    session.record(&step)?;
    report.steps.push(step);
    Ok(())
}

fn remove(dir: &Path) -> Result<(), CliError> {
    files::remove_dir(dir)
}

/// Bytes of a store's files that no process has open.
fn disk_bytes(store: &Path) -> Result<u64, CliError> {
    FjallStore::open_existing(store).and_then(|store| store.disk_bytes()).map_err(CliError::failed)
}

/// Bytes of all files below a directory.
fn directory_bytes(dir: &Path) -> Result<u64, CliError> {
    let (mut open, mut bytes): (Vec<PathBuf>, u64) = (vec![dir.to_owned()], 0);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(CliError::failed)? {
            let entry = entry.map_err(CliError::failed)?;
            let metadata = entry.metadata().map_err(CliError::failed)?;
            if metadata.is_dir() { open.push(entry.path()) } else { bytes += metadata.len() }
        }
    }
    Ok(bytes)
}
