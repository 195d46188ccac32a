//! The directory of a store: what makes it one, and what is told of one that is none.
//!
//! ```text
//!   DIR/soma-store   says that this is a store: format version, chain id, genesis. Written last, in one step.
//!   DIR/db/          the database
//! ```
//!
//! A directory without `soma-store` holds no store yet, so a creation that was interrupted is simply done again.

use crate::{CorruptReason, NotAStoreReason, Place, Record, StoreError};
use serde::{Deserialize, Serialize};
use soma_types::{ChainId, Genesis, codec};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The file that makes a directory a store.
const IDENTITY: &str = "soma-store";

/// The same while it is being written.
const IDENTITY_DRAFT: &str = "soma-store.tmp";

/// The database's directory.
const DATABASE: &str = "db";

/// First bytes of the identity file.
const MAGIC: &[u8] = b"soma-store\n";

/// Version of the layout of tables and keys.
const FORMAT_VERSION: u32 = 1;

/// Longest identity file: a genesis with the largest committee.
const MAX_IDENTITY_BYTES: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Identity {
    format_version: u32,
    chain_id: ChainId,
    #[serde(with = "serde_bytes")]
    genesis: Vec<u8>,
}

/// What is at a path.
pub(crate) enum Found {
    /// Nothing, or what an interrupted creation left.
    Nothing(NotAStoreReason),
    /// A store of this genesis.
    Store(Box<Genesis>),
}

/// The database's directory in a store's.
pub(crate) fn database(path: &Path) -> PathBuf {
    path.join(DATABASE)
}

/// Looks at a path, without changing anything.
pub(crate) fn look(path: &Path) -> Result<Found, StoreError> {
    let io = |doing| move |source| StoreError::Io { path: path.to_owned(), doing, source };
    let not_a_store = |reason| Err(StoreError::NotAStore { path: path.to_owned(), reason });
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => return not_a_store(NotAStoreReason::NotADirectory),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing(NotAStoreReason::Absent)),
        Err(error) => return Err(io("look at it")(error)),
    }
    match fs::read(path.join(IDENTITY)) {
        Ok(bytes) => {
            let genesis = parse(path, &bytes)?;
            if !database(path).is_dir() {
                return not_a_store(NotAStoreReason::Incomplete { entry: DATABASE });
            }
            return Ok(Found::Store(Box::new(genesis)));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read its file soma-store")(error)),
    }
    for entry in fs::read_dir(path).map_err(io("list it"))? {
        let entry = entry.map_err(io("list it"))?.file_name();
        if entry != DATABASE && entry != IDENTITY_DRAFT {
            return not_a_store(NotAStoreReason::Foreign { entry: entry.to_string_lossy().into_owned() });
        }
    }
    Ok(Found::Nothing(NotAStoreReason::Empty))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Genesis, StoreError> {
    let place = || Place::Disk(path.to_owned());
    let unknown = || StoreError::NotAStore { path: path.to_owned(), reason: NotAStoreReason::UnknownIdentity };
    let body = bytes.strip_prefix(MAGIC).ok_or_else(unknown)?;
    // The version is read first: what comes after it is only known for versions that are.
    let (version, _) = body.split_first_chunk::<4>().ok_or_else(unknown)?;
    let found = u32::from_le_bytes(*version);
    if found > FORMAT_VERSION {
        return Err(StoreError::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    let identity: Identity = codec::decode(body, "file soma-store", MAX_IDENTITY_BYTES)
        .map_err(|error| Record::Identity.corrupt(place(), error))?;
    let genesis = Genesis::decode(&identity.genesis).map_err(|error| Record::Identity.corrupt(place(), error))?;
    let (expected, found) = (identity.chain_id, genesis.chain_id());
    if expected != found {
        return Err(Record::Identity.corrupt(place(), CorruptReason::OtherGenesis { expected, found }));
    }
    Ok(genesis)
}

/// Makes the directory, and clears what an interrupted creation left.
pub(crate) fn prepare(path: &Path) -> Result<(), StoreError> {
    let io = |doing| move |source| StoreError::Io { path: path.to_owned(), doing, source };
    fs::create_dir_all(path).map_err(io("create it"))?;
    match fs::remove_dir_all(database(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io("clear what an interrupted creation left")(error))
        }
        _ => Ok(()),
    }
}

/// Makes a prepared directory with its database a store.
pub(crate) fn declare(path: &Path, genesis: &Genesis) -> Result<(), StoreError> {
    let identity =
        Identity { format_version: FORMAT_VERSION, chain_id: genesis.chain_id(), genesis: genesis.encode() };
    let write = || {
        let draft = path.join(IDENTITY_DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(MAGIC)?;
        file.write_all(&codec::encode(&identity))?;
        file.sync_all()?;
        fs::rename(&draft, path.join(IDENTITY))?;
        // The new name is durable once the directory is.
        File::open(path)?.sync_all()
    };
    write().map_err(|source| StoreError::Io { path: path.to_owned(), doing: "write its file soma-store", source })
}
