//! Prepending on disk: the store opens after every step and every kill, files keep the order of the chain, and space
//! returns.

mod common;

use common::{Chain, fresh};
use soma_store::{CorruptReason, FjallStore, Store, StoreError};
use soma_types::{CertifiedCommit, CommitIndex, EndedEpoch, EpochProof};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// Set for a test that runs as a second process: the store's path.
const CHILD_PATH: &str = "SOMA_STORE_TEST_PATH";

/// Commits of each epoch.
const EPOCH: CommitIndex = 40;

/// Epochs that the store skips.
const SKIPPED: usize = 3;

/// The first commit that the store applies.
const FIRST: CommitIndex = EPOCH * SKIPPED as CommitIndex + 1;

/// A chain in which every third commit is large enough for a file.
struct History {
    chain: Chain,
    commits: Vec<CertifiedCommit>,
    ended: Vec<EndedEpoch>,
}

impl History {
    fn new() -> Self {
        let mut history = Self { chain: Chain::new(), commits: Vec::new(), ended: Vec::new() };
        for _ in 0..SKIPPED {
            history.grow(EPOCH - 1);
            let last = history.chain.end_epoch();
            let certifiers = last.certifiers.iter().map(|block| block.bytes().clone()).collect();
            let end_of_epoch = last.blocks[0].bytes().clone();
            history.ended.push(EndedEpoch {
                proof: EpochProof { commit: last.commit.bytes().clone(), certifiers, end_of_epoch },
                last_commit: last.commit.clone(),
                next_committee: last.end_of_epoch().unwrap().next_committee.clone(),
            });
            history.commits.push(last);
        }
        history.grow(30);
        history
    }

    fn grow(&mut self, commits: CommitIndex) {
        for _ in 0..commits {
            let next = match self.chain.last.index % 3 {
                0 => self.chain.large(270_000),
                _ => self.chain.grow(1).remove(0),
            };
            self.commits.push(next);
        }
    }

    fn begin(&self, path: &Path) -> FjallStore {
        let store = FjallStore::open(path, &self.chain.genesis).unwrap();
        if store.watermarks().unwrap().highest_synced.index == 0 {
            store.skip_epochs(&self.ended).unwrap();
        }
        let applied = store.watermarks().unwrap().highest_synced.index as usize;
        if applied < self.commits.len() {
            store.apply(&self.commits[applied..]).unwrap();
        }
        store
    }

    /// Prepends the next `count` commits, or fewer at the end.
    fn prepend(&self, store: &FjallStore, count: CommitIndex) -> CommitIndex {
        let lowest = store.watermarks().unwrap().lowest_available;
        let first = lowest.saturating_sub(count).max(1);
        let batch: Vec<_> = self.commits[first as usize - 1..lowest as usize - 1].iter().collect();
        store.prepend(&batch).unwrap().lowest_available
    }

    fn expect_whole(&self, store: &FjallStore) {
        let watermarks = store.watermarks().unwrap();
        assert_eq!(watermarks.highest_synced, self.chain.last);
        for certified in &self.commits {
            let index = certified.commit.index;
            match index < watermarks.lowest_available {
                true => assert!(store.sub_dag(index).is_err()),
                false => assert_eq!(store.sub_dag(index).unwrap(), Some(certified.sub_dag())),
            }
        }
    }
}

/// Numbers of the files of blocks.
fn files(path: &Path) -> BTreeSet<u32> {
    let names = fs::read_dir(path.join("blocks")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_str().unwrap().strip_suffix(".blocks").unwrap().parse().unwrap()).collect()
}

#[test]
fn store_opens_again_after_every_prepended_batch() {
    let (_directory, path) = fresh();
    let history = History::new();
    drop(history.begin(&path));
    // Each step begins a file, unless its batch is small.
    for count in [1, 2, 10, 1, 25, 2, 30, 40, 30] {
        let store = FjallStore::open_existing(&path).unwrap();
        history.prepend(&store, count);
        drop(store);
        history.expect_whole(&FjallStore::open_existing(&path).unwrap());
    }
    assert_eq!(FjallStore::open_existing(&path).unwrap().watermarks().unwrap().lowest_available, 1);
}

