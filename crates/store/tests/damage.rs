//! Truncated or changed files of the store: either all announced data is there, or the store names the damage and what
//! to do.

mod common;

use common::Chain;
use soma_store::{CorruptReason, FjallStore, PeerList, Record, Store, StoreError};
use soma_types::CertifiedCommit;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The contents of a store, and its files by their relative path.
struct Original {
    chain: Chain,
    commits: Vec<CertifiedCommit>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Original {
    /// A store of `batches` batches of `size` bytes, with the end of an epoch in between.
    fn new(batches: usize, size: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let mut chain = Chain::new();
        let mut commits = Vec::new();
        let store = FjallStore::open(&path, &chain.genesis).unwrap();
        for number in 0..batches {
            let mut batch = chain.grow(2);
            if number == 2 {
                batch.push(chain.end_epoch());
            }
            let (round, next) = (chain.round + 1, chain.clone());
            batch.push(chain.commit_of((0..4).map(|author| next.block(round, author, &[], size / 4)).collect()));
            store.apply(&batch).unwrap();
            commits.extend(batch);
        }
        drop(store);
        // A reopening cuts the journal to its length, so that there is less to copy.
        drop(FjallStore::open(&path, &chain.genesis).unwrap());
        let mut files = Vec::new();
        let mut open = vec![path.clone()];
        while let Some(next) = open.pop() {
            if next.is_dir() {
                open.extend(fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                files.push((next.strip_prefix(&path).unwrap().to_owned(), fs::read(&next).unwrap()));
            }
        }
        files.sort();
        Self { chain, commits, files }
    }

    /// A copy at `path`, in which the file `name` holds `bytes`, or is missing for `None`.
    fn copy(&self, path: &Path, name: &Path, bytes: Option<&[u8]>) {
        for (file, original) in &self.files {
            let bytes = if file == name { bytes } else { Some(&original[..]) };
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            if let Some(bytes) = bytes {
                fs::write(file, bytes).unwrap();
            }
        }
    }

    /// Opens a copy in which `name` holds `bytes`, and reads everything.
    fn read(&self, name: &Path, bytes: Option<&[u8]>) -> Result<u32, StoreError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        self.copy(&path, name, bytes);
        self.read_all(&path).inspect_err(|error| {
            let text = error.to_string();
            assert!(text.contains(&*path.to_string_lossy()), "{}: {text}", name.display());
            let advised =
                ["restore", "copy", "another directory", "new directory"].iter().any(|advice| text.contains(advice));
            assert!(advised || matches!(error, StoreError::NewerFormat { .. }), "{}: {text}", name.display());
        })
    }

    /// Checks that the store at `path` is unchanged or reports an error. Returns the number of commits.
    fn read_all(&self, path: &Path) -> Result<u32, StoreError> {
        let store = FjallStore::open(path, &self.chain.genesis)?;
        let highest = store.watermarks()?.highest_synced.index;
        for certified in &self.commits[..highest as usize] {
            let index = certified.commit.index;
            let missing = || Record::Commit(index);
            match store.sub_dag(index)? {
                Some(sub_dag) => assert_eq!(sub_dag, certified.sub_dag()),
                None => panic!("{} is silently missing", missing()),
            }
            store.votes(certified.commit.reference())?;
        }
        assert_eq!(store.commit(highest + 1)?, None);
        store.peers(PeerList::Infos)?;
        for epoch in 0..=store.latest_epoch()? {
            assert!(store.committee(epoch)?.is_some(), "the committee of epoch {epoch} is silently missing");
        }
        Ok(highest)
    }

    fn file(&self, is_it: impl Fn(&str) -> bool) -> (&Path, &[u8]) {
        let (name, bytes) = self.files.iter().find(|(name, _)| is_it(&name.to_string_lossy())).unwrap();
        (name, bytes)
    }

    /// The end of each batch in the journal, and the number of commits in the store at that point.
    fn batches(&self, journal: &[u8]) -> Vec<(usize, u32)> {
        let ends = (4..=journal.len()).filter(|end| &journal[end - 4..*end] == b"FJL\x03");
        let mut commits = 0;
        let batches = ends.enumerate().map(|(number, end)| {
            commits += [0, 3, 3, 4, 3].get(number).copied().unwrap_or(3);
            (end, commits)
        });
        batches.collect()
    }
}

#[test]
fn last_write_that_is_cut_off_anywhere_loses_no_earlier_one() {
    let original = Original::new(5, 3_000);
    let (name, journal) = original.file(|name| name.ends_with(".jnl"));
    let batches = original.batches(journal);
    let &[.., (before, kept), (end, all)] = &batches[..] else { panic!("no batches") };
    assert_eq!((end, all as usize), (journal.len(), original.commits.len()));
    let lengths = (before..end).step_by(3_001).chain([end - 13, end - 12, end - 4, end - 1, end]);
    for length in lengths {
        let expected = if length == end { all } else { kept };
        let cut = &journal[..length];
        assert_eq!(original.read(name, Some(cut)).unwrap(), expected, "cut at {length} of {end}");
        // Also in a preallocated journal, with bytes that a disk may leave after the cut.
        let zeros = [cut, &vec![0; 100_000]].concat();
        assert_eq!(original.read(name, Some(&zeros)).unwrap(), expected, "zeros from {length} of {end}");
    }
    let garbage = [&journal[..before], &[0xa5; 3_000]].concat();
    assert_eq!(original.read(name, Some(&garbage)).unwrap(), kept);
}

#[test]
fn damaged_journal_is_an_error_and_never_silently_loses_announced_data() {
    let original = Original::new(5, 3_000);
    let (name, journal) = original.file(|name| name.ends_with(".jnl"));
    let batches = original.batches(journal);
    let &[.., (before, kept), (end, all)] = &batches[..] else { panic!("no batches") };
    // Every byte of a batch's start, first entry and end, then others by a stride.
    let (start, _) = batches[0];
    let heads = (start..start + 34).chain((1..14).map(|back| before - back));
    for (number, position) in heads.chain((0..before).step_by(2_003)).enumerate() {
        let mut bytes = journal.to_vec();
        bytes[position] ^= [0x01, 0x80][number % 2];
        // Changes of some bytes have no effect.
        if let Ok(found) = original.read(name, Some(&bytes)) {
            assert_eq!(found, all, "byte {position} of {end} is changed and announced data is silently lost");
        }
    }
    // Changed values in the last batch are found. Changes that make it look cut off cannot be detected.
    for position in (before..end).step_by(1_009) {
        let mut bytes = journal.to_vec();
        bytes[position] ^= 0x40;
        if let Ok(found) = original.read(name, Some(&bytes)) {
            assert!(found == kept || found == all);
        }
    }
    // A batch missing between two others leaves a gap.
    let &[_, (first, _), (second, _), ..] = &batches[..] else { panic!("no batches") };
    let gap = [&journal[..first], &journal[second..]].concat();
    let error = original.read(name, Some(&gap)).unwrap_err();
    let expected = CorruptReason::Gap { expected: 4, found: 7 };
    assert!(
        matches!(&error, StoreError::Corrupt { record: Record::Journal(0), reason, .. } if *reason == expected),
        "{error}"
    );
    assert!(error.to_string().contains("db/0.jnl"), "{error}");
}

/// Several changes of a file's bytes.
fn changed(bytes: &[u8]) -> [Option<Vec<u8>>; 5] {
    let mut flipped = bytes.to_vec();
    if let Some(byte) = flipped.get_mut(bytes.len() / 3) {
        *byte ^= 0x10;
    }
    let mut overwritten = bytes.to_vec();
    overwritten[bytes.len() / 2..].fill(0xa5);
    [None, Some(Vec::new()), Some(bytes[..bytes.len() / 2].to_vec()), Some(flipped), Some(overwritten)]
}

#[test]
fn change_of_any_file_is_harmless_or_an_error_with_advice() {
    let original = Original::new(4, 1_000);
    for (number, (name, bytes)) in original.files.iter().enumerate() {
        if name.extension().is_some_and(|extension| extension == "jnl") {
            continue;
        }
        // There are many files of each kind, so each file gets only two of the changes.
        for bytes in changed(bytes).into_iter().cycle().skip(number * 2).take(2) {
            if let Ok(found) = original.read(name, bytes.as_deref()) {
                assert_eq!(found as usize, original.commits.len(), "{}", name.display());
            }
        }
    }
}

#[test]
fn damaged_table_is_harmless_or_an_error_when_it_is_read() {
    let original = Original::new(60, 200_000);
    let tables = original
        .files
        .iter()
        .filter(|(name, bytes)| name.components().any(|part| part.as_os_str() == "tables") && bytes.len() > 100_000);
    let mut checked = 0;
    for (name, bytes) in tables {
        for bytes in changed(bytes) {
            if let Ok(found) = original.read(name, bytes.as_deref()) {
                assert_eq!(found as usize, original.commits.len(), "{}", name.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 0, "no data has reached a table");
}

#[test]
fn damaged_file_of_blocks_is_an_error_and_no_other_bytes_are_served() {
    let original = Original::new(3, 1_000_000);
    let (name, bytes) = original.file(|name| name.ends_with(".blocks"));
    assert!(bytes.len() > 3_000_000);
    let damaged = |bytes: Option<&[u8]>| match original.read(name, bytes).unwrap_err() {
        error @ StoreError::Corrupt { .. } if !error.to_string().contains("blocks") => panic!("{error}"),
        StoreError::Corrupt { record, reason, .. } => (record, reason),
        error => panic!("{error}"),
    };
    let missing = CorruptReason::FileMissing { file: 1 };
    let other = CorruptReason::Checksum { file: 1 };
    for bytes in changed(bytes) {
        let (record, reason) = damaged(bytes.as_deref());
        // The record that is read first.
        assert!(matches!(record, Record::Segment(_) | Record::Commit(_)), "{record}");
        assert_eq!(reason, if bytes.is_some() { other.clone() } else { missing.clone() });
    }
    // Change one byte of each part of the first batch.
    let certified = &original.commits[1];
    let changed = |part: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = bytes.windows(part.len()).position(|bytes| bytes == part).unwrap();
        bytes[at] ^= 1;
        damaged(Some(&bytes))
    };
    let (record, reason) = changed(certified.blocks[0].bytes());
    assert!(matches!(record, Record::Segment(id) if id.batch == 1) && reason == other, "{record}: {reason}");
    // The error names the whole value, which begins with commit 1.
    assert_eq!(changed(certified.commit.bytes()), (Record::Commit(1), other.clone()));
    let commit = certified.commit.reference();
    assert_eq!(changed(&[&commit.index.to_be_bytes()[..], &commit.digest.0].concat()), (Record::Votes(0), other));
    // Bytes that a killed process had appended are garbage, and are not overwritten.
    let torn = [bytes, &[0xa5; 3_000]].concat();
    assert_eq!(original.read(name, Some(&torn)).unwrap() as usize, original.commits.len());
}

#[test]
fn greatest_number_of_a_file_of_blocks_is_reported_at_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut chain = Chain::new();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    drop(store);
    fs::create_dir_all(path.join("blocks")).unwrap();
    // The last number of an applied batch.
    fs::write(path.join("blocks").join(format!("{}.blocks", u32::MAX >> 1)), []).unwrap();
    let store = FjallStore::open(&path, &chain.genesis).unwrap();
    let mut batch = chain.grow(1);
    let (round, next) = (chain.round + 1, chain.clone());
    batch.push(chain.commit_of((0..4).map(|author| next.block(round, author, &[], 900_000)).collect()));
    let error = store.apply(&batch).unwrap_err().to_string();
    assert!(error.contains("2147483647.blocks"), "{error}");
}
