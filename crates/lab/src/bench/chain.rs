//! Chains to be synced: built once, kept on disk, copied for each server.

use super::session::Session;
use crate::localnet::chain as history;
use soma_p2p::{FjallStore, Genesis, PeerList, Store};
use soma_p2p_cli::{CliError, files};
use soma_testkit::{BlockKind, ChainSpec, Payload};
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Authorities of every chain: a certificate holds three of their signatures.
const AUTHORITIES: u32 = 4;

/// Which chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainKey {
    /// The kind of its blocks.
    pub(crate) kind: BlockKind,
    /// Blocks of one commit, all but the first of an epoch: a multiple of 4.
    pub(crate) blocks_per_commit: u32,
    /// Commits.
    pub(crate) commits: u32,
}

/// A chain on disk.
pub(crate) struct Chain {
    pub(crate) key: ChainKey,
    /// What its transactions are.
    pub(crate) payload: Payload,
    pub(crate) genesis: Genesis,
    pub(crate) genesis_file: PathBuf,
    /// The store that it was built into. No node uses it.
    pub(crate) store: PathBuf,
    pub(crate) commits: u32,
    /// Blocks of all its commits.
    pub(crate) blocks: u64,
    /// Bytes of these blocks.
    pub(crate) bytes: u64,
    /// Copies of the store, for servers.
    copies: Vec<PathBuf>,
}

impl Chain {
    /// Builds a chain below `dir`.
    pub(crate) fn build(session: &Session, key: ChainKey, dir: &Path) -> Result<Self, CliError> {
        let like = ChainSpec {
            name: "bench".into(),
            stakes: vec![1; AUTHORITIES as usize],
            rounds_per_commit: (key.blocks_per_commit / AUTHORITIES).max(1),
            commits_per_epoch: session.args.commits_per_epoch,
            senders: session.args.senders,
            ..ChainSpec::default()
        };
        let spec = key.kind.spec(like).map_err(CliError::input)?;
        let payload = spec.payload;
        let mut builder = history::builder(spec)?;
        fs::create_dir_all(dir).map_err(CliError::failed)?;
        let genesis = builder.genesis().clone();
        let genesis_file = dir.join("genesis.bin");
        files::replace(&genesis_file, &genesis.encode()).map_err(CliError::failed)?;
        let store = dir.join("store");
        let (mut blocks, mut bytes) = (0, 0);
        let task = session.task(&format!("building {}/{}", key.kind, key.blocks_per_commit), key.commits.into());
        history::write_history(&mut builder, key.commits, std::slice::from_ref(&store), |batch| {
            session.check_interrupted()?;
            for block in batch.iter().flat_map(|commit| &commit.blocks) {
                blocks += 1;
                bytes += block.bytes().len() as u64;
            }
            task.set(batch.last().map_or(0, |last| last.commit.index.into()));
            Ok(())
        })?;
        task.end();
        let copies = Vec::new();
        Ok(Self { key, payload, genesis, genesis_file, store, commits: key.commits, blocks, bytes, copies })
    }

    /// A chain that was built before.
    pub(crate) fn existing(
        key: ChainKey,
        payload: Payload,
        genesis: Genesis,
        genesis_file: PathBuf,
        store: PathBuf,
        (blocks, bytes): (u64, u64),
    ) -> Self {
        Self { key, payload, genesis, genesis_file, store, commits: key.commits, blocks, bytes, copies: Vec::new() }
    }

    /// Signatures in all its blocks, but for the few that hand over to a next epoch.
    pub(crate) fn signatures(&self) -> u64 {
        self.blocks * self.key.kind.signatures() as u64
    }

    /// So many stores with the whole chain, of which no node's address book knows anybody. They are made once, and
    /// used again by every case, so that nothing has to be written just before a measurement.
    pub(crate) fn stores(&mut self, count: usize) -> Result<&[PathBuf], CliError> {
        while self.copies.len() < count {
            let copy = self.store.with_file_name(format!("copy-{}", self.copies.len()));
            copy_dir(&self.store, &copy).map_err(|error| {
                CliError::failed(format!("{} cannot be made: {error}{}", copy.display(), advice(&error)))
            })?;
            self.copies.push(copy);
        }
        for copy in &self.copies[..count] {
            let store = FjallStore::open_existing(copy).map_err(CliError::failed)?;
            let known = store.peers(PeerList::Infos).map_err(CliError::failed)?;
            let known: Vec<_> = known.into_iter().map(|(peer, _)| peer).collect();
            store.update_peers(PeerList::Infos, &[], &known).map_err(CliError::failed)?;
        }
        Ok(&self.copies[..count])
    }
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    if is_full { "; a benchmark needs up to 4 GB: free space, or give --out on another disk" } else { "" }
}

/// Copies a directory; everything is on the disk when it returns.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
