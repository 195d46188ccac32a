//! Snapshots of an executor's state: what a node serves, and where it puts one that it fetches.

use crate::objects::{DirectoryObjects, ObjectBytes, ObjectSource};
use bytes::Bytes;
use soma_types::{
    ChainId, CommitRef, ObjectId, ObjectKind, PeerId, SnapshotInfo, SnapshotManifest,
    limits::{MAX_SNAPSHOT_CHUNKS, MAX_SNAPSHOT_MANIFEST_BYTES, OBJECT_PIECE_BYTES},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
};

/// Bytes of a chunk that a [`SnapshotWriter`] writes: as much as travels in one message.
const CHUNK_BYTES: usize = OBJECT_PIECE_BYTES;

/// Threads that make chunks durable: a file system joins what several of them wait for.
const SYNCING: usize = 16;

const CHUNK: ObjectKind = ObjectKind::SNAPSHOT_CHUNK;
const MANIFEST: ObjectKind = ObjectKind::SNAPSHOT_MANIFEST;

/// A snapshot that peers offer. Its manifest is what its id says; whether the state is the right one is for the embedder
/// to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedSnapshot {
    /// The manifest.
    pub manifest: SnapshotManifest,
    /// Its id.
    pub id: ObjectId,
    /// Connected peers that advertise it.
    pub peers: Vec<PeerId>,
    /// Those of them that are validators of the present epoch.
    pub validators: Vec<PeerId>,
    /// Whether it comes from the archive, and no peer advertises it.
    pub in_archive: bool,
    /// Whether the caller named this id, and so trusts it.
    pub is_trusted: bool,
}

/// The embedder's answer to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// Fetch it, without the chunks with these positions, which are there already.
    Accept {
        /// The positions.
        has: BTreeSet<u32>,
    },
    /// Try the next one.
    Reject,
}

/// Where a node puts a snapshot that it fetches.
///
/// Calls come one after the other, from threads that may block. After a crash the same snapshot is offered again; the
/// sink then says which chunks it has.
pub trait SnapshotSink: Send + Sync + 'static {
    /// Whether to fetch this snapshot.
    ///
    /// # Errors
    /// Fails if the sink cannot take anything. Nothing is fetched then.
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer>;

    /// Takes a chunk, in any order. Its bytes are what the manifest says.
    ///
    /// # Errors
    /// Fails if the chunk cannot be kept. The fetch ends then.
    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()>;

    /// Every chunk is there.
    ///
    /// # Errors
    /// Fails if the snapshot cannot be used.
    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()>;

    /// The fetch has ended before its last chunk. What is there may be kept for the next attempt.
    fn abort(&self, manifest: &SnapshotManifest);
}

/// Snapshots in a directory: serves those that are complete, takes fetched ones, and keeps the latest.
///
/// A chunk is a file that its id names, and several snapshots may share it. A manifest is written last.
#[derive(Clone, Debug)]
pub struct SnapshotDirectory {
    root: PathBuf,
    objects: DirectoryObjects,
    chain: ChainId,
}

impl SnapshotDirectory {
    /// Uses a directory for snapshots of one chain. It is made when the first snapshot is written.
    pub fn new(root: impl Into<PathBuf>, chain: ChainId) -> Self {
        let root = root.into();
        Self { objects: DirectoryObjects::new(&root), root, chain }
    }

    /// Begins a snapshot of the state after this commit.
    pub fn write(&self, commit: CommitRef, format: u32) -> SnapshotWriter {
        let manifest = SnapshotManifest {
            chain_id: self.chain,
            commit,
            format,
            bytes: 0,
            chunk_bytes: CHUNK_BYTES as u64,
            chunks: Vec::new(),
        };
        SnapshotWriter { directory: self.clone(), manifest, chunk: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Every complete snapshot, the latest first. Files that are no manifests of this chain are left out.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub fn manifests(&self) -> io::Result<Vec<SnapshotManifest>> {
        let mut manifests = Vec::new();
        for id in ids_in(&self.root.join(MANIFEST.to_string()))? {
            if let Some(manifest) = self.manifest(&id)? {
                manifests.push(manifest);
            }
        }
        manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.commit));
        Ok(manifests)
    }

