//! Promises of a store on disk: it survives, it has one owner, and it leaves foreign files alone.

mod common;

use bytes::Bytes;
use common::{Chain, fresh};
use fjall::{Database, KeyspaceCreateOptions};
use soma_store::{FjallStore, NotAStoreReason, PeerList, Record, Store, StoreError};
use soma_types::{CertifiedCommit, CommitIndex, PeerId, SubDagDigest};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for a test that runs as a second process: the store's path.
const CHILD_PATH: &str = "SOMA_STORE_TEST_PATH";

/// Every file under `path` with its content and modification time.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::metadata(&path).unwrap();
        let bytes = if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        files.insert(path, (bytes, metadata.modified().unwrap()));
    }
    files
}

/// Calls `open`, which must fail and change nothing at `path`.
fn refused(path: &Path, open: impl FnOnce(&Path) -> Result<FjallStore, StoreError>) -> StoreError {
    let before = path.exists().then(|| snapshot(path));
    let error = open(path).err().expect("it does not open");
    assert!(before == path.exists().then(|| snapshot(path)), "something was written: {error}");
    error
}

#[test]
fn everything_is_there_after_reopening() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut batch = chain.grow(5);
    batch.push(chain.end_epoch());
    batch.extend(chain.grow(2));
    let peer = (PeerId([4; 32]), Bytes::from_static(b"info"));
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let watermarks = store.apply(&batch).unwrap();
    store.update_peers(PeerList::Infos, std::slice::from_ref(&peer), &[]).unwrap();
    let votes = store.votes(chain.last).unwrap();
    drop(store);

    let check = |store: &FjallStore| {
        assert_eq!(store.watermarks().unwrap(), watermarks);
        assert_eq!(store.genesis(), &chain.genesis);
        assert_eq!(store.chain_id(), chain.genesis.chain_id());
        assert_eq!(store.path(), path);
        assert_eq!(store.peers(PeerList::Infos).unwrap(), std::slice::from_ref(&peer));
        assert_eq!(store.votes(chain.last).unwrap(), votes);
        assert_eq!((store.latest_epoch().unwrap(), store.last_commit_of_epoch(0).unwrap()), (1, Some(6)));
        for certified in &batch {
            assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
        }
    };
    check(&FjallStore::open(&path, &chain.genesis).unwrap());
    let store = FjallStore::open_existing(&path).unwrap();
    check(&store);
    store.apply(&chain.grow(1)).unwrap();
}

#[test]
fn blocks_that_have_moved_from_memory_to_files_read_back_with_their_sizes() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut applied = SubDagDigest::default();
    let mut refs = Vec::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    // 40 MB: several times as much as stays in memory.
    for _ in 0..20 {
        let batch: Vec<_> = (0..10)
            .map(|_| {
                let (round, size) = (chain.round + 1, 50_000);
                let blocks = (0..4).map(|author| chain.block(round, author, &[], size)).collect();
                chain.commit_of(blocks)
            })
            .collect();
        store.apply(&batch).unwrap();
        for certified in &batch {
            applied.push(&certified.sub_dag());
            refs.extend(certified.blocks.iter().map(|block| (block.reference(), block.bytes().len())));
        }
    }
    let check = |store: &FjallStore| {
        let mut stored = SubDagDigest::default();
        for index in 1..=chain.last.index {
            stored.push(&store.sub_dag(index).unwrap().unwrap());
        }
        assert_eq!(stored.to_string(), applied.to_string());
        let (refs, sizes): (Vec<_>, Vec<_>) = refs.iter().map(|(block, size)| (*block, Some(*size))).unzip();
        assert_eq!(store.block_sizes(&refs).unwrap(), sizes);
    };
    check(&store);
    drop(store);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    check(&store);
    // Each process that writes large batches starts its own file.
    let files = |path: &Path| std::fs::read_dir(path.join("blocks")).unwrap().count();
    assert_eq!(files(&path), 1);
    let large = (0..4).map(|author| chain.block(chain.round + 1, author, &[], 100_000)).collect();
    let large = chain.commit_of(large);
    store.apply(std::slice::from_ref(&large)).unwrap();
    assert_eq!(files(&path), 2);
    assert_eq!(store.sub_dag(large.commit.index).unwrap(), Some(large.sub_dag()));
}

