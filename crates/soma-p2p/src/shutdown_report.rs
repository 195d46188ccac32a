//! How a system stopped.

use soma_runtime::Escalation as Fatal;

/// How a system stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Actors that did not stop in time and were ended, and what failed on the way; empty when all went well.
    pub overdue: Vec<String>,
    /// Leftovers of the system after its stop: actors, tasks, and threads with their present work.
    /// Nothing, unless a thread is blocked, or is at a transaction in the node's own transaction verifier.
    pub leaked: Vec<String>,
    /// Why it had given up before, if it had.
    pub fatal: Option<Fatal>,
}
