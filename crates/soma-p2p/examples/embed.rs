//! A node that embeds the subsystem: `cargo run -p soma-p2p --example embed`.
//!
//! Two systems in one process: a validator, whose consensus makes commits, and a full node, which knows the
//! validator and executes the synced commits. Real TLS on loopback; the full node's store is on disk.

use anyhow::{Result, anyhow};
use soma_p2p::{ActorSystem, Config, FjallStore, MemStore, SeedPeer, SigningKey};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{net::SocketAddr, sync::Arc, time::Duration};

fn main() -> Result<()> {
    // Stands for a consensus: it makes certified commits of a chain with this genesis.
    let mut consensus = ChainBuilder::new(ChainSpec::default())?;
    let genesis = consensus.genesis().clone();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();

    let store = Arc::new(MemStore::new(&genesis));
    let validator = ActorSystem::builder(genesis.clone(), consensus.network_key(0), store)
        .config(Config::listening_on(listen))
        .start()?;

    let data = tempfile::tempdir()?;
    let seed = SeedPeer { peer_id: validator.peer_id(), address: validator.address().clone() };
    let mut config = Config::listening_on(listen);
    config.seed_peers = vec![seed];
    let key = SigningKey::from_bytes(&[7; 32]); // a real node reads its own from a file
    let store = Arc::new(FjallStore::open(&data.path().join("store"), &genesis)?);
    let full_node = ActorSystem::builder(genesis, key, store).config(config).start()?;

    // The executor: every commit from the first, in order, each once, however slow it is.
    let mut commits = full_node.synced_commits(1);
    let executor = std::thread::spawn(move || {
        while let Some(Ok(commit)) = commits.blocking_next() {
            println!("execute commit {} with {} blocks", commit.commit_ref.index, commit.blocks.len());
            if commit.commit_ref.index == 100 {
                break;
            }
        }
    });
    // No async runtime is needed; any would do.
    for _ in 0..100 {
        futures::executor::block_on(validator.send_commit(consensus.next_commit()))?;
    }
    executor.join().map_err(|_| anyhow!("the executor panicked"))?;
    println!("full node: {}", futures::executor::block_on(full_node.status()).explanation);
    for system in [full_node, validator] {
        let report = futures::executor::block_on(system.shutdown(Duration::from_secs(5)));
        assert!(report.overdue.is_empty(), "{report:?}");
    }
    Ok(())
}
