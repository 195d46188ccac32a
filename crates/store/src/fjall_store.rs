//! The store on disk: fjall, an embedded log-structured database, in its own directory.

use crate::{
    CorruptReason, Place, Record, Store, StoreError, Watermarks,
    block_files::{BlockFiles, Side, Stored},
    directory::{Directory, disk_bytes},
    engine::{Engine, store_by_engine},
    journal,
    layout::{META_LATE_FROM, Table, pair_key, parse_commit_key, parse_pair_key},
    segments::{Segment, SegmentId},
    tables::{Tables, Write},
};
use bytes::Bytes;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, config::CompressionPolicy};
use soma_types::{CommitIndex, Genesis};
use std::{
    panic,
    path::{Path, PathBuf},
    slice,
    sync::OnceLock,
};

/// Cache of the database's blocks. A node reads its latest writes from memtables. The cache serves peers that catch up,
/// and they read mostly in sequence.
const CACHE_BYTES: u64 = 16 << 20;

/// Batches with at least this many bytes of blocks go to files, with their commits and votes. Smaller batches stay in
/// the database, which is synced in any case: a commit at the head costs one sync instead of two.
const FILED_BYTES: usize = 256 << 10;

/// Memory for the latest writes of one table before they move to its files. Up to four more memtables wait if the disk
/// is slow.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Disk space for journals. It bounds the work of the next start. fjall keeps whole journals of 64 MB.
const JOURNAL_BYTES: u64 = 128 << 20;

/// A durable [`Store`] in a directory: a batch that [`apply`](crate::Store::apply) has stored survives `kill -9` and a
/// power cut.
///
/// The directory is locked while this value exists.
///
/// # When the disk fails
///
/// A full disk, a failed or short write, a failed sync:
/// - The call fails. Readers of this process do not see its batch, and still see everything before it. The batch may
///   have reached the disk nevertheless, and may exist as a whole after the next open.
/// - The database takes no more writes, even if the disk recovers, because the state of the disk is unknown after a
///   failed sync. Every further write fails with that reason. Free space or repair the disk, then restart the node.
/// - The same holds if the database fails in the background, while it moves the journal's content to tables. The write
///   in progress may then still succeed, since it is in the journal.
/// - The next open finishes a creation or an open that failed.
///
/// # When files are damaged
///
/// Opening cuts off an incomplete last write, which was never announced. These are [`Corrupt`](StoreError::Corrupt): a
/// journal with an earlier broken or missing batch, a journal that ends before the content of the tables, and a
/// database on which fjall panics. Damage in a table or in a file of blocks is found when it is read. The open finds it
/// only if it is in the last commits.
///
/// The store cannot detect:
/// - that the last write was announced, if damage makes it look cut off (in its markers or lengths, or at its end), or
///   if any number of whole last batches are missing. The chain then ends earlier, without a gap, and the node fetches
///   the rest again;
/// - that a disk reported a sync that it did not do. After a failed sync Linux may also read data from memory that is
///   not on the disk: check the disk before the node is restarted.
///
/// A power cut may leave a hole in the middle of the last write. fjall then finds a wrong checksum instead of an end:
/// the store does not open, although no announced data is lost.
///
/// A write waits while the database has four full memtables of one table, or 30 runs of new tables. If its background
/// threads die of a full disk at that time, this one call never returns; readers continue.
pub struct FjallStore {
    // Fields drop in this order: the database must close before the lock is released.
    engine: Engine<FjallTables>,
    directory: Directory,
}

