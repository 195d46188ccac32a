//! Verifier: puts checks on a CPU pool, with permits, and answers whoever asked.
//!
//! ```text
//!   VerifyCommits, VerifySubDags, ... --> core (permits, order) --> pool: soma-verify --> Reply
//!   VerifyBlocks ------------------> core ---> pool: all but signatures --> core (joins) --> pool: signatures --> Reply
//! ```
//!
//! A check that panics fails that check: its asker sees no answer, the pool and the actor live on.

#![deny(missing_docs)]

mod actor;
mod metrics;
mod pool;

pub use actor::{Verification, Verifier};
pub use pool::{PoolError, PoolSize};
