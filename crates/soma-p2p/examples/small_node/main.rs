//! A whole small node: `cargo run -p soma-p2p --example small_node`.
//!
//! The chain is a table of keys and values. Everything that a host brings is here, built on the facade alone:
//!
//! | file | part of the host |
//! |---|---|
//! | `consensus.rs` | makes blocks and commits; a committee of one, so there is nobody to agree with |
//! | `transactions.rs` | says which transactions are valid |
//! | `executor.rs` | applies commits in order |
//! | `store.rs` | keeps the chain in memory; passes the conformance suite of `soma_p2p::store` |
//!
//! Two nodes run in this process: a validator with the consensus, and a full node that finds and follows it.

mod consensus;
mod executor;
mod store;
mod transactions;

use anyhow::{Context, Result, anyhow};
use consensus::Consensus;
use executor::Executor;
use soma_p2p::{ActorSystem, Config, Genesis, ListenAddress, SeedPeer, SigningKey};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::TableStore;
use transactions::Assignments;

const COMMITS: u32 = 100;

/// A node on loopback with the host's store and its rule for transactions.
fn start(genesis: &Genesis, key: SigningKey, seed: Option<SeedPeer>) -> Result<ActorSystem> {
    // A port of the system's choice. Tell operators `Handle::address`, or set a port.
    let listen = ListenAddress(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut builder = ActorSystem::builder(genesis.clone(), key, Arc::new(TableStore::new(genesis)))
        .config(Config::listening_on(listen))
        .transaction_verifier(Arc::new(Assignments));
    if let Some(seed) = seed {
        builder = builder.seed_peer(seed);
    }
    Ok(builder.start()?)
}

fn main() -> Result<()> {
    // A real node reads its keys from files. The consensus key signs blocks, the network key signs connections.
    let (consensus_key, network_key) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let genesis = consensus::genesis(&consensus_key, &network_key)?;
    let mut consensus = Consensus::new(&genesis, consensus_key);

    let validator = start(&genesis, network_key, None)?;
    let seed = SeedPeer { peer_id: validator.peer_id(), address: validator.address().clone() };
    let full_node = start(&genesis, SigningKey::from_bytes(&[3; 32]), Some(seed))?;

    let mut commits = full_node.synced_commits(1);
    let executing = std::thread::spawn(move || {
        let mut executor = Executor::default();
        while executor.height() < COMMITS {
            let commit = commits.blocking_next().context("the system stopped")??;
            executor.execute(&commit)?;
        }
        anyhow::Ok(executor)
    });
    for number in 0..COMMITS {
        let commit = consensus.next_commit(vec![format!("key{}={number}", number % 10)]);
        futures::executor::block_on(validator.send_commit(commit))?;
    }
    let executor = executing.join().map_err(|_| anyhow!("the executor panicked"))??;
    println!("the full node executed {} commits: {:?}", executor.height(), executor.table());
    println!("{}", futures::executor::block_on(full_node.status()).explanation);
    for system in [full_node, validator] {
        futures::executor::block_on(system.shutdown(Duration::from_secs(5)));
    }
    Ok(())
}
