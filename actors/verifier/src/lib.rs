//! Verifier: puts checks on a CPU pool, with permits, and answers whoever asked.
//!
//! ```text
//!   VerifyCommits, VerifyBlocks, ... --> core (permits, order) --> pool: soma-verify --> Reply
//! ```
//!
//! A check that panics fails that check: its asker sees no answer, the pool and the actor live on.

#![deny(missing_docs)]

mod actor;
mod metrics;
mod pool;

pub use actor::Verifier;
pub use pool::{PoolError, PoolSize};
