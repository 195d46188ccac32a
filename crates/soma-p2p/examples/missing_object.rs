//! An executor that meets an object that its node lacks, and fetches it with one call:
//! `cargo run -p soma-p2p --example missing_object`.
//!
//! A validator makes commits and has the objects that they refer to. A full node executes the commits. It has none of the
//! objects, and gets each from the validator by its digest.

use anyhow::{Result, anyhow};
use soma_p2p::{
    ActorSystem, CommitIndex, Config, Handle, MemStore, MemoryObjects, ObjectId, ObjectKind, SeedPeer, SigningKey,
};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Commits in this example.
const COMMITS: CommitIndex = 20;

/// Stands for an object that transactions of a commit refer to.
fn object_of(index: CommitIndex) -> Vec<u8> {
    format!("the object of commit {index}").into_bytes()
}

/// Executes commits, as a thread of its own.
fn execute(node: &Handle) -> Result<()> {
    let mut commits = node.synced_commits(1);
    while let Some(commit) = commits.blocking_next() {
        let index = commit?.commit_ref.index;
        // A real executor reads the id in a transaction.
        let id = ObjectId::of(&[&object_of(index)]);
        let mut fetched = node.fetch(ObjectKind::OBJECT, [id], Duration::from_secs(10));
        let (_, object) = fetched.blocking_next().ok_or_else(|| anyhow!("each id has an answer"))?;
        // The bytes need no check: they are what the id says.
        println!("execute commit {index} with {:?}", String::from_utf8_lossy(&object?));
        if index == COMMITS {
            break;
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut consensus = ChainBuilder::new(ChainSpec::default())?;
    let genesis = consensus.genesis().clone();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();

    let objects = MemoryObjects::default();
    for index in 1..=COMMITS {
        objects.put(ObjectKind::OBJECT, object_of(index));
    }
    let store = Arc::new(MemStore::new(&genesis));
    let validator = ActorSystem::builder(genesis.clone(), consensus.network_key(0), store)
        .config(Config::listening_on(listen))
        .object_source(Arc::new(objects))
        .start()?;

    let mut config = Config::listening_on(listen);
    config.seed_peers = vec![SeedPeer { peer_id: validator.peer_id(), address: validator.address().clone() }];
    let store = Arc::new(MemStore::new(&genesis));
    let full_node = ActorSystem::builder(genesis, SigningKey::from_bytes(&[7; 32]), store).config(config).start()?;

    let node = full_node.handle();
    let executor = std::thread::spawn(move || execute(&node));
    for _ in 0..COMMITS {
        futures::executor::block_on(validator.send_commit(consensus.next_commit()))?;
    }
    executor.join().map_err(|_| anyhow!("the executor panicked"))??;
    for system in [full_node, validator] {
        let report = futures::executor::block_on(system.shutdown(Duration::from_secs(5)));
        assert!(report.overdue.is_empty(), "{report:?}");
    }
    Ok(())
}
