//! Pruning on disk: space returns, a kill at any moment loses nothing, and stores of earlier versions are safe.

mod common;

use common::{Chain, fresh};
use fjall::{Database, KeyspaceCreateOptions};
use soma_store::{FjallStore, Pruned, Store};
use soma_types::{CertifiedCommit, CommitIndex, EndedEpoch};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for a test that runs as a second process: the store's path.
const CHILD_PATH: &str = "SOMA_STORE_TEST_PATH";

/// Commits that the killed process keeps.
const WINDOW: CommitIndex = 60;

fn prune(store: &dyn Store, lowest: CommitIndex) {
    while !store.prune(lowest).unwrap().is_complete {}
}

fn block_files(path: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(path.join("blocks")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The next batch of the chain that the killed process writes. Every third is large enough for a file.
fn next_batch(chain: &mut Chain) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(4);
    batch.push(match chain.last.index {
        last if last.is_multiple_of(7) => chain.end_epoch(),
        last if last.is_multiple_of(3) => chain.large(300_000),
        // Blocks that an earlier batch holds.
        _ => chain.commit_of(batch[3].certifiers.clone()),
    });
    batch
}

fn apply_and_prune_until_killed(path: &Path) {
    let mut chain = Chain::new();
    let store = FjallStore::open(path, &chain.genesis).unwrap();
    while chain.last.index < store.watermarks().unwrap().highest_synced.index {
        next_batch(&mut chain);
    }
    loop {
        let highest = store.apply(&next_batch(&mut chain)).unwrap().highest_synced.index;
        let Pruned { watermarks, .. } = store.prune(highest.saturating_sub(WINDOW)).unwrap();
        println!("\npruned {}", watermarks.lowest_available);
    }
}

#[test]
fn killed_process_that_prunes_keeps_its_window_and_goes_on() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return apply_and_prune_until_killed(Path::new(&path));
    }
    let (_directory, path) = fresh();
    for announcements in [60, 7, 40, 2, 13, 90, 5] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "killed_process_that_prunes_keeps_its_window_and_goes_on", "--nocapture"]);
        let mut child = child.env(CHILD_PATH, &path).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let announced = lines
            .filter_map(|line| line.strip_prefix("pruned ").map(|index| index.parse::<CommitIndex>().unwrap()))
            .take(announcements)
            .last();
        child.kill().unwrap();
        child.wait().unwrap();

        let mut chain = Chain::new();
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        let watermarks = store.watermarks().unwrap();
        let (lowest, highest) = (watermarks.lowest_available, watermarks.highest_synced);
        assert!(Some(lowest) >= announced && highest.index - lowest <= WINDOW + 5, "{announced:?} {watermarks:?}");
        while chain.last.index < highest.index {
            for certified in next_batch(&mut chain) {
                let index = certified.commit.index;
                match index < lowest {
                    true => assert!(store.sub_dag(index).is_err()),
                    false => assert_eq!(store.sub_dag(index).unwrap(), Some(certified.sub_dag())),
                }
            }
        }
        assert_eq!(chain.last, highest);
        assert!((0..chain.epoch).all(|epoch| store.epoch_proof(epoch).unwrap().is_some()));
        store.apply(&next_batch(&mut chain)).unwrap();
        prune(&store, chain.last.index - WINDOW / 2);
        assert!(store.sub_dag(chain.last.index).unwrap().is_some());
    }
}

#[test]
fn files_of_pruned_blocks_are_removed_and_those_of_others_stay() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut commits = Vec::new();
    // Each process begins a file.
    for _ in 0..6 {
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        let batch: Vec<_> = (0..20).map(|_| chain.large(50_000)).collect();
        store.apply(&batch).unwrap();
        commits.extend(batch);
    }
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let all = block_files(&path);
    assert_eq!(all.len(), 6);
    prune(&store, 1);
    assert_eq!(block_files(&path), all);
    // Whole values of 16 commits and whole batches go: the batches of commits 41 and 101 stay.
    for (lowest, files) in [(50, 4), (112, 1)] {
        prune(&store, lowest);
        let last: BTreeSet<_> = all.iter().rev().take(files).cloned().collect();
        assert_eq!(block_files(&path), last, "from commit {lowest} on");
        for certified in &commits[lowest as usize - 1..] {
            assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
        }
    }
    drop(store);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    assert_eq!(store.watermarks().unwrap().lowest_available, 112);
    assert_eq!(store.sub_dag(120).unwrap(), Some(commits[119].sub_dag()));
}

/// Bytes of a store's files on the disk.
fn on_disk(path: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // Removed meanwhile, by the database.
        Err(_) => 0,
    };
    fs::read_dir(path).unwrap().map(|entry| size(entry.unwrap())).sum()
}

