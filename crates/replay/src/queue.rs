//! The bounded queue between the recorder and the thread that writes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
    mpsc::SyncSender,
};

/// Maximum number of batches in the writer's queue.
pub(crate) const QUEUE_BATCHES: usize = 4_096;

/// Maximum number of bytes in the writer's queue.
const QUEUE_BYTES: usize = 8 << 20;

pub(crate) enum Message {
    Records(Vec<u8>),
    Finish,
}

/// The bounded queue to the writer.
pub(crate) struct Queue {
    pub(crate) sender: SyncSender<Message>,
    pub(crate) shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) file: AtomicU64,
}

impl Queue {
    /// Number of the file that the writer writes now.
    pub(crate) fn file(&self) -> u64 {
        self.shared.file.load(Ordering::Acquire)
    }

    /// Queues records and returns true, or returns false if the queue is full.
    pub(crate) fn put(&self, records: Vec<u8>) -> bool {
        let bytes = records.len();
        if self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= QUEUE_BYTES
            && self.sender.try_send(Message::Records(records)).is_ok()
        {
            return true;
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        false
    }
}
