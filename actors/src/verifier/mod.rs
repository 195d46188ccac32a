//! Verifier: puts checks on a CPU pool, with permits, and answers the askers.
//!
//! ```text
//!   VerifyCommits, VerifySubDags, ... --> core (permits, order) --> pool: soma-verify --> Reply
//!   VerifyBlocks ------------------> core ---> pool: all but signatures --> core (joins) --> pool: signatures -->
//!   Reply
//! ```
//!
//! A check that panics fails that check: its asker sees no answer, the pool and the actor live on.

mod epoch_checks;
mod message_checks;
pub mod messages;
mod metrics;
mod pool;
mod shell;
pub mod wiring;

pub use pool::{PoolError, PoolSize};
pub use shell::{Verification, Verifier};
