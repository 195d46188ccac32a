//! A short chain from which seeds are made.

use crate::{ChainBuilder, ChainSpec, SpecError};
use soma_types::{CertifiedCommit, ChainId, Committee, Genesis, SigningKey, VerifiedBlock};
use soma_verify::EpochContext;
use std::sync::LazyLock;

/// Commits in it: an epoch ends in it and another begins.
const COMMITS: usize = 8;

/// A short chain of a committee of four, with an end of an epoch.
pub struct Chain {
    /// Its genesis.
    pub genesis: Genesis,
    /// Its commits, from the first on.
    pub commits: Vec<CertifiedCommit>,
    /// Committee of the second epoch.
    pub next_committee: Committee,
    /// The network key of the first authority.
    pub network_key: SigningKey,
}

impl Chain {
    /// Builds it. Equal each time.
    pub fn build() -> Result<Self, SpecError> {
        let spec = ChainSpec { payload_bytes: 24, commits_per_epoch: 5, senders: 2, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec)?;
        Ok(Self {
            genesis: builder.genesis().clone(),
            commits: builder.build(COMMITS),
            next_committee: builder.committee(1),
            network_key: builder.network_key(0),
        })
    }

    /// The chain's id.
    pub fn chain_id(&self) -> ChainId {
        self.genesis.chain_id()
    }

    /// All committed blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &VerifiedBlock> {
        self.commits.iter().flat_map(|certified| &certified.blocks)
    }
}

/// What decoded values are verified against: the chain that the seeds are of.
pub(crate) fn context() -> &'static EpochContext {
    static CONTEXT: LazyLock<EpochContext> = LazyLock::new(|| {
        // The spec is a constant and its committee valid.
        let chain = Chain::build().expect("the spec makes a chain");
        EpochContext::new(chain.chain_id(), chain.genesis.committee().clone()).expect("the committee is valid")
    });
    &CONTEXT
}

/// The genesis of the chain that the seeds are of.
pub(crate) fn genesis() -> &'static Genesis {
    static GENESIS: LazyLock<Genesis> = LazyLock::new(|| Chain::build().expect("the spec makes a chain").genesis);
    &GENESIS
}
