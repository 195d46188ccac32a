//! The ledger on disk. Each batch is one step from the state after a commit to the state after a later one, so that a
//! crash leaves the state after some commit.

use super::state::{Account, State};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Serialize, de::DeserializeOwned};
use soma_p2p::{CommitIndex, CommittedSubDag, PruningConfig, types::codec};
use soma_p2p_cli::{
    CliError,
    executor::{Executed, SaveRule},
};
use std::{collections::BTreeSet, path::Path, time::Instant};

/// Key of the last executed commit.
const EXECUTED: &str = "executed";

/// Key of the commit of the snapshot that the ledger began with.
const JOINED: &str = "joined";

/// Longest key or value.
const MAX_BYTES: usize = 64;

/// The balances of all accounts.
pub(crate) struct Ledger {
    database: Database,
    accounts: Keyspace,
    meta: Keyspace,
    state: State,
    joined: Option<CommitIndex>,
    /// Accounts with a balance that is not on disk yet.
    changed: BTreeSet<Account>,
    rule: SaveRule,
    saved_at: Instant,
}

impl Ledger {
    /// Opens the ledger in a directory, or begins one.
    pub(crate) fn open(directory: &Path, pruning: &PruningConfig) -> Result<Self, CliError> {
        let failed = |error: fjall::Error| CliError::failed(format!("ledger {}: {error}", directory.display()));
        let database = Database::builder(directory).worker_threads(1).open().map_err(failed)?;
        let accounts = database.keyspace("accounts", KeyspaceCreateOptions::default).map_err(failed)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?;
        let mut state = State::default();
        let mut joined = None;
        if let Some(executed) = meta.get(EXECUTED).map_err(failed)? {
            state.executed = decode(&executed)?;
        }
        if let Some(index) = meta.get(JOINED).map_err(failed)? {
            joined = Some(decode(&index)?);
        }
        for entry in accounts.iter() {
            let (account, balance) = entry.into_inner().map_err(failed)?;
            state.accounts.insert(decode(&account)?, decode(&balance)?);
        }
        let rule = SaveRule::of(pruning);
        Ok(Self { database, accounts, meta, state, joined, changed: BTreeSet::new(), rule, saved_at: Instant::now() })
    }

    /// How far it has got.
    pub(crate) fn executed(&self) -> Executed {
        self.state.executed
    }

    /// The commit of the snapshot that it began with.
    pub(crate) fn joined(&self) -> Option<CommitIndex> {
        self.joined
    }

    /// Names the state.
    pub(crate) fn digest(&self) -> String {
        self.state.digest().to_string()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Executes the next commit. It is durable later.
    pub(super) fn apply(&mut self, sub_dag: &CommittedSubDag) -> Result<(), CliError> {
        let changed = &mut self.changed;
        self.state.apply(sub_dag, |account| {
            changed.insert(account);
        });
        if self.rule.is_due(self.state.executed.index, self.saved_at) { self.save() } else { Ok(()) }
    }

    /// Begins with a state that other nodes have computed.
    pub(super) fn restore(&mut self, state: State) -> Result<(), CliError> {
        self.changed = state.accounts.keys().copied().collect();
        self.joined = Some(state.executed.index);
        self.state = state;
        self.save()
    }

    /// Makes the state durable.
    pub(super) fn save(&mut self) -> Result<(), CliError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for account in std::mem::take(&mut self.changed) {
            batch.insert(&self.accounts, encode(&account), encode(&self.state.accounts[&account]));
        }
        batch.insert(&self.meta, EXECUTED, encode(&self.state.executed));
        if let Some(index) = self.joined {
            batch.insert(&self.meta, JOINED, encode(&index));
        }
        self.saved_at = Instant::now();
        batch.commit().map_err(|error| CliError::failed(format!("the ledger cannot be saved: {error}")))
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    codec::encode(value)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CliError> {
    codec::decode(bytes, "ledger", MAX_BYTES).map_err(CliError::failed)
}