#[test]
fn files_of_prepended_blocks_are_removed_in_the_order_of_the_chain() {
    const BELOW: u32 = 1 << 31;
    let (_directory, path) = fresh();
    let history = History::new();
    drop(history.begin(&path));
    for count in [EPOCH, EPOCH, EPOCH] {
        history.prepend(&FjallStore::open_existing(&path).unwrap(), count);
    }
    assert_eq!(files(&path), BTreeSet::from([1, BELOW, BELOW + 1, BELOW + 2]));
    let store = FjallStore::open_existing(&path).unwrap();
    let whole = store.disk_bytes().unwrap();
    for (lowest, left) in
        [(EPOCH + 10, vec![1, BELOW, BELOW + 1]), (2 * EPOCH + 16, vec![1, BELOW]), (FIRST + 20, vec![1])]
    {
        while !store.prune(lowest).unwrap().is_complete {}
        assert_eq!(files(&path), left.into_iter().collect(), "from commit {lowest} on");
        history.expect_whole(&store);
    }
    assert!(store.disk_bytes().unwrap() < whole / 2, "the space returns");
    // What is pruned does not come back.
    let error = store.prepend(&[&history.commits[FIRST as usize + 18]]).unwrap_err();
    assert!(matches!(error, StoreError::HasPruned { lowest, .. } if lowest == FIRST + 20), "{error}");
    drop(store);
    history.expect_whole(&FjallStore::open_existing(&path).unwrap());
}

#[test]
fn pruned_store_takes_no_commit_back() {
    let history = History::new();
    let all: Vec<_> = history.commits.iter().collect();
    for lowest in [3, 16, 32, 33, 96, EPOCH + 1] {
        let (_directory, path) = fresh();
        let store = FjallStore::open(&path, &history.chain.genesis).unwrap();
        store.apply_refs(&all).unwrap();
        while !store.prune(lowest).unwrap().is_complete {}
        let error = store.prepend(&all[lowest as usize - 2..lowest as usize - 1]).unwrap_err();
        assert!(matches!(error, StoreError::HasPruned { .. }), "{lowest}: {error}");
        history.expect_whole(&store);
    }
}

fn prepend_until_killed(path: &Path) {
    let history = History::new();
    let store = history.begin(path);
    for count in [1, 7, 2, 12].into_iter().cycle() {
        println!("\nprepended {}", history.prepend(&store, count));
        if store.watermarks().unwrap().lowest_available == 1 {
            println!("\nprepended 0");
            return;
        }
    }
}

#[test]
fn killed_process_that_prepends_keeps_what_it_announced_and_goes_on() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return prepend_until_killed(Path::new(&path));
    }
    let history = History::new();
    let (_directory, path) = fresh();
    let mut lowest = FIRST;
    for announcements in [1, 2, 1, 3, 2, 4, 100] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "killed_process_that_prepends_keeps_what_it_announced_and_goes_on", "--nocapture"]);
        let mut child = child.env(CHILD_PATH, &path).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let announced = lines
            .filter_map(|line| line.strip_prefix("prepended ").map(|index| index.parse::<CommitIndex>().unwrap()))
            .filter(|index| *index > 0)
            .take(announcements)
            .last();
        child.kill().unwrap();
        child.wait().unwrap();

        let store = FjallStore::open_existing(&path).unwrap();
        let watermarks = store.watermarks().unwrap();
        assert!(Some(watermarks.lowest_available) <= announced || announced.is_none(), "{announced:?} {watermarks:?}");
        assert!(watermarks.lowest_available <= lowest);
        lowest = watermarks.lowest_available;
        history.expect_whole(&store);
    }
    assert_eq!(lowest, 1);
}

#[test]
fn prepended_batch_that_the_journal_lost_is_an_error() {
    let (_directory, path) = fresh();
    let history = History::new();
    drop(history.begin(&path));
    let journal = path.join("db/0.jnl");
    // A reopening cuts the journal to its length.
    let length = |path: &Path| {
        drop(FjallStore::open_existing(path).unwrap());
        fs::metadata(&journal).unwrap().len() as usize
    };
    let mut ends = vec![length(&path)];
    for _ in 0..3 {
        history.prepend(&FjallStore::open_existing(&path).unwrap(), 2);
        ends.push(length(&path));
    }
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, [&bytes[..ends[1]], &bytes[ends[2]..]].concat()).unwrap();
    let error = FjallStore::open_existing(&path).err().unwrap();
    let expected = CorruptReason::Gap { expected: FIRST - 2, found: FIRST - 4 };
    assert!(matches!(&error, StoreError::Corrupt { reason, .. } if *reason == expected), "{error}");
    // At the end it was never announced.
    fs::write(&journal, &bytes[..ends[2]]).unwrap();
    let store = FjallStore::open_existing(&path).unwrap();
    assert_eq!(store.watermarks().unwrap().lowest_available, FIRST - 4);
    history.expect_whole(&store);
}

#[test]
fn store_of_format_6_that_skipped_epochs_prepends() {
    let (_directory, path) = fresh();
    let history = History::new();
    drop(history.begin(&path));
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[8] = 6;
    fs::write(&identity, bytes).unwrap();
    let store = FjallStore::open_existing(&path).unwrap();
    assert_eq!(fs::read(&identity).unwrap()[8], 7, "an earlier program would remove files of later commits");
    while history.prepend(&store, 50) > 1 {}
    history.expect_whole(&store);
    while !store.prune(FIRST + 20).unwrap().is_complete {}
    history.expect_whole(&store);
    assert_eq!(files(&path), BTreeSet::from([1]));
}