#[test]
fn more_files_than_stay_open_read_back_in_any_order() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut commits = Vec::new();
    for _ in 0..11 {
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        let commit = chain.large(300_000);
        store.apply(std::slice::from_ref(&commit)).unwrap();
        commits.push(commit);
    }
    assert_eq!(fs::read_dir(path.join("blocks")).unwrap().count(), 11);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    std::thread::scope(|scope| {
        for stride in [1, 3, 4] {
            let (store, commits) = (&store, &commits);
            scope.spawn(move || {
                for position in (0..33).map(|number| number * stride % 11) {
                    let certified = &commits[position];
                    assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
                }
            });
        }
    });
}

#[test]
fn repeated_block_is_written_only_once() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let mut blocks = BTreeMap::new();
    let mut certifiers = chain.grow(1).remove(0).certifiers;
    chain = Chain::new();
    for _ in 0..5 {
        // Like consensus: the certifier blocks of one commit are the blocks of the next.
        let mut next = chain.commit_of(certifiers);
        certifiers = chain.votes(&[next.commit.reference()], &[0, 1, 2]);
        next.certifiers = certifiers.clone();
        let all = next.blocks.iter().chain(&next.certifiers);
        blocks.extend(all.map(|block| (block.reference(), block.bytes().len())));
        store.apply(&[next]).unwrap();
    }
    drop(store);
    let database = Database::builder(path.join("db")).open().unwrap();
    let segments = database.keyspace("segments", KeyspaceCreateOptions::default).unwrap();
    // The first byte of each value marks it as stored in the database.
    let stored: usize = segments.iter().map(|segment| segment.value().unwrap().len() - 1).sum();
    assert_eq!(stored, blocks.values().sum::<usize>());
}

#[test]
fn second_open_in_this_process_is_refused_until_the_first_is_dropped() {
    let (_directory, path) = fresh();
    let chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    for result in [FjallStore::open(&path, &chain.genesis), FjallStore::open_existing(&path)] {
        let error = result.err().expect("it is in use");
        assert!(matches!(&error, StoreError::InUse { path: used } if *used == path), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()));
    }
    drop(store);
    FjallStore::open(&path, &chain.genesis).unwrap();
}

/// The store's path, in a second process.
fn as_child() -> Option<PathBuf> {
    std::env::var_os(CHILD_PATH).map(PathBuf::from)
}

/// Runs one test of this file as a second process on the store at `path`.
fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD_PATH, path);
    command
}

fn find_the_store_in_use(path: &Path) {
    for result in [FjallStore::open(path, &Chain::new().genesis), FjallStore::open_existing(path)] {
        assert!(matches!(result.err(), Some(StoreError::InUse { path: used }) if used == *path));
    }
    println!("in use");
}

