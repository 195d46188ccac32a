//! How an actor ended.

use serde::{Deserialize, Serialize};
use std::{any::Any, fmt};
use tokio::task::JoinError;

/// How an actor, a task or a supervisor ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exit", content = "reason", rename_all = "kebab-case")]
pub enum ExitReason {
    /// It stopped, on its own or in order.
    Normal,
    /// It could not be started, or gave up with an error.
    Failed(String),
    /// A handler panicked.
    Panicked(String),
    /// It was ended from outside.
    Cancelled,
    /// It was ended from outside because it gave no sign of life; the reason says for how long, and where it hangs.
    Killed(String),
}

impl ExitReason {
    /// The message of a caught panic.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked(soma_replay::panic_message(panic))
    }
}

impl From<JoinError> for ExitReason {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::panicked(&*panic),
            Err(_) => Self::Cancelled,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("stopped"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Panicked(reason) => write!(f, "panicked: {reason}"),
            Self::Cancelled => f.write_str("was cancelled"),
            Self::Killed(reason) => write!(f, "was killed: {reason}"),
        }
    }
}
