//! Arguments of `soma-lab chaos`.

use clap::builder::RangedU64ValueParser;
use soma_testkit::ChainSpec;
use std::path::PathBuf;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// How often a node is killed.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) kills: u32,
    /// Seed of the chain, of the moments and of the victims. Nodes are processes: equal seeds do not make equal runs.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Commits that the validators have at the start.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) commits: u32,
    /// Commits per second that are made meanwhile.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rate: u32,
    /// Validators. At least one is always up.
    #[arg(long, default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(2..=50))]
    pub(super) validators: usize,
    /// Full nodes with nothing at first; one is there from the start, the others join on the way.
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    pub(super) full_nodes: usize,
    /// Commits in one epoch.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(5..))]
    pub(super) commits_per_epoch: u32,
    /// Certified transactions in one block.
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    pub(super) transactions: usize,
    /// Bytes of one transaction's payload.
    #[arg(long, default_value_t = 128, value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536))]
    pub(super) payload: usize,
    /// Commits that each node keeps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..))]
    pub(super) prune: Option<u32>,
    /// All nodes write one archive, in the directory of the network, and read it when no peer has the past.
    #[arg(long)]
    pub(super) archive: bool,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 1_800, value_name = "S")]
    pub(super) timeout: u64,
    /// Directory for configurations, stores, records and logs; what an earlier network left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "localnet-data")]
    pub(super) dir: PathBuf,
    /// Tell every kill also when there is no terminal.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Run nothing: count again from the records that an earlier run has left in the directory.
    #[arg(long)]
    pub(super) recount: bool,
}

impl Args {
    pub(super) fn chain_spec(&self) -> ChainSpec {
        ChainSpec {
            seed: self.seed,
            name: "chaos".into(),
            stakes: vec![1; self.validators],
            transactions_per_block: self.transactions,
            payload_bytes: self.payload,
            commits_per_epoch: self.commits_per_epoch,
            ..ChainSpec::default()
        }
    }
}
