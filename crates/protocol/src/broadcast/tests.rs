//! Tests of Broadcast's core: alone, and in a small network of cores.

mod checking;
mod hostile;
mod network;
mod random;
mod solo;
mod spreading;
mod streams;

use super::Broadcast;
use soma_types::MessageId;

impl Broadcast {
    fn snapshot_of(&self) -> super::Snapshot {
        crate::core::Core::snapshot(self)
    }

    fn holds(&self, id: &MessageId) -> bool {
        self.topics.iter().any(|topic| topic.holds(id))
    }
}
