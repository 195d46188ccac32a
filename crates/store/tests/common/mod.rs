//! Both stores under test, and a macro that runs a test with each.

#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)] // Each test binary uses its part.

pub use soma_store::conformance::{Chain, Opened, committee, genesis};
use soma_store::{FjallStore, MemStore};
use soma_types::Genesis;
use std::path::PathBuf;
use tempfile::TempDir;

/// An absent path in a fresh directory, which is removed with the guard.
pub fn fresh() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

/// Makes an empty store of a chain.
pub type Factory = fn(&Genesis) -> Opened;

pub fn in_memory(genesis: &Genesis) -> Opened {
    Opened::new(MemStore::new(genesis))
}

pub fn on_disk(genesis: &Genesis) -> Opened {
    let (directory, path) = fresh();
    Opened::new(FjallStore::open(&path, genesis).unwrap()).with_guard(directory)
}

/// One test for each name and each implementation.
#[macro_export]
macro_rules! for_both_stores {
    ($($promise:ident),* $(,)?) => {
        mod in_memory {
            $(#[test] fn $promise() { super::$promise($crate::common::in_memory) })*
        }
        mod on_disk {
            $(#[test] fn $promise() { super::$promise($crate::common::on_disk) })*
        }
    };
}
