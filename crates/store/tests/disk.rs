//! What only a store on disk can promise: it survives, it has one owner, and it leaves alone what is not its own.

mod common;

use bytes::Bytes;
use common::Chain;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use soma_store::{
    CorruptReason, FjallStore, NotAStoreReason, PeerList, Record, SegmentId, Store, StoreError, serve_commits,
};
use soma_types::{CertifiedCommit, CommitIndex, PeerId, SignedBlock, SubDagDigest};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for a test that another one runs as a second process: the store's path.
const CHILD_PATH: &str = "SOMA_STORE_TEST_PATH";

/// An absent path in a fresh directory, which is removed with the guard.
fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

/// Every file under `path` with its bytes and time of change.
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

/// Opens by `open`, which must fail and change nothing at `path`.
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
fn blocks_that_have_left_memory_for_files_read_back_with_their_sizes() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut applied = SubDagDigest::default();
    let mut refs = Vec::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    // 40 MB: several times what stays in memory.
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
    // A file of its own for each process that writes many at once.
    let files = |path: &Path| std::fs::read_dir(path.join("blocks")).unwrap().count();
    assert_eq!(files(&path), 1);
    let large = (0..4).map(|author| chain.block(chain.round + 1, author, &[], 100_000)).collect();
    let large = chain.commit_of(large);
    store.apply(std::slice::from_ref(&large)).unwrap();
    assert_eq!(files(&path), 2);
    assert_eq!(store.sub_dag(large.commit.index).unwrap(), Some(large.sub_dag()));
}

/// 41 commits, of which all but the first have blocks that vote for the one before, with so many bytes that they go to a
/// file.
fn large_batch(chain: &mut Chain) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(1);
    batch.extend((0..40).map(|_| large_commit(chain, 8_000)));
    batch
}

/// The value that the database has.
fn stored(path: &Path, table: &str, key: &[u8]) -> Vec<u8> {
    let database = Database::builder(path.join("db")).open().unwrap();
    let table = database.keyspace(table, KeyspaceCreateOptions::default).unwrap();
    table.get(key).unwrap().unwrap().to_vec()
}

#[test]
fn of_a_large_batch_the_database_has_only_where_its_blocks_commits_and_votes_are() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let batch = large_batch(&mut chain);
    // Votes for the last of them, in a batch that stays in the database.
    let small = large_commit(&mut chain, 100);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    store.apply(&batch).unwrap();
    store.apply(std::slice::from_ref(&small)).unwrap();
    let all: Vec<_> = batch.iter().chain([&small]).collect();
    let check = |store: &FjallStore| {
        for (certified, next) in all.iter().zip(&all[1..]) {
            let voters = next.blocks.iter().chain(&certified.certifiers).map(|block| block.reference());
            let voters: BTreeSet<_> = voters.collect();
            assert!(store.votes(certified.commit.reference()).unwrap().into_iter().eq(voters));
        }
        let commits: Vec<_> = all.iter().map(|certified| certified.commit.clone()).collect();
        assert_eq!(store.commits(1..=100).unwrap(), commits);
        assert_eq!(store.sub_dag(17).unwrap(), Some(batch[16].sub_dag()));
    };
    check(&store);
    drop(store);
    check(&FjallStore::open(&path, &chain.genesis).unwrap());

    let database = Database::builder(path.join("db")).open().unwrap();
    for (table, here) in [("segments", 1), ("votes", 1), ("commits", 2)] {
        let table = database.keyspace(table, KeyspaceCreateOptions::default).unwrap();
        let values: Vec<_> = table.iter().map(|value| value.value().unwrap()).collect();
        // A byte that says so, file, offset, length, checksum. The genesis came alone.
        let filed = values.iter().filter(|value| value[0] == 1 && value.len() == 1 + 4 + 4 + 4 + 8).count();
        let in_database = values.iter().filter(|value| value[0] == 0).count();
        assert!(filed >= 3 && in_database == here && filed + in_database == values.len(), "{filed} {in_database}");
    }
}

