//! The chain of this measurement: built once, written straight into a store, and kept below `--out`.

use super::super::{
    chain::{Chain, ChainKey},
    session::Session,
};
use crate::localnet::chain as history;
use serde::{Deserialize, Serialize};
use soma_p2p::{CertifiedCommit, FjallStore, PeerList, Store};
use soma_p2p_cli::{CliError, files};
use soma_testkit::{BlockKind, ChainSpec};
use std::{
    fs,
    path::Path,
    sync::mpsc::{self, SyncSender},
    thread,
    time::{Duration, Instant},
};

/// Its blocks are small, so that what a commit costs shows.
const KIND: BlockKind = BlockKind::S;

/// Authorities of the chain. Each makes a block for every commit.
const AUTHORITIES: u32 = 4;

/// Epochs of a chain. None ends with its last commit, so that a node that skips epochs still has commits to fetch.
const EPOCHS: u32 = 143;

/// Commits of the shortest epoch.
const MIN_EPOCH_COMMITS: u32 = 5;

/// Commits written in one batch, about 5 MB: they go to block files, as in a sync.
const BATCH: usize = 2_000;

/// Batches that wait for the writer. They bound the memory of the build.
const BATCHES_AHEAD: usize = 1;

/// How often the build says where it is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The version of the builder. Chains of another version are built again.
const VERSION: u32 = 1;

/// The file that is written last, when the chain is complete.
const DONE: &str = "chain.json";

/// A chain that stays for further runs.
pub(super) type KeptChain = Chain;

/// The content of [`DONE`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    version: u32,
    blocks: u64,
    bytes: u64,
}

/// Opens the kept chain of this length, or builds it.
pub(super) fn open(session: &Session, commits: u32) -> Result<KeptChain, CliError> {
    let dir = session.args.out.join(format!("history-{commits}"));
    let commits_per_epoch = (commits / EPOCHS + 1).max(MIN_EPOCH_COMMITS);
    let like = ChainSpec {
        name: "history".into(),
        stakes: vec![1; AUTHORITIES as usize],
        commits_per_epoch,
        ..ChainSpec::default()
    };
    let spec = KIND.spec(like).map_err(CliError::input)?;
    let key = ChainKey { kind: KIND, blocks_per_commit: AUTHORITIES, commits };
    let done = fs::read(dir.join(DONE)).ok().and_then(|text| serde_json::from_slice::<Done>(&text).ok());
    let done = match done.filter(|done| done.version == VERSION) {
        Some(done) => done,
        None => build(session, &dir, spec.clone(), commits)?,
    };
    forget_peers(&dir.join("store"))?;
    let genesis_file = dir.join("genesis.bin");
    let genesis = files::read_genesis(&genesis_file)?;
    let Done { blocks, bytes, .. } = done;
    Ok(Chain::existing(key, spec.payload, genesis, genesis_file, dir.join("store"), (blocks, bytes)))
}

fn build(session: &Session, dir: &Path, spec: ChainSpec, commits: u32) -> Result<Done, CliError> {
    files::remove_dir(dir)?;
    fs::create_dir_all(dir).map_err(CliError::failed)?;
    let mut builder = history::builder(spec)?;
    let genesis = builder.genesis().clone();
    files::replace(&dir.join("genesis.bin"), &genesis.encode()).map_err(CliError::failed)?;
    let store = FjallStore::open(&dir.join("store"), &genesis).map_err(CliError::failed)?;
    session.say(&format!("building {commits} commits; they are kept in {}", dir.display()));
    let task = session.task("building the history", commits.into());
    let (sender, batches) = mpsc::sync_channel(BATCHES_AHEAD);
    let mut done = Done { version: VERSION, blocks: 0, bytes: 0 };
    thread::scope(|scope| {
        // The next batch is signed while this one is written. The thread ends when the receiver is dropped.
        scope.spawn(move || send_batches(&sender, commits, || builder.next_commit()));
        let mut said = Instant::now();
        for batch in batches {
            session.check_interrupted()?;
            store.apply(&batch).map_err(CliError::failed)?;
            for block in batch.iter().flat_map(|commit| &commit.blocks) {
                done.blocks += 1;
                done.bytes += block.bytes().len() as u64;
            }
            let last = batch.last().map_or(0, |last| last.commit.index);
            task.set(last.into());
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                session.say(&format!("building: {last} of {commits} commits"));
            }
        }
        Ok::<_, CliError>(())
    })?;
    task.end();
    drop(store);
    let text = serde_json::to_vec(&done).map_err(CliError::failed)?;
    files::replace(&dir.join(DONE), &text).map_err(CliError::failed)?;
    Ok(done)
}

fn send_batches(sender: &SyncSender<Vec<CertifiedCommit>>, commits: u32, mut next: impl FnMut() -> CertifiedCommit) {
    let mut left = commits as usize;
    while left > 0 {
        let count = BATCH.min(left);
        left -= count;
        if sender.send((0..count).map(|_| next()).collect()).is_err() {
            return;
        }
    }
}

/// Nodes of earlier runs are gone: the server would dial them.
fn forget_peers(store: &Path) -> Result<(), CliError> {
    let store = FjallStore::open_existing(store).map_err(CliError::failed)?;
    let known = store.peers(PeerList::Infos).map_err(CliError::failed)?;
    let known: Vec<_> = known.into_iter().map(|(peer, _)| peer).collect();
    store.update_peers(PeerList::Infos, &[], &known).map_err(CliError::failed)
}
