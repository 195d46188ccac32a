//! The store on disk: fjall, an embedded log-structured database, in a directory of its own.

use crate::{
    CorruptReason, Place, Record, Store, StoreError,
    block_files::{BlockFiles, Stored},
    directory::Directory,
    engine::{Engine, Tables, Write, store_by_engine},
    journal,
    layout::{Table, parse_commit_key, parse_pair_key},
    segments::{Segment, SegmentId},
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

/// Memory for blocks of the database that were read lately. A node reads what it wrote a moment ago, from memtables;
/// the cache serves peers that catch up, and they read mostly in sequence.
const CACHE_BYTES: u64 = 16 << 20;

/// Blocks of a batch with so many bytes go to files, with its commits and votes; smaller ones stay in the database, which is
/// synced in any case: at the head a commit costs one sync and not two.
const FILED_BYTES: usize = 256 << 10;

/// Memory for the latest writes of one table before they move to its files. Up to four more wait for their turn when
/// the disk is slow.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Disk for journals: bounds what is read again at the next start. fjall keeps whole journals of 64 MB.
const JOURNAL_BYTES: u64 = 128 << 20;

/// A [`Store`] in a directory, durable: what [`apply`](crate::Store::apply) returned survives `kill -9`
/// and a power cut.
///
/// The directory is locked as long as this value lives.
///
/// # When the disk fails
///
/// A full disk, a failed or short write, a failed sync:
/// - The call fails. What it was to write is not seen by any reader of this process, and everything before it still
///   is. It may have reached the disk all the same, and be there, whole, after the next opening.
/// - The database takes no more writes, even if the disk recovers: after a failed sync nobody can tell what is on it.
///   Every further write fails and says so. Free space or see to the disk, then restart the node.
/// - The same when the database fails in the background, moving what the journal holds to tables: the write that is
///   under way then may still succeed, since it is in the journal.
/// - A failure while the store is being created or opened is finished by the next opening.
///
/// # When files are damaged
///
/// Opening cuts off a last write that is not whole: it was never announced. A journal that is broken further ahead, that
/// lacks a batch, or that ends before what the tables hold, is [`Corrupt`](StoreError::Corrupt), as is a database over
/// which fjall panics. Damage in a table or in a file of blocks is found when it is read: by the opening, if the last commits lie
/// there.
///
/// What cannot be found out:
/// - that the last write was announced, if it is damaged so that it looks cut off (its markers or lengths, or its end
///   missing), or that any number of whole last batches are gone. The chain then ends earlier, without a gap, and the
///   node fetches the rest again;
/// - that a disk which said that it had synced has not. After a failed sync Linux may read back from memory what is
///   not on the disk: after one, check the disk before the node is restarted.
///
/// A power cut may leave a hole in the middle of the last write, where fjall finds a wrong checksum and not an end: the
/// store then does not open, although nothing that was announced is lost.
///
/// While the database has four full memtables of one table, or 30 runs of new tables, it holds the write that is under
/// way. If its background threads die of a full disk just then, that one call does not return; readers go on.
pub struct FjallStore {
    // Dropped in this order: the database is closed before the lock goes.
    engine: Engine<FjallTables>,
    directory: Directory,
}

impl FjallStore {
    /// Opens the store of `genesis` at `path`, or creates it in an absent or empty directory.
    ///
    /// # Errors
    ///
    /// [`OtherChain`](StoreError::OtherChain), [`InUse`](StoreError::InUse), [`NotAStore`](StoreError::NotAStore) for
    /// a directory or file of something else, and [`NewerFormat`](StoreError::NewerFormat): nothing was written then.
    /// [`Io`](StoreError::Io) when the path is not writable, [`Corrupt`](StoreError::Corrupt) and
    /// [`Database`](StoreError::Database) when the store is damaged.
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        let directory = Directory::open_or_create(path, genesis)?;
        directory.create_database(|draft| {
            tracing::info!(path = %path.display(), chain = %genesis.chain_id(), "creating a store");
            let tables = FjallTables::create(path, draft)?;
            tables.write(&[], Engine::<FjallTables>::first_writes(genesis))
        })?;
        Self::open_in(directory)
    }

    /// Opens the store at `path` whatever its chain; creates nothing where there is none.
    ///
    /// Takes the store's lock and repairs what a crash left, as [`open`](Self::open) does; so it needs write access
    /// and a node that is down.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for the chain.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        Self::open_in(Directory::open_existing(path)?)
    }

    fn open_in(directory: Directory) -> Result<Self, StoreError> {
        let (tables, in_journals) = FjallTables::open(directory.path(), &directory.database())?;
        let engine = Engine::open(tables, directory.genesis().clone())?;
        // What the journals no longer hold must have reached the tables.
        if let Some(index) = in_journals.and_then(|first| first.checked_sub(1))
            && engine.commit(index)?.is_none()
        {
            return Err(Record::Commit(index).corrupt(engine.place(), CorruptReason::Missing));
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
}

store_by_engine!(FjallStore);

/// One keyspace per table.
struct FjallTables {
    path: PathBuf,
    database: Database,
    /// In the order of [`Table::ALL`], which is that of the enum.
    keyspaces: [Keyspace; Table::ALL.len()],
    files: BlockFiles,
    /// The first write that failed, and why.
    failed: OnceLock<Box<str>>,
}

impl FjallTables {
    /// Makes a database at `database`, which is absent, for the store at `path`.
    fn create(path: &Path, database: &Path) -> Result<Self, StoreError> {
        Self::open_keyspaces(path, database)
    }

    /// Opens the database at `database` of the store at `path`. With it, the first commit that its journals hold.
    fn open(path: &Path, database: &Path) -> Result<(Self, Option<CommitIndex>), StoreError> {
        // fjall makes a new database wherever it finds no version marker: not in the place of one that lost it.
        if !matches!(database.join("version").try_exists(), Ok(true)) {
            return Err(Record::DatabaseVersion.corrupt(Place::Disk(path.into()), CorruptReason::Missing));
        }
        let in_journals = journal::check(path, database)?;
        // fjall panics over some damage. All that it had made by then is gone with the panic.
        let opened = panic::catch_unwind(|| Self::open_keyspaces(path, database)).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            let reason = CorruptReason::Panicked { message: message.to_owned() };
            Err(Record::Database.corrupt(Place::Disk(path.into()), reason))
        });
        Ok((opened?, in_journals))
    }

    fn open_keyspaces(path: &Path, database: &Path) -> Result<Self, StoreError> {
        let failed = |source| match source {
            // Our own lock comes first; this is another program on the database itself.
            fjall::Error::Locked => StoreError::InUse { path: path.to_owned() },
            source => database_error(path, "open the database")(source),
        };
        let database = Database::builder(database)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            // fjall takes a value that does not decompress for the end of the journal. One that is stored as it is, it
            // checks. Blocks, which are nearly all of it, hardly compress.
            .journal_compression(CompressionType::None)
            // With more, one of fjall's spins for as long as another one compacts: it takes the message that there is
            // something to compact, which is not for it, and puts it back.
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let open = |table: Table| {
            // Uncompressed, so that what is read is a slice of what the database read: nothing here compresses well.
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES)
                    .data_block_compression_policy(CompressionPolicy::disabled())
            };
            database.keyspace(table.name(), options).map_err(failed)
        };
        let [a, b, c, d, e, f, g, h, i] = Table::ALL;
        let keyspaces = [open(a)?, open(b)?, open(c)?, open(d)?, open(e)?, open(f)?, open(g)?, open(h)?, open(i)?];
        let files = BlockFiles::open(path)?;
        Ok(Self { path: path.to_owned(), database, keyspaces, files, failed: OnceLock::new() })
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        &self.keyspaces[table as usize]
    }

    /// Does `write`, unless one has failed before.
    fn writing(&self, write: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        if let Some(first) = self.failed.get() {
            return Err(StoreError::Stopped { place: self.place(), first: first.clone() });
        }
        // The first one stays, whoever else fails at the same moment.
        write().inspect_err(|error| drop(self.failed.set(error.to_string().into())))
    }

    fn read_error(&self, source: fjall::Error) -> StoreError {
        database_error(&self.path, "read")(source)
    }

    /// The value at `key`, which the database has as `stored`.
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

    fn last_key_within(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(last) = self.keyspace(table).range(first..=last).next_back() else { return Ok(None) };
        last.key().map(|key| Some(Bytes::from(key))).map_err(|error| self.read_error(error))
    }

    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError> {
        let Some(last) = self.keyspace(table).last_key_value() else { return Ok(None) };
        last.key().map(|key| Some(Bytes::from(key))).map_err(|error| self.read_error(error))
    }

    fn write(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError> {
        self.writing(|| {
            // fjall puts the whole batch into the journal and syncs it before any of it can be read, then shows it in
            // this order. When the sync fails it shows nothing and takes no more writes.
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
            // Of the values that may be in files, in order: none if this batch is a small one.
            let mut extents = Vec::new();
            if segments.iter().map(|segment| segment.bytes).sum::<usize>() >= FILED_BYTES {
                let filed = writes.iter().filter(|write| write.table.is_filed());
                let filed: Vec<&[u8]> = filed.filter_map(|write| write.value.as_deref()).collect();
                let segments = segments.iter().map(|segment| &segment.pieces[..]);
                extents = self.files.append(segments.chain(filed.iter().map(slice::from_ref)))?;
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

    fn flush(&self) -> Result<(), StoreError> {
        self.writing(|| {
            self.database.persist(PersistMode::SyncAll).map_err(database_error(&self.path, "sync the journal"))
        })
    }

    fn place(&self) -> Place {
        Place::Disk(self.path.as_path().into())
    }
}

/// What lies at `key` of a table of which large batches have their values in files: of several commits, the first.
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
