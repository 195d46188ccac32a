//! The origin of a message.

use crate::flow::Flow;

/// The record that caused a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Number of the record.
    pub record: u64,
    /// Number of the first record of its causal chain.
    pub span: u64,
}

/// The sender of a message, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of an actor, or of a part of the node.
    pub sender: &'static str,
    /// The record that the sender was handling, if it was recorded.
    pub cause: Option<Cause>,
    /// The work that the message belongs to. Not recorded.
    pub flow: Flow,
}

impl Origin {
    /// The origin of a message that starts a causal chain.
    pub fn root(sender: &'static str) -> Self {
        Self { sender, cause: None, flow: Flow::default() }
    }
}
