//! The command `soma-p2p` as its users meet it: the real binary, real files, real sockets and signals.
//!
//! Every test has a directory of its own and lets the system choose its ports.

mod archive;
mod bad_input;
mod checkpoint;
mod config;
mod control;
mod discovery;
#[cfg(target_os = "linux")]
mod disk;
mod grpc_health;
mod inspect;
mod keys_and_genesis;
mod monitoring;
mod node;
mod package;
mod page;
mod peers;
mod ping;
mod service;
mod store;

use soma_p2p::{FjallStore, Store};
use soma_testkit::{
    ChainBuilder, ChainSpec,
    command::{DEADLINE, Finished, Home, Running, config},
};
use std::fs;

/// The command.
const PROGRAM: &str = env!("CARGO_BIN_EXE_soma-p2p");

/// A home with a store of a chain of `commits`, and its genesis.
fn stored(commits: usize, commits_per_epoch: u32) -> Home {
    let home = Home::empty(PROGRAM);
    let spec = ChainSpec { commits_per_epoch, ..ChainSpec::default() };
    let mut chain = ChainBuilder::new(spec).unwrap();
    fs::write(home.path("genesis.bin"), chain.genesis().encode()).unwrap();
    let store = FjallStore::open(&home.path("store"), chain.genesis()).unwrap();
    // In batches, as a sync writes it.
    for first in (0..commits).step_by(50) {
        store.apply(&chain.build(50.min(commits - first))).unwrap();
    }
    home
}
