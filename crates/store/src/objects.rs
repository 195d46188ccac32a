//! Where a node's objects come from when peers ask for them.

use bytes::Bytes;
use soma_types::{ObjectId, ObjectKind, SnapshotInfo, limits::MAX_OBJECT_BYTES};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectBytes {
    /// Bytes of the whole object.
    pub total: u64,
    /// The bytes that were asked for.
    pub bytes: Bytes,
}

/// What a node has of objects. It serves them to peers as they are stored.
///
/// Calls come from several threads that may block. An object never changes: its id is the digest of its bytes.
pub trait ObjectSource: Send + Sync + 'static {
    /// Reads an object from byte `from` on: `most` bytes, or what is left. `None` if the source does not have it.
    ///
    /// # Errors
    /// Fails if the object cannot be read now. The peer is told to ask later.
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>>;

    /// Snapshots whose manifest and chunks the source has, the latest first. A source has none unless it says so.
    ///
    /// # Errors
    /// Fails if they cannot be listed now.
    fn snapshots(&self) -> io::Result<Vec<SnapshotInfo>> {
        Ok(Vec::new())
    }
}

/// Objects in a directory: each is a file `KIND/ID`.
#[derive(Clone, Debug)]
pub struct DirectoryObjects {
    root: PathBuf,
}

impl DirectoryObjects {
    /// Uses a directory. It is made when the first object is put.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where an object is.
    pub fn path(&self, kind: ObjectKind, id: &ObjectId) -> PathBuf {
        self.root.join(kind.to_string()).join(id.to_string())
    }

    /// Puts an object in, and returns its id. It is durable, and is never seen half-written.
    ///
    /// # Errors
    /// Fails if the object is longer than [`MAX_OBJECT_BYTES`], or the directory cannot be written to.
    pub fn put(&self, kind: ObjectKind, bytes: &[u8]) -> io::Result<ObjectId> {
        if bytes.len() > MAX_OBJECT_BYTES {
            let message = format!("an object of {} bytes: at most {MAX_OBJECT_BYTES} are allowed", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let id = ObjectId::of(&[bytes]);
        if !self.path(kind, &id).exists() {
            let directory = self.write(kind, &id, bytes, File::sync_all)?;
            File::open(directory)?.sync_all()?;
        }
        Ok(id)
    }

    /// Puts an object in, for a caller that makes it durable later. After a crash of the machine the file may have lost
    /// bytes.
    pub(crate) fn put_later_durable(&self, kind: ObjectKind, id: ObjectId, bytes: &[u8]) -> io::Result<()> {
        self.write(kind, &id, bytes, begin_to_write).map(drop)
    }

    /// Writes the file of an object, and returns its directory.
    fn write(
        &self,
        kind: ObjectKind,
        id: &ObjectId,
        bytes: &[u8],
        sync: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let directory = self.root.join(kind.to_string());
        fs::create_dir_all(&directory)?;
        let half_written = unique_name(&directory, id);
        let mut file = File::create(&half_written)?;
        file.write_all(bytes)?;
        sync(&file)?;
        fs::rename(&half_written, self.path(kind, id))?;
        Ok(directory)
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// Fails if the file cannot be removed.
    pub fn remove(&self, kind: ObjectKind, id: &ObjectId) -> io::Result<()> {
        match fs::remove_file(self.path(kind, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Has the system begin to write a file to the disk, without waiting for it. What makes the file durable then waits for
/// less.
#[cfg(all(target_os = "linux", feature = "fjall"))]
fn begin_to_write(file: &File) -> io::Result<()> {
    // Linux writes what it is told that nobody needs.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Other systems choose the time themselves.
#[cfg(not(all(target_os = "linux", feature = "fjall")))]
fn begin_to_write(_: &File) -> io::Result<()> {
    Ok(())
}

/// A name that no other writer uses.
fn unique_name(directory: &Path, id: &ObjectId) -> PathBuf {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
    directory.join(format!(".{id}.{}.{writer}", std::process::id()))
}

impl ObjectSource for DirectoryObjects {
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
        let mut file = match File::open(self.path(kind, id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let total = file.metadata()?.len();
        let length = usize::try_from(total.saturating_sub(from)).unwrap_or(usize::MAX).min(most);
        let mut bytes = Vec::with_capacity(length);
        if length > 0 {
            file.seek(SeekFrom::Start(from))?;
            if file.take(length as u64).read_to_end(&mut bytes)? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(ObjectBytes { total, bytes: bytes.into() }))
    }
}

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryObjects {
    /// Never iterated.
    objects: Mutex<HashMap<(ObjectKind, ObjectId), Bytes>>,
}

impl MemoryObjects {
    /// Puts an object in, and returns its id.
    pub fn put(&self, kind: ObjectKind, bytes: impl Into<Bytes>) -> ObjectId {
        let bytes = bytes.into();
        let id = ObjectId::of(&[&bytes]);
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, id), bytes);
        id
    }

    /// Removes an object, if it is there.
    pub fn remove(&self, kind: ObjectKind, id: ObjectId) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, id));
    }
}

impl ObjectSource for MemoryObjects {
    fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(object) = objects.get(&(kind, *id)) else { return Ok(None) };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(object.len());
        let end = from.saturating_add(most).min(object.len());
        Ok(Some(ObjectBytes { total: object.len() as u64, bytes: object.slice(from..end) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ObjectKind = ObjectKind::OBJECT;

    fn read(source: &dyn ObjectSource, id: &ObjectId, from: u64, most: usize) -> Option<(u64, Vec<u8>)> {
        let read = source.read(KIND, id, from, most).expect("it can be read");
        read.map(|ObjectBytes { total, bytes }| (total, bytes.to_vec()))
    }

    #[test]
    fn both_sources_return_any_part_of_an_object_and_none_of_what_they_lack() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = DirectoryObjects::new(directory.path().join("objects"));
        let memory = MemoryObjects::default();
        let id = files.put(KIND, b"content").expect("it is put");
        assert_eq!(memory.put(KIND, &b"content"[..]), id);
        for source in [&files as &dyn ObjectSource, &memory] {
            assert_eq!(read(source, &id, 0, 100), Some((7, b"content".to_vec())));
            assert_eq!(read(source, &id, 3, 2), Some((7, b"te".to_vec())));
            assert_eq!(read(source, &id, 7, 100), Some((7, Vec::new())));
            assert_eq!(read(source, &id, u64::MAX, 100), Some((7, Vec::new())));
            assert_eq!(read(source, &ObjectId::of(&[b"other"]), 0, 100), None);
            let of_other_kind = source.read(ObjectKind::TRANSACTION, &id, 0, 100).expect("it can be read");
            assert_eq!(of_other_kind, None, "kinds are kept apart");
        }
        files.remove(KIND, &id).expect("it is removed");
        files.remove(KIND, &id).expect("it is gone already");
        memory.remove(KIND, id);
        assert_eq!((read(&files, &id, 0, 1), read(&memory, &id, 0, 1)), (None, None));
    }

    #[test]
    fn an_object_of_too_many_bytes_is_refused() {
        let files = DirectoryObjects::new("/nowhere");
        let error = files.put(KIND, &vec![0; MAX_OBJECT_BYTES + 1]).expect_err("it is too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_directory_has_each_object_once_and_no_half_written_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = DirectoryObjects::new(directory.path());
        let ids: Vec<_> = (0..2).map(|_| files.put(KIND, b"content").expect("it is put")).collect();
        assert_eq!(ids[0], ids[1]);
        let names = fs::read_dir(directory.path().join("object")).expect("a directory of the kind");
        let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, [ids[0].to_string().as_str()]);
    }
}
