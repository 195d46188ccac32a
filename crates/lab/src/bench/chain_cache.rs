//! The chain that was used last, for the next measurement that needs the same.

use super::{
    chain::{Chain, ChainKey},
    session::Session,
};
use soma_p2p_cli::{CliError, files};

/// Holds at most one chain: with its copies it takes gigabytes.
#[derive(Default)]
pub(crate) struct ChainCache {
    chain: Option<Chain>,
}

impl ChainCache {
    /// Takes the cached chain, or builds the chain if another one is cached.
    pub(crate) fn take(&mut self, session: &Session, key: ChainKey) -> Result<Chain, CliError> {
        let work = session.work();
        let dir = |key: ChainKey| work.join(format!("chain-{}-{}-{}", key.kind, key.blocks_per_commit, key.commits));
        match self.chain.take() {
            Some(chain) if chain.key == key => return Ok(chain),
            Some(other) => files::remove_dir(&dir(other.key))?,
            None => {}
        }
        let dir = dir(key);
        // A failed measurement does not put its chain back, and leaves its files.
        files::remove_dir(&dir)?;
        Chain::build(session, key, &dir)
    }

    /// Puts a chain back for the next measurement.
    pub(crate) fn put_back(&mut self, chain: Chain) {
        self.chain = Some(chain);
    }
}
