//! Messages that Connections takes.

use soma_network::{ConnectionId, Inbound};
use soma_protocol::{ChosenPeers, PeerEvent, connections::DialPurpose};
use soma_runtime::Reply;
use soma_types::{Address, PeerId};
use soma_verify::EpochContext;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// From Discovery: dial this peer.
#[derive(Debug)]
pub struct Dial {
    /// The peer.
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
    /// The epoch and its committee.
    pub context: Arc<EpochContext>,
}

/// From PeerHeights, to the gRPC adapter, too: these peers served a range, or announced a new commit.
#[derive(Clone, Debug)]
pub struct Useful {
    /// The peers.
    pub peers: Vec<PeerId>,
}

/// From PeerHeights: disconnect the peer and keep it out.
#[derive(Debug)]
pub struct Ban {
    /// The peer.
    pub peer: PeerId,
    /// How long it lasts.
    pub duration: Duration,
    /// Why, for logs.
    pub reason: String,
}

/// From PeerHeights: let the peer in again.
#[derive(Debug)]
pub struct Unban {
    /// The peer.
    pub peer: PeerId,
}

/// From the handle: end every connection with the peer. The peer may connect again.
#[derive(Debug)]
pub struct Disconnect {
    /// The peer.
    pub peer: PeerId,
    /// Answered when the connections are ended.
    pub reply: Reply<()>,
}

/// From the handle, to every actor that treats chosen peers differently: the operator changed the lists.
#[derive(Debug)]
pub struct ChosenPeersChanged {
    /// The lists as they are now.
    pub chosen: ChosenPeers,
    /// Answered when the actor goes by them.
    pub reply: Reply<()>,
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

/// From PeerHeights and Discovery when they start: which peers are connected? Changes follow in any case.
#[derive(Debug)]
pub struct GetConnected {
    /// Name of the actor to tell.
    pub subscriber: &'static str,
}

/// To PeerHeights and Discovery: a link was made or lost.
#[derive(Debug)]
pub struct PeerChanged(pub PeerEvent);

/// From the handle: tell me who is connected, and of every change from then on. What follows the answer comes in the
/// queue.
#[derive(Debug)]
pub struct FollowPeers {
    /// Where changes go.
    pub events: EventQueue,
    /// The connected peers.
    pub reply: Reply<Vec<PeerId>>,
}

/// The reader of an [`EventQueue`] did not keep up: what follows is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {capacity} events were not read: what follows is missing; begin anew")]
pub struct Lagged {
    /// Events that may wait.
    pub capacity: usize,
}

/// A queue of events for one reader. No actor waits for the reader. If the queue overflows, the reader learns so in the
/// place of the first missing event, and the queue ends there.
#[derive(Debug)]
pub struct EventQueue {
    events: mpsc::Sender<Result<PeerEvent, Lagged>>,
    /// A place for the last word.
    reserved: Option<mpsc::OwnedPermit<Result<PeerEvent, Lagged>>>,
    capacity: usize,
}

impl EventQueue {
    /// A queue with room for this many events, and its reading end.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Result<PeerEvent, Lagged>>) {
        let (events, reader) = mpsc::channel(capacity + 1);
        // There is room: nothing has been sent.
        let reserved = events.clone().try_reserve_owned().ok();
        (Self { events, reserved, capacity }, reader)
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Puts an event in. `false`: the reader is gone or too slow, and the queue has ended.
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
    fn a_slow_reader_learns_where_the_gap_is_and_no_actor_waits_for_it() {
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
