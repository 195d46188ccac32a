//! Snapshots that are in an archive, and that peers lack wholly or in part.

use bytes::Bytes;
use soma_p2p::{
    Genesis, ObjectId, ObjectKind, OfferedSnapshot, SnapshotAnswer, SnapshotDirectory, SnapshotError, SnapshotManifest,
    SnapshotSink, Status,
    archive::{Archive, SegmentStorage, SnapshotName},
};
use soma_tests::{PATIENCE, TestNode, chain, config, eventually, mem_store, node, start};
use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

/// Bytes of the state: five chunks, the last one short.
const STATE_BYTES: usize = (4 << 20) + 345;

fn state() -> Vec<u8> {
    (0..STATE_BYTES).map(|at| ((at >> 20) + at % 251) as u8).collect()
}

/// A snapshot in a directory and in an archive, written by a node.
struct Archived {
    directory: TempDir,
    archive: TempDir,
    manifest: SnapshotManifest,
}

impl Archived {
    async fn new(genesis: &Genesis) -> Self {
        let (temporary, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directory = SnapshotDirectory::new(temporary.path(), genesis.chain_id());
        let mut writer = directory.write(genesis.commit().reference(), 1);
        writer.write_all(&state()).unwrap();
        let manifest = writer.finish().unwrap();
        let builder = node(1, genesis, mem_store(genesis, &[]), config(&[])).object_source(Arc::new(directory));
        let writer = start(builder.archive(storage(archive.path())));
        writer.archive_snapshot(manifest.id()).await.unwrap();
        writer.archive_snapshot(manifest.id()).await.expect("what is there stays");
        Self { directory: temporary, archive, manifest }
    }

    /// The file of a chunk in the archive.
    fn archived_chunk(&self, genesis: &Genesis, position: usize) -> std::path::PathBuf {
        let chunk = self.manifest.chunks[position].to_string();
        self.archive.path().join(genesis.chain_id().to_string()).join("chunks").join(chunk)
    }
}

fn storage(path: &Path) -> Arc<Archive> {
    Arc::new(Archive::open(path.to_str().unwrap()).unwrap())
}

/// A peer with a part of the snapshot.
fn server(genesis: &Genesis, archived: &Archived, without: &[usize]) -> TestNode {
    let directory = SnapshotDirectory::new(archived.directory.path(), genesis.chain_id());
    for position in without {
        let chunk = archived.manifest.chunks[*position].to_string();
        fs::remove_file(archived.directory.path().join(ObjectKind::SNAPSHOT_CHUNK.to_string()).join(chunk)).unwrap();
    }
    start(node(2, genesis, mem_store(genesis, &[]), config(&[])).object_source(Arc::new(directory)))
}

async fn client(genesis: &Genesis, archived: &Archived, server: Option<&TestNode>) -> TestNode {
    let handles: Vec<_> = server.iter().map(|server| server.handle()).collect();
    let settings = config(&handles.iter().collect::<Vec<_>>());
    let builder = node(3, genesis, mem_store(genesis, &[]), settings).archive(storage(archived.archive.path()));
    let client = start(builder);
    let connected = |status: &Status| status.objects.as_ref().is_some_and(|objects| objects.peers == handles.len());
    eventually(&client, "it is connected", connected).await;
    client
}

fn read(directory: &SnapshotDirectory, manifest: &SnapshotManifest) -> Vec<u8> {
    let mut state = Vec::new();
    directory.open(manifest.clone()).read_to_end(&mut state).unwrap();
    state
}

#[tokio::test]
async fn a_snapshot_that_no_peer_has_comes_from_the_archive() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let archived = Archived::new(genesis).await;
    let names = storage(archived.archive.path()).snapshots(genesis.chain_id()).await.unwrap();
    assert_eq!(names, [SnapshotName { commit: 0, manifest: archived.manifest.id() }]);
    let client = client(genesis, &archived, None).await;
    let to = tempfile::tempdir().unwrap();
    let sink = SnapshotDirectory::new(to.path(), genesis.chain_id());
    let id = archived.manifest.id();
    let fetched = client.fetch_snapshot(Some(id), Arc::new(sink.clone()), PATIENCE).await.unwrap();
    assert_eq!(fetched, archived.manifest);
    assert!(read(&sink, &fetched) == state());
}

#[tokio::test]
async fn chunks_that_peers_lack_come_from_the_archive_unless_they_are_damaged() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let archived = Archived::new(genesis).await;
    let server = server(genesis, &archived, &[1, 3]);
    let client = client(genesis, &archived, Some(&server)).await;
    let to = tempfile::tempdir().unwrap();
    let sink = SnapshotDirectory::new(to.path(), genesis.chain_id());
    let id = archived.manifest.id();

    let file = archived.archived_chunk(genesis, 3);
    let right = fs::read(&file).unwrap();
    let mut damaged = right.clone();
    damaged[77] ^= 1;
    fs::write(&file, damaged).unwrap();
    let failed = client.fetch_snapshot(Some(id), Arc::new(sink.clone()), Duration::from_secs(3)).await;
    let Err(error @ SnapshotError::Late { .. }) = failed else { panic!("{failed:?}") };
    assert!(error.to_string().contains("1 chunks are missing"), "{error}");

    fs::write(&file, right).unwrap();
    client.fetch_snapshot(Some(id), Arc::new(sink.clone()), PATIENCE).await.unwrap();
    assert!(read(&sink, &archived.manifest) == state());
}

/// Accepts any snapshot, and remembers the offer.
struct Accepting {
    directory: SnapshotDirectory,
    offered: Mutex<Option<OfferedSnapshot>>,
}

impl SnapshotSink for Accepting {
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer> {
        *self.offered.lock().unwrap() = Some(offered.clone());
        self.directory.offer(&OfferedSnapshot { is_trusted: true, ..offered.clone() })
    }

    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()> {
        self.directory.chunk(manifest, position, bytes)
    }

    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        self.directory.finish(manifest)
    }

    fn abort(&self, _: &SnapshotManifest) {}
}

#[tokio::test]
async fn a_sink_is_told_that_a_snapshot_comes_from_the_archive() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let archived = Archived::new(genesis).await;
    let client = client(genesis, &archived, None).await;
    let to = tempfile::tempdir().unwrap();
    let directory = SnapshotDirectory::new(to.path(), genesis.chain_id());
    let sink = Arc::new(Accepting { directory, offered: Mutex::new(None) });
    client.fetch_snapshot(None, sink.clone(), PATIENCE).await.unwrap();
    let offered = sink.offered.lock().unwrap().clone().unwrap();
    assert!(offered.in_archive && !offered.is_trusted && offered.peers.is_empty(), "{offered:?}");
    assert_eq!(offered.id, archived.manifest.id());
}

#[tokio::test]
async fn a_node_archives_no_snapshot_that_it_lacks() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let unknown = ObjectId::of(&[b"unknown"]);
    let without = start(node(1, genesis, mem_store(genesis, &[]), config(&[])));
    let refused = without.archive_snapshot(unknown).await;
    assert!(matches!(refused, Err(SnapshotError::Lacks("archive"))), "{refused:?}");
    let (directory, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = SnapshotDirectory::new(directory.path(), genesis.chain_id());
    let builder = node(2, genesis, mem_store(genesis, &[]), config(&[])).object_source(Arc::new(source));
    let with = start(builder.archive(storage(archive.path())));
    let refused = with.archive_snapshot(unknown).await;
    assert!(matches!(refused, Err(SnapshotError::NotHere(id)) if id == unknown), "{refused:?}");
    assert_eq!(storage(archive.path()).snapshots(genesis.chain_id()).await.unwrap(), []);
}