#[test]
fn a_damaged_place_is_an_error_that_names_what_lies_there_and_what_is_before_it_is_read() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let batch = large_batch(&mut chain);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    store.apply(&batch).unwrap();
    drop(store);
    // That of commits 16 to 31: file, offset, length, checksum.
    let key = 16u32.to_be_bytes();
    let place = stored(&path, "commits", &key);
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = place.clone();
        changed.splice(at..at + bytes.len(), bytes.iter().copied());
        changed
    };
    for (place, reason) in [
        (Vec::new(), CorruptReason::NoValue),
        (changed(0, &[2]), CorruptReason::NoValue),
        (place[..place.len() - 1].to_vec(), CorruptReason::NoValue),
        (changed(1, &9u32.to_be_bytes()), CorruptReason::FileMissing { file: 9 }),
        (changed(5, &u32::MAX.to_be_bytes()), CorruptReason::Checksum { file: 1 }),
        (changed(9, &u32::MAX.to_be_bytes()), CorruptReason::Checksum { file: 1 }),
        (changed(9, &0u32.to_be_bytes()), CorruptReason::Checksum { file: 1 }),
        (changed(13, &[0; 8]), CorruptReason::Checksum { file: 1 }),
    ] {
        let store = replace(&path, "commits", &key, Some(&place)).unwrap();
        for error in [
            store.commit(20).unwrap_err(),
            store.commits(1..=40).unwrap_err(),
            store.commit_bytes(16..=40, usize::MAX).unwrap_err(),
            store.sub_dags(16..=40, usize::MAX).unwrap_err(),
            serve_commits(&store, 16, 40, usize::MAX).unwrap_err(),
        ] {
            let StoreError::Corrupt { record, reason: found, .. } = error else { panic!("{error}") };
            assert_eq!((record, found), (Record::Commit(16), reason.clone()));
        }
        let before: Vec<_> = batch[..15].iter().map(|certified| certified.commit.bytes().clone()).collect();
        assert_eq!(store.commit_bytes(1..=40, usize::MAX).unwrap(), before);
        let before: Vec<_> = batch[..15].iter().map(CertifiedCommit::sub_dag).collect();
        assert_eq!(store.sub_dags(1..=40, usize::MAX).unwrap(), before);
        assert_eq!(serve_commits(&store, 1, 40, usize::MAX).unwrap().unwrap().commits.len(), 15);
        assert_eq!(store.commit(32).unwrap().as_ref(), Some(&batch[31].commit));
    }
}