    /// A complete snapshot.
    fn manifest(&self, id: &ObjectId) -> io::Result<Option<SnapshotManifest>> {
        let Some(ObjectBytes { total, bytes }) = self.objects.read(MANIFEST, id, 0, MAX_SNAPSHOT_MANIFEST_BYTES)?
        else {
            return Ok(None);
        };
        let is_whole = total == bytes.len() as u64 && ObjectId::of(&[&bytes]) == *id;
        let manifest = is_whole.then(|| SnapshotManifest::decode(&bytes).ok()).flatten();
        Ok(manifest.filter(|manifest| manifest.chain_id == self.chain))
    }

    /// The bytes of a snapshot's state, in order. They are checked again while they are read.
    pub fn open(&self, manifest: SnapshotManifest) -> SnapshotReader {
        SnapshotReader { directory: self.clone(), manifest, next: 0, rest: Bytes::new() }
    }

    /// Removes all snapshots but the latest ones, and the chunks that no other snapshot has.
    ///
    /// # Errors
    /// Fails if a file cannot be removed. The next call goes on.
    pub fn retain(&self, latest: usize) -> io::Result<()> {
        let mut manifests = self.manifests()?;
        for old in manifests.drain(latest.min(manifests.len())..).collect::<Vec<_>>() {
            // The manifest goes first: a snapshot with a manifest is complete.
            self.objects.remove(MANIFEST, &old.id())?;
            let kept: BTreeSet<_> = manifests.iter().flat_map(|manifest| &manifest.chunks).collect();
            for chunk in old.chunks.iter().filter(|chunk| !kept.contains(chunk)) {
                self.objects.remove(CHUNK, chunk)?;
            }
        }
        Ok(())
    }

    /// Makes every chunk durable, then writes the manifest.
    fn complete(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        let per_thread = manifest.chunks.len().div_ceil(SYNCING).max(1);
        thread::scope(|scope| {
            let sync = |chunks: &[ObjectId]| {
                chunks.iter().try_for_each(|chunk| File::open(self.objects.path(CHUNK, chunk))?.sync_all())
            };
            let start = |chunks| thread::Builder::new().spawn_scoped(scope, move || sync(chunks));
            let threads = manifest.chunks.chunks(per_thread).map(start).collect::<io::Result<Vec<_>>>()?;
            let panicked = |_| Err(io::Error::other("a thread that syncs has panicked"));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
        })?;
        let directory = self.root.join(CHUNK.to_string());
        if directory.exists() {
            File::open(directory)?.sync_all()?;
        }
        self.objects.put(MANIFEST, &manifest.encode()).map(drop)
    }

    /// Positions of chunks that are there. Each is read and checked: a crash of the machine may have left a part.
    fn present(&self, manifest: &SnapshotManifest) -> io::Result<BTreeSet<u32>> {
        let mut present = BTreeSet::new();
        for (position, id) in (0..).zip(&manifest.chunks) {
            if self.read_chunk(manifest, position as usize, id)?.is_some() {
                present.insert(position);
            }
        }
        Ok(present)
    }

    /// A chunk, if it is there and whole.
    fn read_chunk(&self, manifest: &SnapshotManifest, position: usize, id: &ObjectId) -> io::Result<Option<Bytes>> {
        let range = manifest.range(position);
        let read = self.objects.read(CHUNK, id, 0, (range.end - range.start) as usize)?;
        let whole = read.filter(|read| read.total == range.end - range.start && ObjectId::of(&[&read.bytes]) == *id);
        Ok(whole.map(|read| read.bytes))
    }
}

/// The ids that name files of a directory.
fn ids_in(directory: &Path) -> io::Result<Vec<ObjectId>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for entry in entries {
        // Half-written files have other names.
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<ObjectId>().ok()));
    }
    Ok(ids)
}

impl ObjectSource for SnapshotDirectory {
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
        self.objects.read(kind, id, from, most)
    }

    fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
        Ok(self.manifests()?.iter().map(SnapshotManifest::info).collect())
    }
}

