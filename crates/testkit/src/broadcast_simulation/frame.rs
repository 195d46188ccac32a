//! What travels over a stream.

use soma_protocol::broadcast::{Control, frame_bytes};

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its messages, by their numbers.
    pub(super) messages: Vec<u32>,
    /// The rest of it.
    pub(super) control: Control,
    /// Its size on the wire.
    pub(super) bytes: u64,
    /// What the sender's core counts for it. Differs if a hostile node has changed or made it.
    pub(super) counted: u64,
}

impl Frame {
    pub(super) fn new(messages: Vec<u32>, control: Control, payloads: u64) -> Self {
        let bytes = frame_bytes(payloads, messages.len(), &control);
        Self { messages, control, bytes, counted: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.control.is_empty()
    }
}
