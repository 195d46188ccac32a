//! Values in the database: the value itself or its position in a file, and the errors for values that were changed
//! externally.

mod common;

use common::{Chain, fresh};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use soma_store::{CorruptReason, FjallStore, PeerList, Record, SegmentId, Store, StoreError, serve_commits};
use soma_types::{CertifiedCommit, SignedBlock};
use std::{collections::BTreeSet, path::Path};

/// Changes a value externally, and reopens the store.
fn damage(path: &Path, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<FjallStore, StoreError> {
    // In these tables, a zero byte before a value marks it as stored in the database.
    let here: &[u8] = if ["segments", "votes", "commits"].contains(&table) { &[0] } else { &[] };
    replace(path, table, key, value.map(|value| [here, value].concat()).as_deref())
}

/// Changes the database's bytes of a value, and reopens the store.
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

/// 41 commits with enough bytes for a file. The blocks of all but the first vote for the previous commit.
fn large_batch(chain: &mut Chain) -> Vec<CertifiedCommit> {
    let mut batch = chain.grow(1);
    batch.extend((0..40).map(|_| chain.large(8_000)));
    batch
}

/// The database's bytes of a value.
fn stored(path: &Path, table: &str, key: &[u8]) -> Vec<u8> {
    let database = Database::builder(path.join("db")).open().unwrap();
    let table = database.keyspace(table, KeyspaceCreateOptions::default).unwrap();
    table.get(key).unwrap().unwrap().to_vec()
}

#[test]
fn database_has_only_the_positions_of_a_large_batch() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let batch = large_batch(&mut chain);
    // Votes for the last commit, in a batch that stays in the database.
    let small = chain.large(100);
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
        // A marker byte, file, offset, length, checksum. The genesis is in the database.
        let filed = values.iter().filter(|value| value[0] == 1 && value.len() == 1 + 4 + 4 + 4 + 8).count();
        let in_database = values.iter().filter(|value| value[0] == 0).count();
        assert!(filed >= 3 && in_database == here && filed + in_database == values.len(), "{filed} {in_database}");
    }
}

#[test]
fn damaged_position_is_an_error_with_the_record_and_spares_earlier_ones() {
    let (_directory, path) = fresh();
    let mut chain = Chain::new();
    let batch = large_batch(&mut chain);
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    store.apply(&batch).unwrap();
    drop(store);
    // The position of commits 16 to 31: file, offset, length, checksum.
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
fn damaged_value_is_an_error_that_names_it() {
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

    // All commits of the batch are in one value, under the index of the first.
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
    assert_eq!(store.sub_dags(1..=5, usize::MAX).unwrap(), [batch[0].sub_dag()], "all before the damaged commit");
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

    // The blocks of commit 3 in the only segment of the batch; the first two are consecutive.
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
    // With another signature everything decodes, but it is not the block that the commit names.
    let mut other = first.bytes().to_vec();
    *other.last_mut().unwrap() ^= 1;
    let found = Box::new(SignedBlock::decode(other.clone().into()).unwrap().reference());
    let store = damage(&path, "segments", &key, Some(&changed(&other))).unwrap();
    assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (record, CorruptReason::OtherBlock { found }));
    let before: Vec<_> = batch[..2].iter().map(CertifiedCommit::sub_dag).collect();
    assert_eq!(store.sub_dags(1..=5, usize::MAX).unwrap(), before, "all before the damaged commit");
    drop(store);
    let end = start + first.bytes().len();
    let cut = CorruptReason::CutOff { block: Box::new(reference), end: end as u64, bytes: end - 1 };
    let whole = Record::Segment(SegmentId { batch: 1, number: 0 });
    for (value, reason) in [(Some(&segment[..end - 1]), cut), (None, CorruptReason::Missing)] {
        let store = damage(&path, "segments", &key, value).unwrap();
        assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (whole, reason.clone()));
        assert_eq!(corrupt(store.blocks(&[reference]).unwrap_err()), (whole, reason));
        // Its length is known without the segment.
        assert_eq!(store.block_sizes(&[reference]).unwrap(), [Some(first.bytes().len())]);
    }
    drop(damage(&path, "segments", &key, Some(&segment)).unwrap());

    let round = [&reference.epoch.to_be_bytes()[..], &reference.round.to_be_bytes()].concat();
    let store = damage(&path, "rounds", &round, Some(&[7; 53])).unwrap();
    let record_of_round = Record::Round { epoch: 0, round: reference.round };
    let reason = CorruptReason::Length { bytes: 53 };
    assert_eq!(corrupt(store.sub_dag(3).unwrap_err()), (record_of_round, reason.clone()));
    // The writer does not add to a value that it cannot read.
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

    // Without these values the store does not open.
    let error = damage(&path, "meta", b"watermarks", Some(b"garbage")).err().unwrap();
    assert!(matches!(corrupt(error), (Record::Watermarks, CorruptReason::Codec(_))));
    let error = damage(&path, "meta", b"watermarks", None).err().unwrap();
    assert_eq!(corrupt(error), (Record::Watermarks, CorruptReason::Missing));
    let error = damage(&path, "meta", b"chain_id", Some(&[7; 32])).err().unwrap();
    assert!(matches!(corrupt(error), (Record::ChainId, CorruptReason::OtherChain { .. })));
}
