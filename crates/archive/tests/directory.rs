//! An archive in a directory, with several writers, and readers that check everything.

use bytes::Bytes;
use soma_archive::{
    Archive, ArchiveError, Position, SEGMENT_COMMITS, Segment, SegmentFault, SegmentStorage, Verification,
    next_segment, pull, push, walk,
};
use soma_store::{MemStore, Store};
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_types::{CertifiedCommit, CommitIndex, Genesis};
use soma_verify::CertificateVerifier;
use std::{fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;

/// Commits in an epoch.
const EPOCH: u32 = 60;

struct Chain {
    genesis: Genesis,
    commits: Vec<CertifiedCommit>,
}

impl Chain {
    fn new(commits: usize) -> Self {
        Self::with_epochs_of(EPOCH, commits)
    }

    fn with_epochs_of(commits_per_epoch: u32, commits: usize) -> Self {
        let spec = ChainSpec { commits_per_epoch, transactions_per_block: 1, payload_bytes: 8, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        Self { genesis: builder.genesis().clone(), commits: builder.build(commits) }
    }

    /// A store of the first commits.
    fn store(&self, commits: usize) -> Arc<MemStore> {
        let store = MemStore::new(&self.genesis);
        if commits > 0 {
            store.apply(&self.commits[..commits]).unwrap();
        }
        Arc::new(store)
    }
}

fn archive() -> (Archive, TempDir) {
    let directory = TempDir::new().unwrap();
    (Archive::open(directory.path().to_str().unwrap()).unwrap(), directory)
}

fn full() -> Verification {
    Verification::Full(Arc::new(CertificateVerifier))
}

async fn ranges(archive: &Archive, chain: &Chain) -> Vec<(CommitIndex, CommitIndex)> {
    let mut ranges = Vec::new();
    for epoch in archive.epochs(chain.genesis.chain_id()).await.unwrap() {
        let segments = archive.segments(chain.genesis.chain_id(), epoch).await.unwrap();
        ranges.extend(segments.iter().map(|(name, _)| (name.first, name.last)));
    }
    ranges
}

/// Pulls into a new store, and compares it with the chain.
async fn expect_whole(archive: &Archive, chain: &Chain, commits: usize) {
    for verification in [full(), Verification::Certified] {
        let store = chain.store(0);
        let pulled = pull(archive, store.clone(), &verification, |_| {}).await.unwrap();
        assert_eq!(pulled.commits, commits as u64);
        for certified in &chain.commits[..commits] {
            assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
        }
    }
}

/// Rewrites the only object with this end of its name.
fn change(directory: &TempDir, end: &str, change: impl FnOnce(&mut Segment)) -> PathBuf {
    let path = object(directory, end);
    let mut segment = Segment::decode(fs::read(&path).unwrap().into()).unwrap();
    change(&mut segment);
    fs::write(&path, segment.encode().unwrap()).unwrap();
    path
}

fn object(directory: &TempDir, end: &str) -> PathBuf {
    let chain = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let epochs = fs::read_dir(chain).unwrap().map(|epoch| epoch.unwrap().path());
    let objects = epochs.flat_map(|epoch| fs::read_dir(epoch).unwrap().map(|object| object.unwrap().path()));
    let found: Vec<_> = objects.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{end}");
    found[0].clone()
}

#[tokio::test]
async fn store_is_given_back_commit_for_commit() {
    let (chain, (archive, _directory)) = (Chain::new(150), archive());
    let pushed = push(&archive, chain.store(150), |_| {}).await.unwrap();
    assert_eq!((pushed.commits, pushed.segments, pushed.next), (150, 3, 151));
    assert_eq!(ranges(&archive, &chain).await, [(1, 60), (61, 120), (121, 150)]);
    expect_whole(&archive, &chain, 150).await;
}

#[tokio::test]
async fn writers_at_different_heights_do_no_harm_and_go_on_from_the_listing() {
    let (chain, (archive, _directory)) = (Chain::new(150), archive());
    for (height, written) in [(30, 30), (100, 70), (100, 0), (150, 50)] {
        assert_eq!(push(&archive, chain.store(height), |_| {}).await.unwrap().commits, written);
        expect_whole(&archive, &chain, height).await;
    }
    // A writer that began at another commit.
    let pruned = chain.store(150);
    while !pruned.prune(75).unwrap().is_complete {}
    let (other, _other_directory) = self::archive();
    push(&other, pruned, |_| {}).await.unwrap();
    assert_eq!(ranges(&other, &chain).await, [(75, 120), (121, 150)]);
    for name in other.segments(chain.genesis.chain_id(), 1).await.unwrap() {
        assert!(archive.put(&other.get(&name.0).await.unwrap()).await.unwrap());
    }
    expect_whole(&archive, &chain, 150).await;
}

#[test]
fn segment_ends_with_the_epoch_or_when_it_is_full_and_not_before() {
    let chain = Chain::with_epochs_of(1_500, 1_700);
    let cut = |height: usize, first| {
        let segment = next_segment(&*chain.store(height), first, false).unwrap();
        segment.map(|segment| (segment.first, segment.last()))
    };
    assert_eq!(cut(999, 1), None);
    assert_eq!(cut(1_000, 1), Some((1, SEGMENT_COMMITS)));
    assert_eq!(cut(1_700, 1), Some((1, SEGMENT_COMMITS)));
    assert_eq!(cut(1_499, 1_001), None);
    assert_eq!(cut(1_500, 1_001), Some((1_001, 1_500)));
    assert_eq!(cut(1_700, 1_501), None);
    assert_eq!(cut(1_700, 1_701), None);
    let short = next_segment(&*chain.store(1_700), 1_501, true).unwrap().unwrap();
    assert_eq!((short.epoch, short.first, short.last()), (1, 1_501, 1_700));
}

#[tokio::test]
async fn object_that_breaks_a_rule_is_named_and_everything_before_is_stored() {
    type Edit = fn(&mut Segment);
    let edits: [(&str, Edit, CommitIndex); 6] = [
        ("votes are missing", |segment| segment.certifiers.truncate(1), 60),
        ("a vote is changed", |segment| segment.certifiers[0] = flipped(&segment.certifiers[0]), 60),
        ("a block is changed", |segment| segment.blocks[9] = flipped(&segment.blocks[9]), 60),
        ("a block is missing", |segment| drop(segment.blocks.pop()), 60),
        ("a commit is changed", |segment| segment.commits[3] = flipped(&segment.commits[3]), 60),
        ("commits are swapped", |segment| segment.commits.swap(3, 4), 60),
    ];
    for (what, edit, height) in edits {
        let (chain, (archive, directory)) = (Chain::new(150), archive());
        push(&archive, chain.store(150), |_| {}).await.unwrap();
        change(&directory, "0000000061-0000000120", edit);
        let store = chain.store(0);
        let error = pull(&archive, store.clone(), &full(), |_| {}).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Fault { .. }), "{what}: {error}");
        assert!(error.to_string().contains("/0000000001/0000000061-0000000120"), "{what}: {error}");
        assert_eq!(store.watermarks().unwrap().highest_synced.index, height, "{what}");
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[20] ^= 1;
    bytes.into()
}

#[tokio::test]
async fn archive_of_another_history_is_a_fork() {
    let (chain, (archive, directory)) = (Chain::new(150), archive());
    push(&archive, chain.store(150), |_| {}).await.unwrap();
    // The same authorities certify other commits.
    let spec = ChainSpec { commits_per_epoch: EPOCH, payload_bytes: 9, ..ChainSpec::default() };
    let mut other = ChainBuilder::new(spec).unwrap();
    assert_eq!(other.chain_id(), chain.genesis.chain_id());
    let store = MemStore::new(other.genesis());
    store.apply(&other.build(150)).unwrap();
    let segment = next_segment(&store, 61, false).unwrap().unwrap();
    fs::write(object(&directory, "0000000061-0000000120"), segment.encode().unwrap()).unwrap();
    let position = Position::genesis(&chain.genesis).unwrap();
    let error = walk(&archive, position, &full(), async |_| Ok(())).await.unwrap_err();
    let ArchiveError::Fault { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, SegmentFault::Fork { index: 61, .. }), "{error}");
}

