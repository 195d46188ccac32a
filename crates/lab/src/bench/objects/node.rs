//! `soma-lab bench-object-node`: a node that serves objects or fetches them, a process of its own.
//!
//! It reads its setup, one line of JSON, from standard input. The end of its standard input stops it.

use super::super::{
    node::watch_stdin,
    node_io::{Event, Fetched, tell},
    usage,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soma_p2p::{
    ActorSystem, Config, Handle, MemStore, MemoryObjects, ObjectBytes, ObjectId, ObjectKind, ObjectSource,
    OfferedSnapshot, SigningKey, SnapshotAnswer, SnapshotDirectory, SnapshotInfo, SnapshotManifest, SnapshotSink,
    Status,
};
use soma_p2p_cli::{CliError, files};
use std::{
    io::{self, BufRead},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes of a small object.
pub(super) const SMALL_BYTES: usize = 1 << 10;

/// How long a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// How long it may take to connect to all peers.
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// How long the system may take to stop in order.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// The job of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ObjectSetup {
    /// The chain's genesis file.
    pub(super) genesis: PathBuf,
    /// The secret half of its network key.
    pub(super) key: [u8; 32],
    /// Its configuration. It works once it is connected to all seed peers.
    pub(super) config: Config,
    /// What it serves.
    pub(super) source: Source,
    /// What it fetches.
    pub(super) work: Option<Work>,
}

/// What a node serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Source {
    /// Nothing.
    Nothing,
    /// Small objects: every `step`-th of `count` objects, from `first` on.
    Small { count: u32, first: u32, step: usize },
    /// The snapshots in a directory.
    Snapshots { directory: PathBuf },
}

/// What a node fetches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// `count` small objects, with one call.
    AtOnce { count: u32 },
    /// `count` small objects, with one call after the other.
    OneByOne { count: u32 },
    /// A snapshot, into a directory.
    Snapshot { manifest: ObjectId, directory: PathBuf },
}

/// A small object.
fn small(number: u32) -> Vec<u8> {
    let mut object = vec![0x5a; SMALL_BYTES];
    object[..4].copy_from_slice(&number.to_le_bytes());
    object
}

fn small_id(number: u32) -> ObjectId {
    ObjectId::of(&[&small(number)])
}

/// Serves the snapshots of a directory, and counts how often a chunk is read.
struct Counting {
    directory: SnapshotDirectory,
    chunks: AtomicU64,
}

impl ObjectSource for Counting {
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
        if kind == ObjectKind::SNAPSHOT_CHUNK && from == 0 {
            self.chunks.fetch_add(1, Ordering::Relaxed);
        }
        self.directory.read(kind, id, from, most)
    }

    fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
        self.directory.snapshots()
    }
}

/// Puts a snapshot into a directory, and reports the first chunk to the benchmark.
struct Telling {
    directory: SnapshotDirectory,
    has_told: AtomicBool,
}

