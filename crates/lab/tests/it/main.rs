//! The command `soma-lab` as its users meet it: the real binary, real files, real sockets and signals.
//!
//! Every test has a directory of its own and lets the system choose its ports.

mod bench;
mod book;
mod chaos;
mod history;
mod localnet;
mod replay;

use soma_testkit::command::{DEADLINE, Home, Running, config};

/// The command.
const PROGRAM: &str = env!("CARGO_BIN_EXE_soma-lab");