#[test]
fn more_files_than_stay_open_read_back_in_any_order() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let mut commits = Vec::new();
    for _ in 0..11 {
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        let commit = large_commit(&mut chain, 300_000);
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
fn a_block_is_written_once_however_often_it_comes() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let mut blocks = BTreeMap::new();
    let mut certifiers = chain.grow(1).remove(0).certifiers;
    chain = Chain::new();
    for _ in 0..5 {
        // As from consensus: the certifier blocks of one commit are the blocks of the next.
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
    // A byte in front of each says that it is here and in no file.
    let stored: usize = segments.iter().map(|segment| segment.value().unwrap().len() - 1).sum();
    assert_eq!(stored, blocks.values().sum::<usize>());
}

#[test]
fn a_second_open_in_this_process_is_refused_until_the_first_is_dropped() {
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

/// In a second process, the store it is to work on.
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

/// The next batch of the chain that is killed again and again: an epoch ends in every seventh, every other is large enough
/// for a file.
fn next_batch(chain: &mut Chain) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(2);
    batch.push(match chain.last.index {
        last if last.is_multiple_of(7) => chain.end_epoch(),
        last if last.is_multiple_of(2) => large_commit(chain, 300_000),
        _ => chain.grow(1).remove(0),
    });
    batch
}

/// The next commit, with so many bytes of blocks and more, which vote for the last one.
fn large_commit(chain: &mut Chain, bytes: usize) -> CertifiedCommit {
    let (round, last) = (chain.round + 1, chain.last);
    let blocks = (0..4).map(|author| chain.block(round, author, &[last], bytes / 4)).collect();
    chain.commit_of(blocks)
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
fn a_killed_process_loses_nothing_that_it_announced() {
    if let Some(path) = as_child() {
        return apply_until_killed(&path);
    }
    // One store, killed again and again; between the announcement and the kill it goes on for as long as it may.
    let (_directory, path) = fresh();
    for announcements in [1, 7, 40, 2, 13, 5] {
        let mut child =
            child("a_killed_process_loses_nothing_that_it_announced", &path).stdout(Stdio::piped()).spawn().unwrap();
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
fn a_store_of_another_chain_is_left_as_it_is() {
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
fn what_is_no_store_is_left_as_it_is_with_the_reason() {
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

    // A bare fjall database is somebody's, too, and so is a directory with a folder of our database's name.
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
fn a_path_that_cannot_be_written_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    // No directory can be made under a file, whoever the user is.
    let path = file.join("store");
    let error = FjallStore::open(&path, &Chain::new().genesis).err().unwrap();
    assert!(matches!(&error, StoreError::Io { path: at, .. } if *at == path), "{error}");
    assert!(error.to_string().contains("check that the path is right and that this user may write there"));
}

#[test]
fn a_store_of_a_newer_format_is_left_as_it_is() {
    let (_directory, path) = fresh();
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(&path, &genesis).unwrap());
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[8] += 1;
    // What follows the version may be anything in a newer format.
    bytes.truncate(20);
    fs::write(&identity, bytes).unwrap();
    for open in [FjallStore::open(&path, &genesis), FjallStore::open_existing(&path)] {
        assert!(matches!(open.err(), Some(StoreError::NewerFormat { found: 6, supported: 5, .. })));
    }
    refused(&path, |path| FjallStore::open(path, &genesis));
}

#[test]
fn a_store_of_an_older_format_is_left_as_it_is_with_what_to_do() {
    let (_directory, path) = fresh();
    let genesis = Chain::new().genesis;
    drop(FjallStore::open(&path, &genesis).unwrap());
    let identity = path.join("soma-store");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[8] -= 1;
    fs::write(&identity, bytes).unwrap();
    for open in [FjallStore::open(&path, &genesis), FjallStore::open_existing(&path)] {
        assert!(matches!(open.err(), Some(StoreError::OlderFormat { found: 4, supported: 5, .. })));
    }
    let error = refused(&path, |path| FjallStore::open(path, &genesis));
    assert!(error.to_string().contains("remove the store and sync anew"), "{error}");
}

#[test]
fn a_creation_that_was_cut_off_is_finished_by_the_next_open() {
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

/// Changes a value behind the store's back, and opens the store again.
fn damage(path: &Path, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<FjallStore, StoreError> {
    // A byte in front of the values of these tables says that they are here and in no file.
    let here: &[u8] = if ["segments", "votes", "commits"].contains(&table) { &[0] } else { &[] };
    replace(path, table, key, value.map(|value| [here, value].concat()).as_deref())
}

/// Changes what the database has for a value, and opens the store again.
fn replace(path: &Path, table: &str, key: &[u8], stored: Option<&[u8]>) -> Result<FjallStore, StoreError> {
    let database = Database::builder(path.join("db")).open().unwrap();
    let table = database.keyspace(table, KeyspaceCreateOptions::default).unwrap();
    match stored {
        Some(stored) => table.insert(key, stored).unwrap(),
        None => table.remove(key).unwrap(),
    }
    database.persist(PersistMode::SyncAll).unwrap();
    drop((table, database));
    FjallStore::open_existing(path)
}

#[test]
fn a_damaged_value_is_an_error_that_names_it() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let mut batch = chain.grow(4);
    batch.push(chain.end_epoch());
    store.apply(&batch).unwrap();
    drop(store);
    let corrupt = |error: StoreError| match error {
        StoreError::Corrupt { record, ref reason, .. } => {
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            (record, reason.clone())
        }
        error => panic!("{error}"),
    };

    // All commits of the batch lie in one value, under the index of the first.
    let commits_with = |second: &[u8]| -> Vec<u8> {
        let mut commits: Vec<&[u8]> = batch.iter().map(|certified| &certified.commit.bytes()[..]).collect();
        commits[1] = second;
        commits.iter().flat_map(|bytes| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()).collect()
    };
    let key = 1u32.to_be_bytes();
    let store = damage(&path, "commits", &key, Some(&commits_with(b"garbage"))).unwrap();
    for error in [store.commit(2).unwrap_err(), store.sub_dag(2).unwrap_err(), store.commits(1..=3).unwrap_err()] {
        assert!(matches!(corrupt(error), (Record::Commit(2), CorruptReason::Codec(_))));
    }
    assert!(store.commit(1).unwrap().is_some() && store.commit(3).unwrap().is_some());
    assert_eq!(store.sub_dags(1..=5, usize::MAX).unwrap(), [batch[0].sub_dag()], "all before what is damaged");
    drop(store);
    let store = damage(&path, "commits", &key, Some(&commits_with(batch[0].commit.bytes()))).unwrap();
    assert_eq!(corrupt(store.commit(2).unwrap_err()), (Record::Commit(2), CorruptReason::OtherCommit { found: 1 }));
    drop(store);
    let whole = commits_with(batch[1].commit.bytes());
    let cut = whole.len() - 1;
    let length = CorruptReason::Length { bytes: cut };
    let opened = damage(&path, "commits", &key, Some(&whole[..cut]));
    assert_eq!(corrupt(opened.err().unwrap()), (Record::Commit(5), length));
    damage(&path, "commits", &key, Some(&whole)).unwrap();

    // The blocks of commit 3 in the one segment of the batch, the first two behind each other.
    let [first, second] = [0, 1].map(|position| &batch[2].blocks[position]);
    let reference = first.reference();
    let key = [1u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
    let segment: Vec<u8> = batch
        .iter()
        .flat_map(|certified| certified.blocks.iter().chain(&certified.certifiers))
        .flat_map(|block| block.bytes().clone())
        .collect();
    let start = segment.windows(first.bytes().len()).position(|bytes| bytes == first.bytes()).unwrap();
    let changed = |bytes: &[u8]| {
        let mut segment = segment.clone();
        segment.splice(start..start + bytes.len(), bytes.iter().copied());
        segment
    };
    let record = Record::BlockOfCommit { index: 3, block: reference };
    let store = damage(&path, "segments", &key, Some(&changed(&vec![0xff; first.bytes().len()]))).unwrap();
    assert!(matches!(corrupt(store.sub_dag(3).unwrap_err()), (at, CorruptReason::Codec(_)) if at == record));
    drop(store);
    // Its signature is another: all decodes, and it is not the block that the commit names.
    let mut other = first.bytes().to_vec();
    *other.last_mut().unwrap() ^= 1;
    let found = Box::new(SignedBlock::decode(other.clone().into()).unwrap().reference());
    let store = damage(&path, "segments", &key, Some(&changed(&other))).unwrap();
    assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (record, CorruptReason::OtherBlock { found }));
    let before: Vec<_> = batch[..2].iter().map(CertifiedCommit::sub_dag).collect();
    assert_eq!(store.sub_dags(1..=5, usize::MAX).unwrap(), before, "all before what is damaged");
    drop(store);
    let end = start + first.bytes().len();
    let cut = CorruptReason::CutOff { block: Box::new(reference), end: end as u64, bytes: end - 1 };
    let whole = Record::Segment(SegmentId { batch: 1, number: 0 });
    for (value, reason) in [(Some(&segment[..end - 1]), cut), (None, CorruptReason::Missing)] {
        let store = damage(&path, "segments", &key, value).unwrap();
        assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (whole, reason.clone()));
        assert_eq!(corrupt(store.blocks(&[reference]).unwrap_err()), (whole, reason));
        // How long it was is known without it.
        assert_eq!(store.block_sizes(&[reference]).unwrap(), [Some(first.bytes().len())]);
    }
    drop(damage(&path, "segments", &key, Some(&segment)).unwrap());

    let round = [&reference.epoch.to_be_bytes()[..], &reference.round.to_be_bytes()].concat();
    let store = damage(&path, "rounds", &round, Some(&[7; 53])).unwrap();
    let record_of_round = Record::Round { epoch: 0, round: reference.round };
    let reason = CorruptReason::Length { bytes: 53 };
    assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (record_of_round, reason.clone()));
    // The writer does not add to what it cannot read.
    let mut late = chain.clone();
    let late = late.commit_of(vec![Chain { epoch: 0, ..late.clone() }.block(reference.round, 3, &[], 0)]);
    assert_eq!(corrupt(store.apply(&[late]).unwrap_err()), (record_of_round, reason));
    drop(store);
    let store = damage(&path, "rounds", &round, None).unwrap();
    assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (record, CorruptReason::Missing));
    assert_eq!(store.blocks(&[reference, second.reference()]).unwrap(), [None, None]);
    drop(store);
    let vote = [0u32.to_be_bytes(), 1u32.to_be_bytes()].concat();
    let store = damage(&path, "votes", &vote, Some(&[0; 47])).unwrap();
    let votes = store.votes(batch[3].commit.reference()).unwrap_err();
    assert_eq!(corrupt(votes), (Record::Votes(0), CorruptReason::Length { bytes: 47 }));
    drop(store);
    let store = damage(&path, "rounds", b"short", Some(b"")).unwrap();
    let unwritten = corrupt(store.apply(&chain.grow(1)).unwrap_err());
    assert_eq!(unwritten, (Record::Rounds, CorruptReason::KeyLength { bytes: 5 }));
    drop(store);

    let store = damage(&path, "committees", &1u64.to_be_bytes(), Some(b"garbage")).unwrap();
    assert!(matches!(corrupt(store.committee(1).unwrap_err()), (Record::Committee(1), CorruptReason::Codec(_))));
    drop(store);
    let store = damage(&path, "epochs", &0u64.to_be_bytes(), Some(b"long value")).unwrap();
    assert!(matches!(corrupt(store.last_commit_of_epoch(0).unwrap_err()), (Record::LastCommit(0), _)));
    drop(store);
    let store = damage(&path, "peers", b"short", Some(b"info")).unwrap();
    assert_eq!(
        corrupt(store.peers(PeerList::Infos).unwrap_err()),
        (Record::Peer, CorruptReason::KeyLength { bytes: 5 })
    );
    drop(store);

    // Without these a store does not even open.
    let error = damage(&path, "meta", b"watermarks", Some(b"garbage")).err().unwrap();
    assert!(matches!(corrupt(error), (Record::Watermarks, CorruptReason::Codec(_))));
    let error = damage(&path, "meta", b"watermarks", None).err().unwrap();
    assert_eq!(corrupt(error), (Record::Watermarks, CorruptReason::Missing));
    let error = damage(&path, "meta", b"chain_id", Some(&[7; 32])).err().unwrap();
    assert!(matches!(corrupt(error), (Record::ChainId, CorruptReason::OtherChain { .. })));
}

#[test]
fn a_damaged_identity_or_a_lost_database_is_an_error_that_names_it() {
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
