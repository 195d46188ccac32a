//! Nodes with an archive in a directory: over TLS and gRPC, with stores on disk.

use async_trait::async_trait;
use soma_archive::{Archive, ArchiveError, Segment, SegmentStorage, push};
use soma_p2p::{ArchiveRead, CertifiedCommit, ChainId, Config, Genesis, Handle, MemStore, Progress, Status, Store};
use soma_tests::{chain, config, disk_store, eventually, expect_commits, mem_store, node, start};
use soma_types::{Epoch, SegmentName};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

/// Commits that the nodes keep.
const WINDOW: u32 = 100;

fn with_archive(seeds: &[&Handle], directory: &Path, write: bool) -> Config {
    let mut config = config(seeds);
    config.archive.place = Some(directory.display().to_string());
    config.archive.write = write;
    config
}

/// A store that has pruned the commits below `lowest`.
fn pruned_store(genesis: &Genesis, commits: &[CertifiedCommit], lowest: u32) -> Arc<MemStore> {
    let store = mem_store(genesis, commits);
    while !store.prune(lowest).unwrap().is_complete {}
    store
}

/// A directory with an archive of these commits.
async fn archived(genesis: &Genesis, commits: &[CertifiedCommit]) -> TempDir {
    let directory = TempDir::new().unwrap();
    let archive = Archive::open(directory.path().to_str().unwrap()).unwrap();
    push(&archive, mem_store(genesis, commits), |_| {}).await.unwrap();
    directory
}

fn from_archive(status: &Status) -> u64 {
    status.state_sync.as_ref().map_or(0, |sync| sync.commits_from_archive)
}

fn lowest(status: &Status) -> u32 {
    status.store_writer.as_ref().and_then(|writer| writer.lowest_available).unwrap_or(1)
}

#[tokio::test]
async fn node_archives_its_history_and_prunes_what_the_archive_has() {
    let (mut builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let server = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])));
    let (store, _disk) = disk_store(&genesis, &[]);
    let directory = TempDir::new().unwrap();
    let mut settings = with_archive(&[&server], directory.path(), true);
    settings.pruning.commits = Some(WINDOW);
    let writer = start(node(2, &genesis, store, settings));
    expect_commits(&writer, &commits).await;
    // Epochs have 20 commits: the last one has just ended.
    let archived = |status: &Status| status.archiver.as_ref().is_some_and(|archiver| archiver.next == Some(301));
    eventually(&writer, "everything is archived", archived).await;
    let _executor = writer.synced_commits(301);
    writer.send_commit(builder.build(1).remove(0)).await.unwrap();
    let status = eventually(&writer, "the past is pruned", |status| lowest(status) > 150).await;
    assert!(lowest(&status) <= 301 - WINDOW + 1, "{}", lowest(&status));
    writer.stop().await;
    server.stop().await;

    // A node without any peer gets the whole chain back.
    let reader = start(node(3, &genesis, disk_store(&genesis, &[]).0, {
        let mut settings = with_archive(&[], directory.path(), false);
        settings.archive.read = ArchiveRead::First;
        settings
    }));
    expect_commits(&reader, &commits).await;
    assert_eq!(from_archive(&reader.status().await), 300);
    reader.stop().await;
}

#[tokio::test]
async fn fresh_node_gets_pruned_commits_from_the_archive_and_the_rest_from_peers() {
    let (builder, commits) = chain(300);
    let genesis = builder.genesis().clone();
    let directory = archived(&genesis, &commits[..260]).await;
    let server = start(node(1, &genesis, pruned_store(&genesis, &commits, 205), config(&[])));
    let (store, _disk) = disk_store(&genesis, &[]);
    let fresh = start(node(2, &genesis, store, with_archive(&[&server], directory.path(), false)));
    expect_commits(&fresh, &commits).await;
    let status = eventually(&fresh, "synced", |status| status.progress == Some(Progress::Synced)).await;
    // To the end of the segment that has commit 204.
    assert!((204..=220).contains(&from_archive(&status)), "{}", from_archive(&status));
    fresh.stop().await;
    server.stop().await;
}

/// The only object that begins with this commit.
fn object(directory: &Path, first: u32) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.filter_map(|path| {
        if path.is_dir() {
            return Some(object(&path, first)).filter(|found| found.exists());
        }
        let name = path.file_name()?.to_str()?;
        name.starts_with(&format!("{first:010}-")).then_some(path)
    });
    found.last().unwrap_or_default()
}