#[test]
fn a_second_process_is_refused() {
    if let Some(path) = as_child() {
        return find_the_store_in_use(&path);
    }
    let (_directory, path) = fresh();
    let chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let output = child("a_second_process_is_refused", &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("in use"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    drop(store);
}

#[test]
fn another_program_on_the_database_is_reported_as_in_use() {
    let (_directory, path) = fresh();
    let chain = Chain::new();
    drop(FjallStore::open(&path, &chain.genesis).unwrap());
    let _other = Database::builder(path.join("db")).open().unwrap();
    let error = FjallStore::open(&path, &chain.genesis).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

/// The next batch of the chain whose process is killed repeatedly. Every seventh ends an epoch, and every other is
/// large enough for a file.
fn next_batch(chain: &mut Chain) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(2);
    batch.push(match chain.last.index {
        last if last.is_multiple_of(7) => chain.end_epoch(),
        last if last.is_multiple_of(2) => chain.large(300_000),
        _ => chain.grow(1).remove(0),
    });
    batch
}

fn apply_until_killed(path: &Path) {
    let mut chain = Chain::new();
    let store = FjallStore::open(path, &chain.genesis).unwrap();
    while chain.last.index < store.watermarks().unwrap().highest_synced.index {
        next_batch(&mut chain);
    }
    loop {
        let watermarks = store.apply(&next_batch(&mut chain)).unwrap();
        println!("\napplied {}", watermarks.highest_synced.index);
    }
}

#[test]
fn killed_process_loses_no_announced_batch() {
    if let Some(path) = as_child() {
        return apply_until_killed(&path);
    }
    // One store, killed repeatedly. Between the announcement and the kill the process continues as long as it can.
    let (_directory, path) = fresh();
    for announcements in [1, 7, 40, 2, 13, 5] {
        let mut child = child("killed_process_loses_no_announced_batch", &path).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let announced = lines
            .filter_map(|line| {
                line.unwrap().strip_prefix("applied ").map(|index| index.parse::<CommitIndex>().unwrap())
            })
            .take(announcements)
            .last();
        child.kill().unwrap();
        child.wait().unwrap();

        let mut chain = Chain::new();
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        let highest = store.watermarks().unwrap().highest_synced;
        assert!(Some(highest.index) >= announced && highest.index.is_multiple_of(3), "{announced:?} {highest}");
        while chain.last.index < highest.index {
            for certified in next_batch(&mut chain) {
                assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
                let mut votes = store.votes(certified.commit.reference()).unwrap();
                votes.retain(|vote| certified.certifiers.iter().any(|block| block.reference() == *vote));
                assert_eq!(votes.len(), certified.certifiers.len());
            }
        }
        assert_eq!((chain.last, chain.epoch), (highest, store.latest_epoch().unwrap()));
        assert_eq!(store.commit(highest.index + 1).unwrap(), None);
        store.apply(&next_batch(&mut chain)).unwrap();
    }
}

#[test]
fn store_of_another_chain_is_left_unchanged() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    store.apply(&chain.grow(2)).unwrap();
    drop(store);
    let other = common::genesis("other", &[1, 1, 1, 1]);
    let error = refused(&path, |path| FjallStore::open(path, &other));
    let (given, stored) = (other.chain_id(), chain.genesis.chain_id());
    assert!(matches!(
        &error,
        StoreError::OtherChain { path: at, expected, found } if *at == path && *expected == given && *found == stored
    ));
    for part in [path.to_string_lossy().into_owned(), given.to_string(), stored.to_string()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    assert_eq!(FjallStore::open(&path, &chain.genesis).unwrap().watermarks().unwrap().highest_synced, chain.last);
}

#[test]
fn path_that_is_no_store_is_left_unchanged_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let genesis = Chain::new().genesis;
    let make = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let reason = |path: &Path, open: fn(&Path, &soma_types::Genesis) -> Result<FjallStore, StoreError>| match refused(
        path,
        |path| open(path, &genesis),
    ) {
        StoreError::NotAStore { path: at, reason } if at == path => reason,
        error => panic!("{error}"),
    };
    let open = FjallStore::open;
    let open_existing = |path: &Path, _: &_| FjallStore::open_existing(path);

    let foreign = make("foreign");
    fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    let holds = NotAStoreReason::Foreign { entry: "thesis.txt".to_owned() };
    assert_eq!([reason(&foreign, open), reason(&foreign, open_existing)], [holds.clone(), holds]);

    // A bare fjall database is foreign too, and so is a directory with a folder of the database's name.
    let database = make("database");
    drop(Database::builder(&database).open().unwrap());
    assert!(matches!(reason(&database, open), NotAStoreReason::Foreign { .. }));
    let folder = make("folder");
    fs::create_dir(folder.join("db")).unwrap();
    assert!(matches!(reason(&folder, open), NotAStoreReason::Foreign { .. }));

    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    assert_eq!([reason(&file, open), reason(&file, open_existing)], [const { NotAStoreReason::NotADirectory }; 2]);

    let named = make("named");
    fs::write(named.join("soma-store"), "not ours").unwrap();
    assert_eq!(reason(&named, open), NotAStoreReason::UnknownIdentity);

    let empty = make("empty");
    assert_eq!(reason(&empty, open_existing), NotAStoreReason::Empty);
    let absent = directory.path().join("absent");
    assert_eq!(reason(&absent, open_existing), NotAStoreReason::Absent);
    assert!(!absent.exists());
}

#[test]
fn path_that_cannot_be_written_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    // No user can create a directory under a file.
    let path = file.join("store");
    let error = FjallStore::open(&path, &Chain::new().genesis).err().unwrap();
    assert!(matches!(&error, StoreError::Io { path: at, .. } if *at == path), "{error}");
    assert!(error.to_string().contains("check that the path is right and that this user may write there"));
}

