//! What recording costs: one node fetches a chain from another over mutual TLS, with and without `[trace]`, turn by
//! turn, so that whatever else the machine does meets both. `make bench-recording` runs it.

use soma_p2p::{CertifiedCommit, Genesis, MemStore, TraceConfig};
use soma_tests::{STOP, chain, config, mem_store, node, seed_peer};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Commits in one sync: with the builder's four blocks each, and one certified transaction in a block.
const COMMITS: usize = 4_000;

/// Syncs of each kind.
const ROUNDS: usize = 9;

/// Time for one sync: from the start of the fresh node until its executor has the last commit.
async fn sync(genesis: &Genesis, commits: &[CertifiedCommit], trace: Option<&Path>) -> Duration {
    let server = node(1, genesis, mem_store(genesis, commits), config(&[])).start().expect("the server starts");
    let mut client = config(&[]);
    client.seed_peers = vec![seed_peer(&server)];
    client.verifier.threads = 0;
    client.trace = trace.map(|directory| TraceConfig::new(directory.into()));
    let started = Instant::now();
    let client = node(2, genesis, Arc::new(MemStore::new(genesis)), client).start().expect("the client starts");
    let mut stream = client.synced_commits(1);
    for _ in commits {
        stream.next().await.expect("the stream goes on").expect("the store can be read");
    }
    let time = started.elapsed();
    client.shutdown(STOP).await;
    server.shutdown(STOP).await;
    time
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    // cargo passes --bench; there is nothing to choose from.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (builder, commits) = chain(COMMITS);
    let blocks: usize = commits.iter().map(|commit| commit.blocks.len()).sum();
    println!("{COMMITS} commits, {blocks} blocks; {ROUNDS} syncs without and with a trace, turn by turn");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let dir = TempDir::new().expect("a temporary directory");
        without.push(runtime.block_on(sync(builder.genesis(), &commits, None)));
        with.push(runtime.block_on(sync(builder.genesis(), &commits, Some(dir.path()))));
        let files = fs::read_dir(dir.path()).expect("the trace").map(|file| file.expect("a file"));
        bytes = files.map(|file| file.metadata().expect("its size").len()).sum::<u64>();
    }
    let ratios: Vec<f64> =
        without.iter().zip(&with).map(|(without, with)| with.as_secs_f64() / without.as_secs_f64()).collect();
    let (off, on) = (median(&mut without), median(&mut with));
    let mut sorted = ratios.clone();
    sorted.sort_by(f64::total_cmp);
    println!("  without  {off:.3} s  {:>8.0} blocks/s", blocks as f64 / off);
    println!(
        "  with     {on:.3} s  {:>8.0} blocks/s  trace of {:.2} MiB",
        blocks as f64 / on,
        bytes as f64 / f64::from(1 << 20)
    );
    println!(
        "  cost     {:+.1} % (median of the {ROUNDS} pairs; they lie between {:+.1} % and {:+.1} %)",
        100.0 * (sorted[ROUNDS / 2] - 1.0),
        100.0 * (sorted[0] - 1.0),
        100.0 * (sorted[ROUNDS - 1] - 1.0)
    );
}
