//! The streams between nodes.

use super::{event::End, frame::Frame};
use soma_protocol::broadcast::StreamKey;
use soma_types::Topic;
use std::collections::VecDeque;

/// Bytes that may be on their way to an end that has not read them: the window of HTTP/2.
pub(super) const WINDOW: u64 = 256 << 10;

/// Frames of a stream that a shell reads before the core has taken them.
pub(super) const MAX_UNTAKEN: usize = 4;

/// Bytes after which a shell tells the core that they are written. It tells of fewer at the next heartbeat.
pub(super) const REPORT_AFTER: u64 = 16 << 10;

/// A stream.
pub(super) struct Stream {
    pub(super) link: usize,
    pub(super) topic: Topic,
    /// Its connection is lost: nothing in flight arrives.
    pub(super) is_dead: bool,
    /// Its ends. The first one opened it.
    pub(super) ends: [StreamEnd; 2],
}

/// One end of a stream.
pub(super) struct StreamEnd {
    pub(super) node: usize,
    /// The number that the node's core knows it by. None: the core has not heard of it yet.
    pub(super) key: Option<StreamKey>,
    /// Whether the core was told that it is open.
    pub(super) is_open: bool,
    /// Whether it has ended for this end.
    pub(super) is_over: bool,
    /// Bytes that the end may still send.
    pub(super) credit: i64,
    /// Frames that wait for credit.
    pub(super) stalled: VecDeque<Frame>,
    /// Frames that have arrived and are not read.
    pub(super) unread: VecDeque<Frame>,
    /// Frames that are read and not taken.
    pub(super) untaken: usize,
    /// Bytes read since the other end was last given credit.
    pub(super) consumed: u64,
    /// Bytes that the core has put into the queue and that are not written.
    pub(super) queued: u64,
    /// Bytes that are written, of which the core has not heard.
    pub(super) unreported: u64,
}

impl StreamEnd {
    pub(super) fn new(node: usize, key: Option<StreamKey>) -> Self {
        Self {
            node,
            key,
            is_open: false,
            is_over: false,
            credit: WINDOW as i64,
            stalled: VecDeque::new(),
            unread: VecDeque::new(),
            untaken: 0,
            consumed: 0,
            queued: 0,
            unreported: 0,
        }
    }

    /// Ends it, and drops what is left.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.stalled = VecDeque::new();
        self.unread = VecDeque::new();
    }
}

impl Stream {
    /// Whether an end may send.
    pub(super) fn can_send(&self, end: End) -> bool {
        !self.is_dead && !self.ends[usize::from(end)].is_over
    }

    pub(super) fn other(end: End) -> End {
        1 - end
    }
}