#[test]
fn store_of_a_newer_format_is_left_unchanged() {
    let (_directory, path) = fresh();
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(&path, &genesis).unwrap());
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[8] += 1;
    // The bytes after the version are unknown in a newer format.
    bytes.truncate(20);
    fs::write(&identity, bytes).unwrap();
    for open in [FjallStore::open(&path, &genesis), FjallStore::open_existing(&path)] {
        assert!(matches!(open.err(), Some(StoreError::NewerFormat { found: 8, supported: 7, .. })));
    }
    refused(&path, |path| FjallStore::open(path, &genesis));
}

#[test]
fn store_of_an_older_format_is_left_unchanged_with_advice() {
    let (_directory, path) = fresh();
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(&path, &genesis).unwrap());
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[8] = 4;
    fs::write(&identity, bytes).unwrap();
    for open in [FjallStore::open(&path, &genesis), FjallStore::open_existing(&path)] {
        assert!(matches!(open.err(), Some(StoreError::OlderFormat { found: 4, supported: 5, .. })));
    }
    let error = refused(&path, |path| FjallStore::open(path, &genesis));
    assert!(error.to_string().contains("remove the store and sync anew"), "{error}");
}

#[test]
fn interrupted_creation_is_finished_by_the_next_open() {
    let (directory, path) = fresh();
    let genesis = Chain::new().genesis;
    let whole = directory.path().join("whole");
    drop(FjallStore::open(&whole, &genesis).unwrap());
    let identity = fs::read(whole.join("soma-store")).unwrap();
    // Each state that a crash during creation can leave, in order.
    let states: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("soma-store.lock", b"")],
        &[("soma-store.lock", b""), ("soma-store.new", &identity[..30])],
        &[("soma-store.lock", b""), ("soma-store", &identity), ("db.new/0.jnl", b"half")],
    ];
    for files in states {
        fs::create_dir(&path).unwrap();
        for (name, bytes) in files {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), bytes).unwrap();
        }
        let error = refused(&path, FjallStore::open_existing);
        assert!(error.to_string().contains("start the node once with its genesis"), "{error}");
        let store = FjallStore::open(&path, &genesis).unwrap();
        assert_eq!(store.watermarks().unwrap().highest_synced.index, 0);
        drop(store);
        assert!(!path.join("db.new").exists() && !path.join("soma-store.new").exists());
        FjallStore::open_existing(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn damaged_identity_or_missing_database_is_an_error_that_names_it() {
    let (_directory, path) = fresh();
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(&path, &genesis).unwrap());
    let identity = path.join("soma-store");
    let good = fs::read(&identity).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&identity, bad).unwrap();
    let error = refused(&path, |path| FjallStore::open(path, &genesis));
    assert!(matches!(error, StoreError::Corrupt { record: Record::Identity, .. }), "{error}");
    fs::write(&identity, good).unwrap();

    fs::remove_file(path.join("db/version")).unwrap();
    for error in [refused(&path, FjallStore::open_existing), refused(&path, |path| FjallStore::open(path, &genesis))] {
        assert!(matches!(error, StoreError::Corrupt { record: Record::DatabaseVersion, .. }), "{error}");
    }
    fs::remove_dir_all(path.join("db")).unwrap();
    let error = refused(&path, FjallStore::open_existing);
    let reason = NotAStoreReason::Incomplete { entry: "db" };
    assert!(matches!(&error, StoreError::NotAStore { reason: actual, .. } if *actual == reason), "{error}");
}
