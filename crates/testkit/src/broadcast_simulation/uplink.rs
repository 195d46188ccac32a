//! What a node has to upload: one wire, on which an urgent topic goes first.

use super::{
    event::{End, StreamId},
    frame::Frame,
};
use std::collections::VecDeque;

/// Frames that a node has to upload, by topic.
#[derive(Default)]
pub(super) struct Uplink {
    pub(super) queues: [VecDeque<Upload>; 3],
    /// The topic of the part that is on the wire, and its bytes.
    pub(super) busy: Option<(usize, u64)>,
}

/// A frame that a node uploads, and the bytes of it that are left.
pub(super) struct Upload {
    pub(super) stream: StreamId,
    pub(super) end: End,
    pub(super) frame: Frame,
    pub(super) left: u64,
}