#[tokio::test]
async fn damaged_object_is_named_nothing_of_it_is_taken_and_no_peer_is_blamed() {
    let (builder, commits) = chain(100);
    let genesis = builder.genesis().clone();
    let directory = archived(&genesis, &commits).await;
    let damaged = object(directory.path(), 41);
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let server = start(node(1, &genesis, pruned_store(&genesis, &commits, 81), config(&[])));
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), with_archive(&[&server], directory.path(), false)));
    let named = |status: &Status| status.explanation.contains("0000000041-0000000060");
    let status = eventually(&fresh, "the object is named", named).await;
    assert_eq!((status.height, status.cause.as_deref()), (40, Some("retrying")), "{}", status.explanation);
    assert!(status.explanation.contains("checksum"), "{}", status.explanation);
    let failures =
        |status: &Status| status.peers.iter().filter_map(|peer| peer.serving.as_ref()).map(|peer| peer.failures).sum();
    let blamed: u32 = failures(&status);
    assert_eq!((blamed, status.banned.len()), (0, 0));
    expect_commits(&fresh, &commits[..40]).await;
    fresh.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn archive_of_another_chain_is_no_source() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis().clone();
    let (other, others) = {
        let spec = soma_testkit::ChainSpec { seed: 9, commits_per_epoch: 20, ..Default::default() };
        let mut builder = soma_testkit::ChainBuilder::new(spec).unwrap();
        let commits = builder.build(60);
        (builder.genesis().clone(), commits)
    };
    let directory = archived(&other, &others).await;
    let server = start(node(1, &genesis, pruned_store(&genesis, &commits, 41), config(&[])));
    let fresh = start(node(2, &genesis, mem_store(&genesis, &[]), with_archive(&[&server], directory.path(), false)));
    let status = eventually(&fresh, "nobody has it", |status| status.cause.as_deref() == Some("all-pruned")).await;
    assert_eq!(status.height, 0);
    fresh.stop().await;
    server.stop().await;
}

/// An archive that can be switched off.
struct Switched {
    archive: Archive,
    is_down: AtomicBool,
}

impl Switched {
    fn check(&self, doing: &str) -> Result<(), ArchiveError> {
        if !self.is_down.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (place, doing) = (self.place().into(), doing.into());
        Err(ArchiveError::Storage { place, doing, source: "switched off".into(), advice: "switch it on" })
    }
}

#[async_trait]
impl SegmentStorage for Switched {
    fn place(&self) -> &str {
        self.archive.place()
    }

    async fn segments(&self, chain: ChainId, epoch: Epoch) -> Result<Vec<(SegmentName, u64)>, ArchiveError> {
        self.check("list it")?;
        self.archive.segments(chain, epoch).await
    }

    async fn put(&self, segment: &Segment) -> Result<bool, ArchiveError> {
        self.check("write to it")?;
        self.archive.put(segment).await
    }

    async fn get(&self, name: &SegmentName) -> Result<Segment, ArchiveError> {
        self.check("read it")?;
        self.archive.get(name).await
    }
}

#[tokio::test]
async fn node_goes_on_while_the_archive_is_down_says_so_and_catches_up_after() {
    let (mut builder, commits) = chain(120);
    let genesis = builder.genesis().clone();
    let directory = archived(&genesis, &commits[..60]).await;
    let archive = Archive::open(directory.path().to_str().unwrap()).unwrap();
    let switched = Arc::new(Switched { archive, is_down: AtomicBool::new(true) });
    let server = start(node(1, &genesis, pruned_store(&genesis, &commits, 41), config(&[])));

    let mut settings = config(&[&server]);
    settings.archive.write = true;
    let store = mem_store(&genesis, &[]);
    let fresh = start(node(2, &genesis, store, settings).archive(switched.clone()));
    let unreachable = |status: &Status| status.cause.as_deref() == Some("archive-unreachable");
    let status = eventually(&fresh, "the archive is missed", unreachable).await;
    assert!(status.explanation.contains("switched off") && status.is_alive(), "{}", status.explanation);

    switched.is_down.store(false, Ordering::Relaxed);
    expect_commits(&fresh, &commits).await;
    let archived = |status: &Status| {
        status.archiver.as_ref().is_some_and(|archiver| archiver.next == Some(121) && archiver.failure.is_none())
    };
    eventually(&fresh, "the archive has the rest", archived).await;

    // Down again: the head is followed all the same.
    switched.is_down.store(true, Ordering::Relaxed);
    let head = builder.build(20);
    for commit in &head {
        fresh.send_commit(commit.clone()).await.unwrap();
    }
    expect_commits(&fresh, &head).await;
    let fails = |status: &Status| {
        let failure = status.archiver.as_ref().and_then(|archiver| archiver.failure.as_ref());
        failure.is_some_and(|failure| failure.reason.contains("switched off"))
    };
    let status = eventually(&fresh, "the writer says why it does not write", fails).await;
    assert!(status.is_ready() && status.progress == Some(Progress::Synced), "{}", status.explanation);
    fresh.stop().await;
    server.stop().await;
}