impl FjallStore {
    /// Opens the store of `genesis` at `path`, or creates it in an absent or empty directory.
    ///
    /// # Errors
    ///
    /// Without any write: [`OtherChain`](StoreError::OtherChain), [`InUse`](StoreError::InUse),
    /// [`NewerFormat`](StoreError::NewerFormat), [`OlderFormat`](StoreError::OlderFormat), and
    /// [`NotAStore`](StoreError::NotAStore) for a foreign directory or file.
    /// [`Io`](StoreError::Io) if the path is not writable. [`Corrupt`](StoreError::Corrupt) and
    /// [`Database`](StoreError::Database) if the store is damaged.
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        let directory = Directory::open_or_create(path, genesis)?;
        directory.create_database(|draft| {
            tracing::info!(path = %path.display(), chain = %genesis.chain_id(), "creating a store");
            let tables = FjallTables::create(path, draft)?;
            tables.write(&[], Engine::<FjallTables>::first_writes(genesis))
        })?;
        Self::open_in(directory)
    }

    /// Opens the existing store at `path`, of any chain. Creates nothing.
    ///
    /// Like [`open`](Self::open) it takes the store's lock and repairs a crash. So it needs write access, and the node
    /// must be stopped.
    ///
    /// # Errors
    ///
    /// Like [`open`](Self::open), except for the chain.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        Self::open_in(Directory::open_existing(path)?)
    }

    fn open_in(mut directory: Directory) -> Result<Self, StoreError> {
        let (tables, beside_journals) = FjallTables::open(directory.path(), &directory.database())?;
        if directory.is_of_earlier_format() {
            if !directory.has_late_blocks() {
                // The program that wrote it last may not have kept the table of late blocks.
                tables.write(&[], vec![Write::remove(Table::Meta, META_LATE_FROM)])?;
            }
            directory.finish_upgrade()?;
        }
        let engine = Engine::open(tables, directory.genesis().clone())?;
        let Watermarks { highest_synced, lowest_available } = engine.watermarks()?;
        let stored = lowest_available..=highest_synced.index;
        // Content that has left the journals must have reached the tables.
        for index in beside_journals {
            if (index == 0 || stored.contains(&index)) && engine.commit(index)?.is_none() {
                return Err(Record::Commit(index).corrupt(engine.place(), CorruptReason::Missing));
            }
        }
        Ok(Self { engine, directory })
    }

    /// The genesis of the store's chain.
    pub fn genesis(&self) -> &Genesis {
        self.engine.genesis()
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Rewrites the database without removed values. Takes as long as reading and writing all of it, and blocks writes
    /// meanwhile: for a stopped node. On a running node the database does it in small steps.
    ///
    /// # Errors
    /// Fails if the database cannot be read or written.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.engine.tables().compact()
    }

    /// Bytes of the store's files on the disk.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        disk_bytes(self.path())
    }
}

store_by_engine!(FjallStore);

/// One keyspace per table.
struct FjallTables {
    path: PathBuf,
    database: Database,
    /// Keyspaces in the order of [`Table::ALL`], which is that of the enum.
    keyspaces: Vec<Keyspace>,
    files: BlockFiles,
    /// The first failed write, with its reason.
    failed: OnceLock<Box<str>>,
}

impl FjallTables {
    /// Creates a database at the absent path `database`, for the store at `path`.
    fn create(path: &Path, database: &Path) -> Result<Self, StoreError> {
        Self::open_keyspaces(path, database)
    }