#[test]
fn store_that_prunes_stays_within_its_window_and_a_constant() {
    /// Of each commit.
    const BYTES: usize = 2 << 20;
    /// Of docs/operating/history.md.
    const CONSTANT: u64 = 192 << 20;
    const COMMITS_KEPT: u32 = 50;
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let bound = u64::from(COMMITS_KEPT) * BYTES as u64 * 12 / 10 + CONSTANT;
    let mut largest = 0;
    for _ in 0..100 {
        let batch: Vec<_> = (0..4).map(|_| chain.large(BYTES)).collect();
        let highest = store.apply(&batch).unwrap().highest_synced.index;
        store.prune(highest.saturating_sub(COMMITS_KEPT)).unwrap();
        largest = largest.max(on_disk(&path));
    }
    assert!(largest <= bound, "{largest} bytes, and {bound} are the most");
    assert!(largest > u64::from(COMMITS_KEPT) * BYTES as u64, "the window itself is there");
}

#[test]
fn store_of_format_5_loses_no_block_of_a_remaining_commit() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let first = chain.grow(1);
    store.apply(&first).unwrap();
    store.apply(&chain.grow(99)).unwrap();
    let naming = chain.commit_of(first[0].certifiers.clone());
    store.apply(std::slice::from_ref(&naming)).unwrap();
    drop(store);
    // As if a program of format 5 had written the last commit: without the pair of batches, and with a mark that
    // claims that all pairs are there.
    let database = Database::builder(path.join("db")).open().unwrap();
    let table = |name| database.keyspace(name, KeyspaceCreateOptions::default).unwrap();
    let late: Vec<_> = table("late").iter().map(|entry| entry.key().unwrap()).collect();
    assert_eq!(late.len(), 1);
    late.into_iter().for_each(|key| table("late").remove(key).unwrap());
    drop(database);
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    assert_eq!(bytes[8], 7);
    bytes[8] = 5;
    fs::write(&identity, bytes).unwrap();

    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    assert_eq!(fs::read(&identity).unwrap()[8], 7, "an earlier program must not write it again");
    prune(&store, 101);
    assert_eq!(store.sub_dag(101).unwrap(), Some(naming.sub_dag()));
    store.apply(&chain.grow(120)).unwrap();
    store.apply(&chain.grow(1)).unwrap();
    prune(&store, 101);
    assert_eq!(store.sub_dag(101).unwrap(), Some(naming.sub_dag()));
    // Nothing of the earlier version is left to name a block.
    prune(&store, 222);
    let block = first[0].blocks[0].reference();
    assert_eq!(store.blocks(&[block]).unwrap(), [None]);
    assert!(store.sub_dag(222).unwrap().is_some());
}

#[test]
fn store_that_skipped_epochs_opens_again_after_every_step() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let reopened = |highest: CommitIndex, lowest: CommitIndex| {
        let store = FjallStore::open(&path, &Chain::new().genesis).unwrap();
        let watermarks = store.watermarks().unwrap();
        assert_eq!((watermarks.highest_synced.index, watermarks.lowest_available), (highest, lowest));
        store
    };
    let end_epoch = |chain: &mut Chain| {
        chain.grow(30);
        let last = chain.end_epoch();
        // The proof of a store that holds all commits.
        let whole = FjallStore::open(&fresh().1, &chain.genesis).unwrap();
        let mut again = Chain::new();
        while again.last.index < last.commit.index {
            whole.apply(&again.grow(30)).unwrap();
            whole.apply(&[again.end_epoch()]).unwrap();
        }
        EndedEpoch {
            proof: whole.epoch_proof(last.commit.epoch).unwrap().unwrap(),
            last_commit: last.commit.clone(),
            next_committee: last.end_of_epoch().unwrap().next_committee.clone(),
        }
    };
    let [first, second] = [end_epoch(&mut chain), end_epoch(&mut chain)];
    reopened(0, 1).skip_epochs(std::slice::from_ref(&first)).unwrap();
    reopened(31, 32).skip_epochs(std::slice::from_ref(&second)).unwrap();
    let commits = chain.grow(200);
    reopened(62, 63).apply(&commits).unwrap();
    let store = reopened(262, 63);
    prune(&store, 200);
    drop(store);
    let store = reopened(262, 200);
    assert_eq!(store.epoch_proof(0).unwrap(), Some(first.proof));
    assert_eq!(store.epoch_proof(1).unwrap(), Some(second.proof));
    assert_eq!(store.sub_dag(262).unwrap(), Some(commits[199].sub_dag()));
}
