//! Snapshots of an executor's state, over TLS, gRPC and disk, through the handle.

use bytes::Bytes;
use soma_p2p::{
    Genesis, ObjectBytes, ObjectId, ObjectKind, ObjectSource, OfferedSnapshot, SnapshotAnswer, SnapshotDirectory,
    SnapshotError, SnapshotInfo, SnapshotManifest, SnapshotSink, Status,
};
use soma_tests::{PATIENCE, TestNode, chain, config, eventually, mem_store, node, start};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};
use tempfile::TempDir;

/// Bytes of the state in these scenarios: several chunks, the last one short.
const STATE_BYTES: usize = (12 << 20) + 345;

/// A peer that serves the snapshots of a directory, and counts how often it reads each chunk.
struct Counting {
    directory: SnapshotDirectory,
    reads: Mutex<BTreeMap<ObjectId, usize>>,
}

impl ObjectSource for Counting {
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
        if kind == ObjectKind::SNAPSHOT_CHUNK {
            *self.reads.lock().unwrap().entry(*id).or_default() += 1;
        }
        self.directory.read(kind, id, from, most)
    }

    fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
        self.directory.snapshots()
    }
}

/// A directory with one snapshot.
fn source(genesis: &Genesis) -> (Arc<Counting>, SnapshotManifest, TempDir) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = SnapshotDirectory::new(temporary.path(), genesis.chain_id());
    let mut writer = directory.write(genesis.commit().reference(), 1);
    writer.write_all(&state()).unwrap();
    let manifest = writer.finish().unwrap();
    (Arc::new(Counting { directory, reads: Mutex::default() }), manifest, temporary)
}

fn state() -> Vec<u8> {
    (0..STATE_BYTES).map(|at| ((at >> 20) + at % 251) as u8).collect()
}

fn read(directory: &SnapshotDirectory, manifest: &SnapshotManifest) -> Vec<u8> {
    let mut state = Vec::new();
    directory.open(manifest.clone()).read_to_end(&mut state).unwrap();
    state
}

fn server(number: u8, genesis: &Genesis, source: Arc<dyn ObjectSource>) -> TestNode {
    start(node(number, genesis, mem_store(genesis, &[]), config(&[])).object_source(source))
}

async fn client(genesis: &Genesis, peers: &[&TestNode]) -> TestNode {
    let handles: Vec<_> = peers.iter().map(|peer| peer.handle()).collect();
    let builder = node(99, genesis, mem_store(genesis, &[]), config(&handles.iter().collect::<Vec<_>>()));
    let client = start(builder);
    let connected = |status: &Status| status.objects.as_ref().is_some_and(|objects| objects.peers == peers.len());
    eventually(&client, "it is connected", connected).await;
    client
}

/// Puts chunks into a directory and fails after some, as a full disk does. Accepts what enough peers have.
struct Sink {
    directory: SnapshotDirectory,
    /// Chunks that it still takes.
    left: AtomicI64,
    least_peers: usize,
    aborted: AtomicI64,
}

impl SnapshotSink for Sink {
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer> {
        if offered.peers.len() < self.least_peers {
            return Ok(SnapshotAnswer::Reject);
        }
        self.directory.offer(&OfferedSnapshot { is_trusted: true, ..offered.clone() })
    }

    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(io::Error::other("the disk is full"));
        }
        self.directory.chunk(manifest, position, bytes)
    }

    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        self.directory.finish(manifest)
    }

    fn abort(&self, _: &SnapshotManifest) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }
}

fn sink(genesis: &Genesis, directory: &TempDir, left: i64, least_peers: usize) -> Arc<Sink> {
    let directory = SnapshotDirectory::new(directory.path(), genesis.chain_id());
    Arc::new(Sink { directory, left: left.into(), least_peers, aborted: 0.into() })
}

#[tokio::test]
async fn a_trusted_snapshot_comes_from_several_peers_and_is_served_to_others_then() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, manifest, _directory) = source(genesis);
    let servers = [server(1, genesis, source.clone()), server(2, genesis, source.clone())];
    let client = client(genesis, &[&servers[0], &servers[1]]).await;
    let to = tempfile::tempdir().unwrap();
    let directory = SnapshotDirectory::new(to.path(), genesis.chain_id());
    let fetched = client.fetch_snapshot(Some(manifest.id()), Arc::new(directory.clone()), PATIENCE).await.unwrap();
    assert_eq!(fetched, manifest);
    assert!(read(&directory, &manifest) == state());
    assert_eq!(directory.snapshots().unwrap(), [manifest.info()]);
    let advertised = client.snapshots().await;
    assert_eq!((advertised.len(), advertised[0].info, advertised[0].peers.len()), (1, manifest.info(), 2));
}

#[tokio::test]
async fn a_sink_decides_about_what_peers_offer() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, manifest, _directory) = source(genesis);
    let server = server(1, genesis, source);
    let client = client(genesis, &[&server]).await;
    let to = tempfile::tempdir().unwrap();
    let refused = client.fetch_snapshot(None, sink(genesis, &to, 100, 2), std::time::Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(SnapshotError::Late { .. })), "{refused:?}");
    let refused = client.fetch_snapshot(Some(manifest.id()), sink(genesis, &to, 100, 2), PATIENCE).await;
    assert!(matches!(refused, Err(SnapshotError::Rejected(id)) if id == manifest.id()), "{refused:?}");
    let accepted = client.fetch_snapshot(None, sink(genesis, &to, 100, 1), PATIENCE).await.unwrap();
    assert_eq!(accepted, manifest);
}

