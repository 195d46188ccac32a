//! The store on disk: fjall, an embedded log-structured engine in Rust.
//!
//! A batch goes to fjall's journal and is synced before `apply` returns; the journal is replayed when a store is
//! opened after a crash, and what of it was torn is dropped whole.

use crate::{
    NotAStoreReason, Place, StoreError,
    directory::{self, Found},
    engine::{Engine, Tables, Write, store_by_engine},
    layout::Table,
};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use soma_types::Genesis;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Bytes of blocks and indexes kept in memory for readers.
const CACHE_BYTES: u64 = 32 << 20;

/// Bytes of one table's fresh writes kept in memory before they are sorted into files.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// Bytes of journals kept for writes that are only in memory; the least that fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;

/// A [`Store`](crate::Store) in a directory. One at a time: a second one on the same directory, in this process or
/// another, is refused with [`StoreError::InUse`].
pub struct FjallStore {
    engine: Engine<FjallTables>,
}

impl FjallStore {
    /// Opens the store at `path`, or creates it if there is none. Nothing is written to a directory that holds
    /// something else, or the store of another chain.
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        match directory::look(path)? {
            Found::Store(found) => {
                let (expected, stored) = (genesis.chain_id(), found.chain_id());
                if expected != stored {
                    return Err(StoreError::OtherChain { path: path.to_owned(), expected, found: stored });
                }
                Self::open_found(path, *found)
            }
            Found::Nothing(_) => Self::create(path, genesis),
        }
    }

    /// Opens the store at `path`, with the genesis that it was created with. Creates nothing.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        match directory::look(path)? {
            Found::Store(genesis) => Self::open_found(path, *genesis),
            Found::Nothing(reason) => Err(StoreError::NotAStore { path: path.to_owned(), reason }),
        }
    }

    fn create(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        directory::prepare(path)?;
        let tables = FjallTables::open(path)?;
        tables.write(Engine::<FjallTables>::first_writes(genesis))?;
        directory::declare(path, genesis)?;
        Ok(Self { engine: Engine::open(tables, genesis.clone())? })
    }

    fn open_found(path: &Path, genesis: Genesis) -> Result<Self, StoreError> {
        Ok(Self { engine: Engine::open(FjallTables::open(path)?, genesis)? })
    }

    /// The genesis of the chain.
    pub fn genesis(&self) -> &Genesis {
        self.engine.genesis()
    }
}

store_by_engine!(FjallStore);

/// One keyspace for each table.
struct FjallTables {
    path: PathBuf,
    database: Database,
    keyspaces: BTreeMap<Table, Keyspace>,
}

impl FjallTables {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| Self::open_error(path, error);
        let database = Database::builder(directory::database(path))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(failed)?;
        let mut keyspaces = BTreeMap::new();
        for table in Table::ALL {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            keyspaces.insert(table, database.keyspace(table.name(), options).map_err(failed)?);
        }
        Ok(Self { path: path.to_owned(), database, keyspaces })
    }

    fn open_error(path: &Path, error: fjall::Error) -> StoreError {
        match error {
            fjall::Error::Locked => StoreError::InUse { path: path.to_owned() },
            error => {
                StoreError::Database { place: Place::Disk(path.to_owned()), doing: "open it", source: Box::new(error) }
            }
        }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(fjall::Error) -> StoreError + '_ {
        move |source| StoreError::Database { place: self.place(), doing, source: Box::new(source) }
    }

    fn keyspace(&self, table: Table) -> Result<&Keyspace, StoreError> {
        // Every table was opened with the store.
        let incomplete = NotAStoreReason::Incomplete { entry: table.name() };
        self.keyspaces.get(&table).ok_or(StoreError::NotAStore { path: self.path.clone(), reason: incomplete })
    }
}

impl Tables for FjallTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.keyspace(table)?.get(key).map_err(self.failed("read"))?;
        Ok(value.map(Bytes::from))
    }

    fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<usize>, StoreError> {
        let size = self.keyspace(table)?.size_of(key).map_err(self.failed("read"))?;
        Ok(size.map(|size| size as usize))
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let entries = self.keyspace(table)?.prefix(prefix);
        let pairs = entries.map(|entry| entry.into_inner().map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
        pairs.collect::<Result<_, _>>().map_err(self.failed("read"))
    }

    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError> {
        let last = self.keyspace(table)?.last_key_value().map(|entry| entry.key());
        Ok(last.transpose().map_err(self.failed("read"))?.map(Bytes::from))
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for Write { table, key, value } in writes {
            let keyspace = self.keyspace(table)?;
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit().map_err(self.failed("write"))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(self.failed("sync"))
    }

    fn place(&self) -> Place {
        Place::Disk(self.path.clone())
    }
}
