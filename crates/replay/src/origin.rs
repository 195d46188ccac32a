//! Where a message comes from.

/// The record that a message follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its number.
    pub record: u64,
    /// The first record of the chain that it belongs to.
    pub span: u64,
}

/// Who sent a message, and because of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// An actor, or a part of the node.
    pub sender: &'static str,
    /// What the sender was handling, if that was recorded.
    pub cause: Option<Cause>,
}

impl Origin {
    /// The beginning of a story.
    pub fn root(sender: &'static str) -> Self {
        Self { sender, cause: None }
    }
}