#[tokio::test]
async fn a_fetch_that_failed_goes_on_at_its_chunk_and_fetches_none_twice() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, manifest, _directory) = source(genesis);
    let server = server(1, genesis, source.clone());
    let client = client(genesis, &[&server]).await;
    let to = tempfile::tempdir().unwrap();
    let full = sink(genesis, &to, 5, 0);
    let failed = client.fetch_snapshot(Some(manifest.id()), full.clone(), PATIENCE).await;
    assert!(matches!(failed, Err(SnapshotError::Sink(_))), "{failed:?}");
    assert_eq!(full.aborted.load(Ordering::Relaxed), 1);
    let kept = match full.directory.offer(&OfferedSnapshot {
        manifest: manifest.clone(),
        id: manifest.id(),
        peers: Vec::new(),
        validators: Vec::new(),
        in_archive: false,
        is_trusted: true,
    }) {
        Ok(SnapshotAnswer::Accept { has }) => has,
        other => panic!("{other:?}"),
    };
    assert_eq!(kept.len(), 5);
    source.reads.lock().unwrap().clear();
    let sink = sink(genesis, &to, 100, 0);
    client.fetch_snapshot(Some(manifest.id()), sink.clone(), PATIENCE).await.unwrap();
    let reads = source.reads.lock().unwrap().clone();
    let kept: Vec<_> = kept.iter().map(|position| manifest.chunks[*position as usize]).collect();
    assert!(kept.iter().all(|id| !reads.contains_key(id)), "a chunk that is there is fetched again");
    assert_eq!(reads.len(), manifest.chunks.len() - kept.len());
    assert!(read(&sink.directory, &manifest) == state());
}

#[tokio::test]
async fn a_fetch_goes_on_with_other_peers_when_one_vanishes() {
    /// Vanishes when a few chunks have been read.
    struct Vanishing {
        inner: Arc<Counting>,
        left: AtomicI64,
    }
    impl ObjectSource for Vanishing {
        fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
            if kind == ObjectKind::SNAPSHOT_CHUNK && self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                return Err(io::Error::other("the disk is gone"));
            }
            self.inner.read(kind, id, from, most)
        }

        fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
            self.inner.snapshots()
        }
    }
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, manifest, _directory) = source(genesis);
    let vanishing = server(1, genesis, Arc::new(Vanishing { inner: source.clone(), left: 3.into() }));
    let other = server(2, genesis, source);
    let client = client(genesis, &[&vanishing, &other]).await;
    let to = tempfile::tempdir().unwrap();
    let directory = SnapshotDirectory::new(to.path(), genesis.chain_id());
    client.fetch_snapshot(Some(manifest.id()), Arc::new(directory.clone()), PATIENCE).await.unwrap();
    assert!(read(&directory, &manifest) == state());
    assert_eq!(client.status().await.banned, [], "a failing disk proves no lie");
}

#[tokio::test]
async fn an_object_that_is_no_manifest_is_refused() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let source = soma_p2p::MemoryObjects::default();
    let nonsense = source.put(ObjectKind::SNAPSHOT_MANIFEST, &b"no manifest"[..]);
    let other_chain = SnapshotManifest {
        chain_id: soma_p2p::ChainId([9; 32]),
        commit: genesis.commit().reference(),
        format: 1,
        bytes: 0,
        chunk_bytes: 1,
        chunks: Vec::new(),
    };
    let other_chain = source.put(ObjectKind::SNAPSHOT_MANIFEST, other_chain.encode());
    let server = server(1, genesis, Arc::new(source));
    let client = client(genesis, &[&server]).await;
    let to = tempfile::tempdir().unwrap();
    for id in [nonsense, other_chain] {
        let refused = client.fetch_snapshot(Some(id), sink(genesis, &to, 100, 0), PATIENCE).await;
        assert!(matches!(refused, Err(SnapshotError::NoManifest { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_only_advertised_holds_up_no_other() {
    /// Advertises a later snapshot than the real one, and does not have it.
    struct Boasting(Arc<Counting>);
    impl ObjectSource for Boasting {
        fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
            self.0.read(kind, id, from, most)
        }

        fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
            let real = self.0.snapshots()?;
            let later = |info: &SnapshotInfo| {
                let mut later = *info;
                later.commit.index += 1;
                later.manifest = ObjectId::of(&[b"nobody has it"]);
                later
            };
            Ok(real.iter().map(later).chain(real.iter().copied()).collect())
        }
    }
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, manifest, _directory) = source(genesis);
    let server = server(1, genesis, Arc::new(Boasting(source)));
    let client = client(genesis, &[&server]).await;
    let to = tempfile::tempdir().unwrap();
    assert_eq!(client.snapshots().await.len(), 2);
    let fetched = client.fetch_snapshot(None, sink(genesis, &to, 100, 1), std::time::Duration::MAX).await.unwrap();
    assert_eq!(fetched, manifest);
}
