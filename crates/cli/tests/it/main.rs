//! The command `soma-p2p` as its users meet it: the real binary, real files, real sockets and signals.
//!
//! Every test has a directory of its own and lets the system choose its ports.

mod archive;
mod bad_input;
mod checkpoint;
mod discovery;
#[cfg(target_os = "linux")]
mod disk;
mod inspect;
mod keys_and_genesis;
mod node;
mod peers;
mod ping;
mod store;

use soma_testkit::command::{DEADLINE, Finished, Home, Running, config};

/// The command.
const PROGRAM: &str = env!("CARGO_BIN_EXE_soma-p2p");
