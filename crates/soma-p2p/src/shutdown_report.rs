//! How a system stopped.

use soma_runtime::Escalation;

/// Why a system stopped by itself: an actor did not stay up.
pub type Fatal = Escalation;

/// How a system stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Actors that did not stop in time and were ended, and what failed on the way; empty when all went well.
    pub overdue: Vec<String>,
    /// What is left of the system although it has stopped: actors, tasks, threads, each of these with what it is at.
    /// Nothing, unless a thread is blocked, or is at a transaction in the node's own transaction verifier.
    pub leaked: Vec<String>,
    /// Why it had stopped by itself before, if it had.
    pub fatal: Option<Fatal>,
}