/// Takes the snapshots that the caller trusts, and no other.
impl SnapshotSink for SnapshotDirectory {
    fn offer(&self, offered: &OfferedSnapshot) -> io::Result<SnapshotAnswer> {
        if !offered.is_trusted || offered.manifest.chain_id != self.chain {
            return Ok(SnapshotAnswer::Reject);
        }
        Ok(SnapshotAnswer::Accept { has: self.present(&offered.manifest)? })
    }

    fn chunk(&self, manifest: &SnapshotManifest, position: u32, bytes: Bytes) -> io::Result<()> {
        match manifest.chunks.get(position as usize) {
            Some(id) => self.objects.put_later_durable(CHUNK, *id, &bytes),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no chunk {position}"))),
        }
    }

    fn finish(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        self.complete(manifest)
    }

    fn abort(&self, _: &SnapshotManifest) {}
}

/// Cuts a state into chunks as it is written.
#[derive(Debug)]
pub struct SnapshotWriter {
    directory: SnapshotDirectory,
    manifest: SnapshotManifest,
    chunk: Vec<u8>,
}

impl SnapshotWriter {
    /// Completes the snapshot: from now on it is served. Dropped before, it leaves only chunks without a manifest.
    ///
    /// # Errors
    /// Fails if the snapshot has too many chunks, or cannot be written.
    pub fn finish(mut self) -> io::Result<SnapshotManifest> {
        self.end_chunk()?;
        self.directory.complete(&self.manifest)?;
        Ok(self.manifest)
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        if self.manifest.chunks.len() == MAX_SNAPSHOT_CHUNKS {
            return Err(io::Error::other(format!("a snapshot has at most {MAX_SNAPSHOT_CHUNKS} chunks")));
        }
        let id = ObjectId::of(&[&self.chunk]);
        self.directory.objects.put_later_durable(CHUNK, id, &self.chunk)?;
        self.manifest.chunks.push(id);
        self.manifest.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the state of a snapshot.
#[derive(Debug)]
pub struct SnapshotReader {
    directory: SnapshotDirectory,
    manifest: SnapshotManifest,
    /// Position of the next chunk.
    next: usize,
    /// Of the present one.
    rest: Bytes,
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Some(id) = self.manifest.chunks.get(self.next) else { return Ok(0) };
            let chunk = self.directory.read_chunk(&self.manifest, self.next, id)?;
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("chunk {id} is missing or damaged"));
            self.rest = chunk.ok_or_else(damaged)?;
            self.next += 1;
        }
        let taken = self.rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.rest.split_to(taken));
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::CommitDigest;

    const CHAIN: ChainId = ChainId([1; 32]);

    fn commit(index: u32) -> CommitRef {
        CommitRef { index, digest: CommitDigest([index as u8; 32]) }
    }

    fn state(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / CHUNK_BYTES + at % 251) as u8).collect()
    }

    fn write(directory: &SnapshotDirectory, index: u32, state: &[u8]) -> SnapshotManifest {
        let mut writer = directory.write(commit(index), 1);
        writer.write_all(state).expect("the disk takes it");
        writer.finish().expect("the disk takes it")
    }

    fn read(directory: &SnapshotDirectory, manifest: &SnapshotManifest) -> io::Result<Vec<u8>> {
        let mut state = Vec::new();
        directory.open(manifest.clone()).read_to_end(&mut state).map(|_| state)
    }

    fn offer(manifest: &SnapshotManifest, is_trusted: bool) -> OfferedSnapshot {
        let (manifest, id) = (manifest.clone(), manifest.id());
        OfferedSnapshot { manifest, id, peers: Vec::new(), validators: Vec::new(), in_archive: false, is_trusted }
    }

    fn files(directory: &tempfile::TempDir, kind: ObjectKind) -> usize {
        fs::read_dir(directory.path().join(kind.to_string())).map_or(0, Iterator::count)
    }

    #[test]
    fn a_state_is_cut_into_chunks_and_read_back() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = SnapshotDirectory::new(temporary.path(), CHAIN);
        for (index, bytes) in [(1, 0), (2, 5), (3, CHUNK_BYTES), (4, 2 * CHUNK_BYTES + 7)] {
            let state = state(bytes);
            let manifest = write(&directory, index, &state);
            assert_eq!(read(&directory, &manifest).expect("it is there"), state, "{bytes} bytes");
            assert_eq!(manifest.chunks.len(), bytes.div_ceil(CHUNK_BYTES));
        }
        let advertised: Vec<_> = directory.snapshots().expect("a directory").iter().map(|it| it.commit.index).collect();
        assert_eq!(advertised, [4, 3, 2, 1], "the latest first");
        let of_other_chain = SnapshotDirectory::new(temporary.path(), ChainId([2; 32]));
        assert_eq!(of_other_chain.snapshots().expect("a directory"), []);
    }

    #[test]
    fn an_unfinished_snapshot_is_not_served() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = SnapshotDirectory::new(temporary.path(), CHAIN);
        let mut writer = directory.write(commit(1), 1);
        writer.write_all(&state(3 * CHUNK_BYTES)).expect("the disk takes it");
        drop(writer);
        assert_eq!((files(&temporary, CHUNK), directory.snapshots().expect("a directory")), (3, Vec::new()));
    }

    #[test]
    fn only_the_latest_snapshots_stay_with_the_chunks_that_they_share() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = SnapshotDirectory::new(temporary.path(), CHAIN);
        let old = write(&directory, 1, &state(3 * CHUNK_BYTES));
        let new = write(&directory, 2, &state(2 * CHUNK_BYTES));
        directory.retain(1).expect("files can be removed");
        assert_eq!(directory.manifests().expect("a directory"), std::slice::from_ref(&new));
        assert_eq!((files(&temporary, CHUNK), files(&temporary, MANIFEST)), (2, 1), "two chunks are shared");
        assert!(read(&directory, &new).is_ok() && read(&directory, &old).is_err());
        directory.retain(0).expect("files can be removed");
        assert_eq!((files(&temporary, CHUNK), files(&temporary, MANIFEST)), (0, 0));
    }

    #[test]
    fn a_fetched_snapshot_goes_on_after_a_crash_without_its_damaged_chunks() {
        let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let source = SnapshotDirectory::new(from.path(), CHAIN);
        let manifest = write(&source, 1, &state(4 * CHUNK_BYTES + 1));
        let sink = SnapshotDirectory::new(to.path(), CHAIN);
        let has = |positions: &[u32]| SnapshotAnswer::Accept { has: positions.iter().copied().collect() };
        assert_eq!(sink.offer(&offer(&manifest, false)).expect("a directory"), SnapshotAnswer::Reject);
        assert_eq!(sink.offer(&offer(&manifest, true)).expect("a directory"), has(&[]));
        let chunk = |position: u32| {
            let id = &manifest.chunks[position as usize];
            source.read_chunk(&manifest, position as usize, id).expect("it is there").expect("it is whole")
        };
        for position in [4, 0, 2] {
            sink.chunk(&manifest, position, chunk(position)).expect("the disk takes it");
        }
        // The machine has lost power: a file has its name and not all of its bytes.
        let torn = sink.objects.path(CHUNK, &manifest.chunks[2]);
        File::options().write(true).open(&torn).expect("the file").set_len(100).expect("it is cut");
        assert_eq!(sink.offer(&offer(&manifest, true)).expect("a directory"), has(&[0, 4]));
        for position in [1, 2, 3] {
            sink.chunk(&manifest, position, chunk(position)).expect("the disk takes it");
        }
        sink.finish(&manifest).expect("it is complete");
        assert_eq!(read(&sink, &manifest).expect("it is there"), state(4 * CHUNK_BYTES + 1));
        assert_eq!(sink.snapshots().expect("a directory"), [manifest.info()], "it is served from now on");
    }

    #[test]
    fn a_snapshot_without_all_of_its_chunks_is_not_finished() {
        let temporary = tempfile::tempdir().expect("a directory");
        let (from, to) = (temporary.path().join("from"), temporary.path().join("to"));
        let manifest = write(&SnapshotDirectory::new(from, CHAIN), 1, &state(5));
        let sink = SnapshotDirectory::new(to, CHAIN);
        assert!(sink.finish(&manifest).is_err() && sink.snapshots().expect("a directory").is_empty());
    }
}
