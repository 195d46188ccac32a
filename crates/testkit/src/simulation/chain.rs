//! The chain that a simulated network is on, built once for all runs that need it.

use crate::{BlockKind, ChainBuilder, ChainSpec, simulation::scenario::Scenario};
use soma_types::{CertifiedCommit, CommitIndex, CommittedSubDag, Genesis};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A chain from its genesis on.
pub(super) struct Chain {
    pub(super) genesis: Genesis,
    pub(super) commits: Vec<Arc<Link>>,
}

/// One commit, as it is stored and as it is executed.
pub(super) struct Link {
    pub(super) certified: CertifiedCommit,
    pub(super) sub_dag: CommittedSubDag,
}

impl Chain {
    /// The commit of this index.
    pub(super) fn commit(&self, index: CommitIndex) -> Option<&Link> {
        self.commits.get((index as usize).checked_sub(1)?).map(|link| &**link)
    }

    /// The first `count` commits.
    pub(super) fn first(&self, count: u32) -> Vec<CertifiedCommit> {
        self.commits.iter().take(count as usize).map(|link| link.certified.clone()).collect()
    }
}

/// What makes chains differ, beside their length: members of the committee, commits in an epoch, transactions in a
/// block, blocks.
type Kind = (u32, u32, usize, Option<BlockKind>);

/// Chains built so far, each as long as was needed. Signing one takes longer than many a simulation; what is built is
/// a pure function of the kind, so sharing it between runs cannot make them differ.
static BUILT: Mutex<BTreeMap<Kind, Built>> = Mutex::new(BTreeMap::new());

struct Built {
    builder: ChainBuilder,
    commits: Vec<Arc<Link>>,
}

/// The chain of a scenario.
pub(super) fn of(scenario: &Scenario) -> Chain {
    let kind = (
        scenario.committee.unwrap_or(scenario.validators).max(1),
        scenario.commits_per_epoch.max(2),
        scenario.transactions_per_block,
        scenario.blocks,
    );
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let Built { builder, commits } = built.entry(kind).or_insert_with(|| {
        let (validators, commits_per_epoch, transactions_per_block, blocks) = kind;
        let stakes = vec![1; validators as usize];
        let spec = ChainSpec { stakes, commits_per_epoch, transactions_per_block, ..ChainSpec::default() };
        let spec = match blocks {
            Some(kind) => kind.spec(spec),
            None => Ok(spec),
        };
        // At least one authority, of equal stakes, in epochs of at least two commits: never refused.
        let builder = spec.and_then(ChainBuilder::new).expect("a valid spec");
        Built { builder, commits: Vec::new() }
    });
    while commits.len() < scenario.commits as usize {
        let certified = builder.next_commit();
        let sub_dag = certified.sub_dag();
        commits.push(Arc::new(Link { certified, sub_dag }));
    }
    Chain { genesis: builder.genesis().clone(), commits: commits[..scenario.commits as usize].to_vec() }
}

/// How long a chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainSize {
    /// Blocks of all commits.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
}

impl Scenario {
    /// How long its chain is at the end.
    pub fn chain_size(&self) -> ChainSize {
        let chain = of(self);
        let blocks = || chain.commits.iter().flat_map(|link| &link.certified.blocks);
        let bytes = blocks().map(|block| block.bytes().len() as u64).sum();
        ChainSize { blocks: blocks().count() as u64, bytes }
    }
}