impl SnapshotSink for Telling {
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer> {
        self.directory.offer(offered)
    }

    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()> {
        self.directory.chunk(manifest, position, bytes)?;
        if !self.has_told.swap(true, Ordering::Relaxed) {
            tell(&Event::FirstChunk).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        self.directory.finish(manifest)
    }

    fn abort(&self, manifest: &SnapshotManifest) {
        self.directory.abort(manifest);
    }
}

/// Runs a node to its end.
pub(crate) fn run() -> Result<ExitCode, CliError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(CliError::input)?;
    let setup: ObjectSetup = serde_json::from_str(&line).map_err(CliError::input)?;
    let genesis = files::read_genesis(&setup.genesis)?;
    let chain = genesis.chain_id();
    let peers = setup.config.seed_peers.len();
    let store = Arc::new(MemStore::new(&genesis));
    let mut builder = ActorSystem::builder(genesis, SigningKey::from_bytes(&setup.key), store).config(setup.config);
    let mut counting = None;
    match setup.source {
        Source::Nothing => {}
        Source::Small { count, first, step } => {
            let objects = MemoryObjects::default();
            for number in (first..count).step_by(step) {
                objects.put(ObjectKind::OBJECT, small(number));
            }
            builder = builder.object_source(Arc::new(objects));
        }
        Source::Snapshots { directory } => {
            let source = Counting { directory: SnapshotDirectory::new(directory, chain), chunks: AtomicU64::new(0) };
            let source = counting.insert(Arc::new(source)).clone();
            builder = builder.object_source(source);
        }
    }
    let done = Arc::new(AtomicBool::new(false));
    let stop = watch_stdin(setup.work.is_some().then(|| done.clone()));
    let cpu_s = usage::process_cpu_s();
    let system = builder.start().map_err(CliError::input)?;
    tell(&Event::Ready { peer_id: system.peer_id(), address: system.address().clone() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(CliError::failed)?;
    if let Some(work) = setup.work {
        let handle = system.handle();
        let fetched = runtime.block_on(async {
            connect(&handle, peers).await?;
            fetch(&handle, work).await
        })?;
        done.store(true, Ordering::Relaxed);
        tell(&Event::Fetched(fetched))?;
    }
    // An error is the end of standard input, too.
    let _ = stop.recv();
    if let Some(counting) = counting {
        tell(&Event::ServedChunks { chunks: counting.chunks.load(Ordering::Relaxed) })?;
    }
    tell(&Event::Stopped { cpu_s: usage::process_cpu_s() - cpu_s, peak_rss_mib: usage::peak_rss_mib() })?;
    runtime.block_on(system.shutdown(SHUTDOWN_DEADLINE));
    Ok(ExitCode::SUCCESS)
}

async fn connect(handle: &Handle, peers: usize) -> Result<(), CliError> {
    let connected = move |status: &Status| status.objects.as_ref().is_some_and(|objects| objects.peers == peers);
    let connecting = tokio::time::timeout(CONNECT_TIME, handle.wait_until(connected));
    connecting.await.map(drop).map_err(|_| CliError::failed(format!("not connected to all {peers} peers")))
}

/// Fetches, and measures it.
async fn fetch(handle: &Handle, work: Work) -> Result<Fetched, CliError> {
    let kind = ObjectKind::OBJECT;
    let mut fetched = Fetched::default();
    let cpu_s = usage::process_cpu_s();
    match work {
        Work::AtOnce { count } => {
            let ids: Vec<_> = (0..count).map(small_id).collect();
            let (started, cpu_s) = (Instant::now(), usage::process_cpu_s());
            let mut objects = handle.fetch(kind, ids, FETCH_TIME);
            while let Some((_, object)) = objects.next().await {
                fetched.bytes += object.map_err(CliError::failed)?.len() as u64;
                fetched.objects += 1;
            }
            (fetched.seconds, fetched.cpu_s) = (started.elapsed().as_secs_f64(), usage::process_cpu_s() - cpu_s);
        }
        Work::OneByOne { count } => {
            let begun = Instant::now();
            for id in (0..count).map(small_id) {
                let started = Instant::now();
                let object = handle.fetch(kind, [id], FETCH_TIME).next().await;
                let (_, object) = object.ok_or_else(|| CliError::failed("a fetch ended without an answer"))?;
                fetched.bytes += object.map_err(CliError::failed)?.len() as u64;
                fetched.objects += 1;
                fetched.latencies_ms.push(started.elapsed().as_secs_f64() * 1e3);
            }
            (fetched.seconds, fetched.cpu_s) = (begun.elapsed().as_secs_f64(), usage::process_cpu_s() - cpu_s);
        }
        Work::Snapshot { manifest, directory } => {
            let directory = SnapshotDirectory::new(directory, handle.chain_id());
            let sink = Arc::new(Telling { directory, has_told: AtomicBool::new(false) });
            let started = Instant::now();
            let snapshot = handle.fetch_snapshot(Some(manifest), sink, FETCH_TIME).await.map_err(CliError::failed)?;
            (fetched.objects, fetched.bytes) = (snapshot.chunks.len() as u64, snapshot.bytes);
            (fetched.seconds, fetched.cpu_s) = (started.elapsed().as_secs_f64(), usage::process_cpu_s() - cpu_s);
        }
    }
    fetched.peak_rss_mib = usage::peak_rss_mib();
    Ok(fetched)
}