    /// Opens the database at `database` of the store at `path`. Also returns the commits beside those in its journals.
    fn open(path: &Path, database: &Path) -> Result<(Self, Vec<CommitIndex>), StoreError> {
        // Without its version marker fjall would create a new database in the place of the existing one.
        if !matches!(database.join("version").try_exists(), Ok(true)) {
            return Err(Record::DatabaseVersion.corrupt(Place::Disk(path.into()), CorruptReason::Missing));
        }
        let beside_journals = journal::check(path, database)?;
        // fjall panics on some damage. The panic drops everything that it has created.
        let opened = panic::catch_unwind(|| Self::open_keyspaces(path, database)).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            let reason = CorruptReason::Panicked { message: message.to_owned() };
            Err(Record::Database.corrupt(Place::Disk(path.into()), reason))
        });
        Ok((opened?, beside_journals))
    }

    fn open_keyspaces(path: &Path, database: &Path) -> Result<Self, StoreError> {
        let failed = |source| match source {
            // The store's own lock comes first, so this is another program on the database.
            fjall::Error::Locked => StoreError::InUse { path: path.to_owned() },
            source => database_error(path, "open the database")(source),
        };
        let database = Database::builder(database)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            // fjall treats a compressed value that does not decompress as the end of the journal, but it checks the
            // checksum of uncompressed ones. Blocks are nearly all of the data and hardly compress.
            .journal_compression(CompressionType::None)
            // With several workers, one spins while another compacts: it takes the message about pending compaction,
            // cannot handle it, and puts it back.
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let open = |table: Table| {
            // Uncompressed values are returned as slices of the read block, and this data hardly compresses.
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES)
                    .data_block_compression_policy(CompressionPolicy::disabled())
            };
            database.keyspace(table.name(), options).map_err(failed)
        };
        let keyspaces = Table::ALL.into_iter().map(open).collect::<Result<_, _>>()?;
        let files = BlockFiles::open(path)?;
        Ok(Self { path: path.to_owned(), database, keyspaces, files, failed: OnceLock::new() })
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.keyspaces.iter().try_for_each(|keyspace| {
            // Removals that are still in memory remove nothing on the disk.
            let written = keyspace.rotate_memtable_and_wait();
            written.and_then(|()| keyspace.major_compact()).map_err(database_error(&self.path, "compact"))
        })
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        &self.keyspaces[table as usize]
    }

    /// Runs `write`, unless an earlier write has failed.
    fn writing(&self, write: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        if let Some(first) = self.failed.get() {
            return Err(StoreError::Stopped { place: self.place(), first: first.clone() });
        }
        // The first failure stays, even if other writes fail at the same time.
        write().inspect_err(|error| drop(self.failed.set(error.to_string().into())))
    }

    /// Writes a batch. [`PersistMode::SyncAll`] makes it durable, and all batches before it.
    fn commit(
        &self,
        side: Side,
        mode: PersistMode,
        segments: &[Segment<'_>],
        writes: Vec<Write>,
    ) -> Result<(), StoreError> {
        self.writing(|| {
            // fjall writes and syncs the whole batch to the journal, then shows it to readers in this order. If the sync
            // fails, it shows nothing and refuses further writes.
            let mut batch = self.database.batch().durability(Some(mode));
            // Extents of the filed values, in order. Empty for a small batch.
            let mut extents = Vec::new();
            if segments.iter().map(|segment| segment.bytes).sum::<usize>() >= FILED_BYTES {
                let filed = writes.iter().filter(|write| write.table.is_filed());
                let filed: Vec<&[u8]> = filed.filter_map(|write| write.value.as_deref()).collect();
                let segments = segments.iter().map(|segment| &segment.pieces[..]);
                extents = self.files.append(side, segments.chain(filed.iter().map(slice::from_ref)))?;
            }
            let mut extents = extents.into_iter();
            let mut stored = |pieces: &[&[u8]]| extents.next().map_or_else(|| Stored::here(pieces), Stored::filed);
            for segment in segments {
                batch.insert(self.keyspace(Table::Segments), segment.id.key(), stored(&segment.pieces));
            }
            for Write { table, key, value } in writes {
                let keyspace = self.keyspace(table);
                match value {
                    Some(value) if table.is_filed() => batch.insert(keyspace, key, stored(&[&value])),
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
            debug_assert!(extents.next().is_none(), "each value in a file has its place in the database");
            batch.commit().map_err(database_error(&self.path, "write a batch"))
        })
    }

    fn read_error(&self, source: fjall::Error) -> StoreError {
        database_error(&self.path, "read")(source)
    }

    /// The file of the first segment from key `first` to key `last`; `None` if the segment is in the database.
    fn first_file(&self, first: &[u8], last: &[u8]) -> Result<Option<u32>, StoreError> {
        let Some(entry) = self.keyspace(Table::Segments).range(first..=last).next() else { return Ok(None) };
        let (_, stored) = entry.into_inner().map_err(|error| self.read_error(error))?;
        Ok(Stored::decode(stored.into()).and_then(|stored| stored.file()))
    }

    /// The value at `key`, from the database value `stored`.
    fn value(&self, table: Table, key: &[u8], stored: Bytes) -> Result<Bytes, StoreError> {
        if !table.is_filed() {
            return Ok(stored);
        }
        match Stored::decode(stored) {
            Some(Stored::Here(value)) => Ok(value),
            Some(Stored::Filed(extent)) => self.files.read(filed_record(table, key), extent),
            None => Err(filed_record(table, key).corrupt(self.place(), CorruptReason::NoValue)),
        }
    }
}

impl Tables for FjallTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let stored = self.keyspace(table).get(key).map_err(|error| self.read_error(error))?;
        stored.map(|stored| self.value(table, key, stored.into())).transpose()
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let keyspace = self.keyspace(table);
        let entries = if prefix.is_empty() { keyspace.iter() } else { keyspace.prefix(prefix) };
        let read = |entry: fjall::Guard| {
            let (key, stored) = entry.into_inner().map_err(|error| self.read_error(error))?;
            let value = self.value(table, &key, stored.into())?;
            Ok((Bytes::from(key), value))
        };
        entries.map(read).collect()
    }

    fn walk(
        &self,
        table: Table,
        first: &[u8],
        last: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError> {
        for entry in self.keyspace(table).range(first..=last) {
            let (key, stored) = entry.into_inner().map_err(|error| self.read_error(error))?;
            if !visit(&key, self.value(table, &key, stored.into())?) {
                break;
            }
        }
        Ok(())
    }

    fn keys(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        let key = |entry: fjall::Guard| entry.key().map(Bytes::from).map_err(|error| self.read_error(error));
        self.keyspace(table).range(first..=last).map(key).collect()
    }

    fn last_key_within(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(last) = self.keyspace(table).range(first..=last).next_back() else { return Ok(None) };
        last.key().map(|key| Some(Bytes::from(key))).map_err(|error| self.read_error(error))
    }

    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError> {
        let Some(last) = self.keyspace(table).last_key_value() else { return Ok(None) };
        last.key().map(|key| Some(Bytes::from(key))).map_err(|error| self.read_error(error))
    }

    fn write(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        self.commit(Side::Above, PersistMode::SyncAll, segments, writes)
    }

    fn write_below(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        self.commit(Side::Below, PersistMode::SyncAll, segments, writes)
    }

    fn write_later(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.commit(Side::Above, PersistMode::Buffer, &[], writes)
    }

    fn reclaim(&self, kept_from: CommitIndex, pinned: &[CommitIndex]) -> Result<(), StoreError> {
        // Files have the order of the chain, so all before the file of the first kept segment have only removed ones.
        let Some(first) = self.first_file(&pair_key(kept_from, 0), &[u8::MAX; 8])? else { return Ok(()) };
        let of_pinned = |batch: &CommitIndex| self.first_file(&pair_key(*batch, 0), &pair_key(*batch, u32::MAX));
        let kept: Vec<_> = pinned.iter().filter_map(|batch| of_pinned(batch).transpose()).collect::<Result<_, _>>()?;
        if !self.files.has_before(first, &kept)? {
            return Ok(());
        }
        // What names their segments must be gone before they are.
        self.flush()?;
        self.files.remove_before(first, &kept)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.writing(|| {
            self.database.persist(PersistMode::SyncAll).map_err(database_error(&self.path, "sync the journal"))
        })
    }

    fn place(&self) -> Place {
        Place::Disk(self.path.as_path().into())
    }
}

/// The record at `key` of a table with values in files; for several commits, the first one.
fn filed_record(table: Table, key: &[u8]) -> Record {
    let record = match table {
        Table::Segments => parse_pair_key(key).map(|(batch, number)| Record::Segment(SegmentId { batch, number })),
        Table::Votes => parse_pair_key(key).map(|(first, _)| Record::Votes(first)),
        _ => parse_commit_key(key).map(Record::Commit),
    };
    record.unwrap_or(Record::Database)
}

fn database_error(path: &Path, doing: &'static str) -> impl FnOnce(fjall::Error) -> StoreError {
    let place = Place::Disk(path.into());
    move |source| StoreError::Database { place, doing, source: Box::new(source) }
}
