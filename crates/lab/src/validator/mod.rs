//! `soma-lab validator`: a node with the [demonstration consensus](crate::consensus) in its process. For localnet.
//!
//! ```text
//!   Handle::messages ---+                          +--> BlockLog (fsync)
//!   observe_commits ----+--> driver --- Machine ---+--> publisher --> Handle::publish
//!   standard input -----+                          +--> committer --> Handle::send_commit
//! ```
//!
//! A line on standard input ends the consensus, and its end the node.

mod driver;
mod progress;
mod rules;
mod start;

use crate::ledger::{Execution, Executor};
use clap::builder::RangedU64ValueParser;
use soma_p2p_cli::{
    CliError, files,
    node::{self, Companion, Running},
};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{path::PathBuf, process::ExitCode, sync::Arc};

pub(crate) use progress::Progress;

/// Arguments of `soma-lab validator`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Configuration file of the node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Key that signs blocks and messages.
    #[arg(long, value_name = "FILE")]
    protocol_key: PathBuf,
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    execution: Execution,
}

/// What the validators of a network do.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Work {
    /// Blocks per second of each validator, and commits per second at most; 0: none.
    #[arg(long)]
    pub(crate) rate: u32,
    /// Commits in one epoch, at least.
    #[arg(long)]
    pub(crate) commits_per_epoch: u32,
    /// Certified transactions in one block.
    #[arg(long)]
    pub(crate) transactions: usize,
    /// Bytes of the payload of one transaction.
    #[arg(long)]
    pub(crate) payload: usize,
    /// Validators.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    pub(crate) validators: usize,
    /// Seed of the chain: users certify their transactions with keys made from it.
    #[arg(long)]
    pub(crate) seed: u64,
}

impl Work {
    /// The arguments that say the same.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let Self { rate, commits_per_epoch, transactions, payload, validators, seed } = self;
        let args = [
            ("--rate", rate.to_string()),
            ("--commits-per-epoch", commits_per_epoch.to_string()),
            ("--transactions", transactions.to_string()),
            ("--payload", payload.to_string()),
            ("--validators", validators.to_string()),
            ("--seed", seed.to_string()),
        ];
        args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The chain.
    pub(crate) fn chain_spec(&self) -> ChainSpec {
        ChainSpec {
            seed: self.seed,
            name: "localnet".into(),
            stakes: vec![1; self.validators],
            transactions_per_block: self.transactions,
            payload_bytes: self.payload,
            commits_per_epoch: self.commits_per_epoch,
            committee_is_fixed: true,
            ..ChainSpec::default()
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let key = files::read_key(&args.protocol_key)?;
    node::run_in_process(&node::Args::with_config(args.config.clone()), |parts, builder| {
        let rules = Arc::new(rules::Rules::new(parts.genesis));
        let executor = Executor::open(parts, args.execution)?;
        let builder = executor.serve_snapshots(builder.protocol_key(key.clone()).message_validator(rules));
        let chain = ChainBuilder::new(args.work.chain_spec()).map_err(CliError::input)?;
        if chain.chain_id() != parts.genesis.chain_id() {
            return Err(CliError::input("the genesis is of another chain than the arguments"));
        }
        let own = start::authority(parts.genesis, &key)?;
        let validator = driver::Validator {
            own,
            key,
            work: args.work.clone(),
            users: chain.users(own.into()),
            store: parts.store.clone(),
            data_dir: parts.config.data_dir.clone(),
        };
        let run = Box::new(|handle| Box::pin(validator.run(handle)) as Running);
        Ok(Companion { builder, executor: Some(executor.into_task()), run })
    })
}
