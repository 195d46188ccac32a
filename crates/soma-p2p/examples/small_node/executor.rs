//! The executor: a table of keys and values.

use crate::transactions::parse;
use anyhow::{Context, Result, ensure};
use soma_p2p::{CommitIndex, CommittedSubDag};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Executor {
    height: CommitIndex,
    table: BTreeMap<String, String>,
}

impl Executor {
    /// Applies the next commit. A real executor stores table and height together, and reads from `height + 1` after a
    /// restart.
    pub(crate) fn execute(&mut self, commit: &CommittedSubDag) -> Result<()> {
        ensure!(commit.commit_ref.index == self.height + 1, "commit {} is not the next", commit.commit_ref.index);
        for transaction in commit.blocks.iter().flat_map(|block| &block.transactions) {
            let (key, value) = parse(&transaction.0).context("a transaction that the verifier refuses")?;
            self.table.insert(key.to_string(), value.to_string());
        }
        self.height += 1;
        Ok(())
    }

    pub(crate) fn height(&self) -> CommitIndex {
        self.height
    }

    pub(crate) fn table(&self) -> &BTreeMap<String, String> {
        &self.table
    }
}