#[tokio::test]
async fn object_under_another_name_or_damaged_is_refused() {
    let (chain, (archive, directory)) = (Chain::new(150), archive());
    push(&archive, chain.store(150), |_| {}).await.unwrap();
    let second = object(&directory, "0000000061-0000000120");
    fs::copy(object(&directory, "0000000001-0000000060"), &second).unwrap();
    let read = async || pull(&archive, chain.store(0), &full(), |_| {}).await.unwrap_err();
    let error = read().await;
    assert!(matches!(error, ArchiveError::Foreign { .. }), "{error}");
    for length in [0, 7, 100, 5_000] {
        fs::write(&second, &fs::read(object(&directory, "0000000121-0000000150")).unwrap()[..length]).unwrap();
        let error = read().await;
        assert!(matches!(error, ArchiveError::Segment { .. }), "{length}: {error}");
    }
    // What others put there is left alone.
    fs::write(second.with_file_name("README"), "mine").unwrap();
    fs::remove_file(&second).unwrap();
    let error = read().await;
    assert!(matches!(error, ArchiveError::Gap { epoch: 1, next: 61, .. }), "{error}");
}

#[tokio::test]
async fn missing_end_of_an_epoch_is_a_gap_if_a_later_epoch_is_there() {
    let (chain, (archive, directory)) = (Chain::new(150), archive());
    for height in [30, 150] {
        push(&archive, chain.store(height), |_| {}).await.unwrap();
    }
    fs::remove_file(object(&directory, "0000000031-0000000060")).unwrap();
    let error = pull(&archive, chain.store(0), &full(), |_| {}).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Gap { epoch: 0, next: 31, .. }), "{error}");
}
