//! The answer of `/status`.

use crate::executor::ExecutedText;
use serde::{Deserialize, Serialize};
use soma_p2p::Status;

/// Answer of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The networking subsystem.
    #[serde(flatten)]
    pub p2p: Status,
    /// The executor.
    pub executor: ExecutedText,
}
