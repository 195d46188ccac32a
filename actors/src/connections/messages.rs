//! Messages that Connections takes.

use soma_network::{ConnectionId, Inbound};
use soma_protocol::{PeerEvent, connections::DialPurpose};
use soma_runtime::Reply;
use soma_types::{Address, PeerId};
use std::time::Duration;
use tokio::sync::mpsc;

/// From Discovery: this peer is to be dialled.
#[derive(Debug)]
pub struct Dial {
    /// Whom.
    pub peer: PeerId,
    /// Where, best first.
    pub addresses: Vec<Address>,
    /// What for.
    pub purpose: DialPurpose,
}

/// From StateSync, when it starts and at each handover: the validators of the epoch of the next commit.
#[derive(Clone, Debug)]
pub struct CommitteeChanged {
    /// Their network keys, and where the committee says that they listen.
    pub validators: Vec<(PeerId, Address)>,
}

/// From PeerHeights, to the gRPC adapter, too: these peers told of something new or served a range.
#[derive(Clone, Debug)]
pub struct Useful {
    /// Who.
    pub peers: Vec<PeerId>,
}

/// From PeerHeights: disconnect the peer and keep it out.
#[derive(Debug)]
pub struct Ban {
    /// Whom.
    pub peer: PeerId,
    /// For how long.
    pub duration: Duration,
    /// Why, for logs.
    pub reason: String,
}

/// From the transport: an authenticated peer asks to stay.
#[derive(Debug)]
pub struct InboundArrived {
    /// The connection.
    pub inbound: Inbound,
    /// Whether it may.
    pub reply: Reply<bool>,
}

/// From the transport: an admitted connection ended.
#[derive(Debug)]
pub struct InboundClosed(pub ConnectionId);

/// From PeerHeights and Discovery when they start: tell me who is connected. Changes they are told anyway.
#[derive(Debug)]
pub struct GetConnected {
    /// Name of the actor to tell.
    pub subscriber: &'static str,
}

/// To PeerHeights and Discovery: who can be asked has changed.
#[derive(Debug)]
pub struct PeerChanged(pub PeerEvent);

/// From the handle: tell me who is connected, and of every change from then on. What follows the answer comes in the queue.
#[derive(Debug)]
pub struct FollowPeers {
    /// Where changes go.
    pub events: EventQueue,
    /// Who is connected now.
    pub reply: Reply<Vec<PeerId>>,
}

/// The reader of an [`EventQueue`] did not keep up: what follows is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {capacity} events were not read: what follows is missing; begin anew")]
pub struct Lagged {
    /// Events that may wait.
    pub capacity: usize,
}

/// A queue of events for one reader, whom nobody waits for. If it overflows its reader is told so, in the place of the first
/// event that is missing, and it ends there.
#[derive(Debug)]
pub struct EventQueue {
    events: mpsc::Sender<Result<PeerEvent, Lagged>>,
    /// A place for the last word.
    reserved: Option<mpsc::OwnedPermit<Result<PeerEvent, Lagged>>>,
    capacity: usize,
}

impl EventQueue {
    /// A queue in which so many events may wait, and the end at which they are read.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Result<PeerEvent, Lagged>>) {
        let (events, reader) = mpsc::channel(capacity + 1);
        // There is room: nothing has been sent.
        let reserved = events.clone().try_reserve_owned().ok();
        (Self { events, reserved, capacity }, reader)
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Puts an event in. `false`: nobody reads any more, or not fast enough, and the queue is of no further use.
    #[must_use]
    pub fn push(&mut self, event: PeerEvent) -> bool {
        match self.events.try_send(Ok(event)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                if let Some(reserved) = self.reserved.take() {
                    reserved.send(Err(Lagged { capacity: self.capacity }));
                }
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_does_not_keep_up_is_told_where_the_gap_is_and_nobody_waits_for_it() {
        let (mut queue, mut reader) = EventQueue::new(2);
        let event = |number| PeerEvent::Connected(PeerId([number; 32]));
        assert!(queue.push(event(1)) && queue.push(event(2)));
        assert_eq!(reader.blocking_recv(), Some(Ok(event(1))));
        assert!(queue.push(event(3)) && !queue.push(event(4)));
        drop(queue);
        assert_eq!(reader.blocking_recv(), Some(Ok(event(2))));
        assert_eq!(reader.blocking_recv(), Some(Ok(event(3))));
        assert_eq!(reader.blocking_recv(), Some(Err(Lagged { capacity: 2 })));
        assert_eq!(reader.blocking_recv(), None);
    }
}
