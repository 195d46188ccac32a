//! The verdict: a table, the findings, and a summary in one line.

use super::{args::Args, network::Outcome, node::Node, tally::Tally};
use soma_p2p::{CommitIndex, FjallStore, Store, StoreError, SubDagDigest};
use soma_p2p_cli::{
    CliError,
    record::{self, Entry, Record},
    table,
};
use std::{fs, path::Path, process::ExitCode, time::Instant};

/// The sum of some nodes' counts.
#[derive(Default)]
struct Sum {
    kills: u32,
    lost: u64,
    duplicated: u64,
    findings: usize,
}

impl Sum {
    fn add(&mut self, name: &str, tally: &Tally) {
        self.kills += tally.kills;
        self.lost += tally.lost;
        self.duplicated += tally.duplicated;
        self.findings += tally.findings.len();
        for finding in &tally.findings {
            eprintln!("error: {name}: {finding}");
        }
    }
}

/// Judges the end of a network, and prints the verdict. Returns whether all is well.
pub(super) fn conclude(args: &Args, dir: &Path, outcome: &Outcome, started: Instant) -> Result<bool, CliError> {
    let head = outcome.digests.len() as CommitIndex;
    let expected = outcome.digests.last().copied().unwrap_or_default();
    let mut sum = Sum::default();
    let mut equal = 0;
    let mut rows = table(["node", "kills", "executed", "digest", "equal", "lost", "duplicated"]);
    for node in &outcome.nodes {
        let stored = stored(node, &outcome.digests).unwrap_or_else(|error| {
            eprintln!("error: {}: its store cannot be read: {error}", node.name());
            Default::default()
        });
        Record::open(node.record())?.append(&Entry::Stored { height: stored.0 })?;
        let tally = Tally::count(&record::read(node.record())?, Some(&outcome.digests));
        sum.add(node.name(), &tally);
        let same = tally.executed == head && tally.digest == expected && stored == (head, expected);
        equal += usize::from(same);
        if !same {
            let (height, digest) = stored;
            eprintln!(
                "error: {}: executed {} with digest {}, stored {height} with digest {}; the chain has {head} with {}",
                node.name(),
                tally.executed,
                short(&tally.digest),
                short(&digest),
                short(&expected)
            );
        }
        rows.add_row([
            node.name().to_owned(),
            tally.kills.to_string(),
            format!("{} of {head}", tally.executed),
            short(&tally.digest),
            if same { "yes" } else { "NO" }.into(),
            tally.lost.to_string(),
            tally.duplicated.to_string(),
        ]);
    }
    for node in &outcome.disorderly {
        eprintln!("error: did not stop in order at the end: {node}");
    }
    let complete = !outcome.nodes.is_empty() && equal == outcome.nodes.len() && sum.kills == args.kills;
    let ok = complete && sum.lost == 0 && sum.duplicated == 0 && sum.findings == 0 && outcome.disorderly.is_empty();
    println!("{rows}");
    println!("kills in chaos.log; of each node node.log, record.log and data: below {}", dir.display());
    if !ok {
        println!("FAILED with --seed {}: the errors say which node and which commit", args.seed);
    }
    println!(
        "kills={} lost={} duplicated={} equal={equal}/{} head={head} starting={} syncing={} seconds={:.0} seed={}",
        sum.kills,
        sum.lost,
        sum.duplicated,
        outcome.nodes.len(),
        outcome.starting,
        outcome.syncing,
        started.elapsed().as_secs_f64(),
        args.seed
    );
    Ok(ok)
}

/// Counts again from the records of an earlier run.
pub(super) fn recount(dir: &Path) -> Result<ExitCode, CliError> {
    let cannot = |error: std::io::Error| CliError::input(format!("--dir {}: {error}", dir.display()));
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let node = entry.map_err(cannot)?;
        let record = node.path().join("record.log");
        if record.exists() {
            records.push((node.file_name().to_string_lossy().into_owned(), record::read(&record)?));
        }
    }
    if records.is_empty() {
        return Err(CliError::input(format!("--dir {} has no records of a chaos run", dir.display())));
    }
    records.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut sum = Sum::default();
    for (name, record) in &records {
        sum.add(name, &Tally::count(record, None));
    }
    println!("kills={} lost={} duplicated={} nodes={}", sum.kills, sum.lost, sum.duplicated, records.len());
    Ok(if sum.findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Up to where a node's store has everything, and the digest up to there. `digests` are the chain's: what the store has
/// pruned counts as it should have been.
fn stored(node: &Node, digests: &[SubDagDigest]) -> Result<(CommitIndex, SubDagDigest), StoreError> {
    let path = node.files.config.store_dir();
    let mut stored = (0, SubDagDigest::default());
    // A network that ended early may have a full node that never joined.
    if path.exists() {
        let store = FjallStore::open_existing(&path)?;
        let pruned = store.watermarks()?.lowest_available.saturating_sub(1);
        if let Some(digest) = (pruned as usize).checked_sub(1).and_then(|last| digests.get(last)) {
            stored = (pruned, *digest);
        }
        while let Some(sub_dag) = store.sub_dag(stored.0 + 1)? {
            stored.1.push(&sub_dag);
            stored.0 += 1;
        }
    }
    Ok(stored)
}

fn short(digest: &SubDagDigest) -> String {
    digest.to_string().chars().take(16).collect()
}
