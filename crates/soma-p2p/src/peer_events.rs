//! Made and lost links, for the node that embeds this.

use crate::shared::Shared;
use futures::Stream;
use soma_actors::connections::messages::{EventQueue, FollowPeers, Lagged};
use soma_protocol::{LostReason, PeerEvent};
use soma_runtime::{Life, Mailbox};
use soma_types::PeerId;
use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that may wait for a reader, a few MiB: hours of a network in which every connection breaks each minute.
const CAPACITY: usize = 65_536;

/// Events on their way from that queue to the reader.
const HANDED_OUT: usize = 16;

/// How long to wait for a Connections that is being restarted before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

type Item = Result<PeerEvent, Lagged>;

/// Links that are made and end: `Connected` for each there is at the start, then every change, in order, none left out.
/// When Connections is restarted every link ends, and the stream says so.
///
/// No actor waits for a slow reader. A reader with tens of thousands of unread events gets [`Lagged`] in the place of
/// the missing ones, as its last item, and may begin anew. The stream ends with the system.
///
/// A [`Stream`], and an iterator of sorts for threads outside any runtime.
#[derive(Debug)]
pub struct PeerEvents {
    receiver: mpsc::Receiver<Item>,
}

impl PeerEvents {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel(HANDED_OUT);
        let follower = Follower { connections: shared.follow_peers.clone(), connected: BTreeSet::new(), sender };
        shared.io.detach(follower.run(shared.closing.clone()));
        Self { receiver }
    }

    /// The next event; `None` when the system has stopped, or after an error.
    pub async fn next(&mut self) -> Option<Result<PeerEvent, Lagged>> {
        self.receiver.recv().await
    }

    /// The next event, for threads outside any async runtime. Panics inside one, as blocking there would.
    pub fn blocking_next(&mut self) -> Option<Result<PeerEvent, Lagged>> {
        self.receiver.blocking_recv()
    }
}

impl Stream for PeerEvents {
    type Item = Result<PeerEvent, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.receiver.poll_recv(context)
    }
}

/// The stream is over: its reader is gone, or it has ended.
struct Over;

/// Follows one Connections after the other.
struct Follower {
    connections: Mailbox<FollowPeers>,
    /// As the reader has been told.
    connected: BTreeSet<PeerId>,
    sender: mpsc::Sender<Item>,
}

impl Follower {
    async fn run(mut self, closing: CancellationToken) {
        let sender = self.sender.clone();
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = sender.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Over> {
        loop {
            let (queue, events) = EventQueue::new(CAPACITY);
            match self.connections.ask_one(|reply| FollowPeers { events: queue, reply }).await {
                Ok((connected, life)) => self.follow_one(connected, events, life).await?,
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Passes on what one incarnation tells, to its end.
    async fn follow_one(
        &mut self,
        connected: Vec<PeerId>,
        mut events: mpsc::Receiver<Item>,
        life: Life,
    ) -> Result<(), Over> {
        for peer in connected {
            self.tell(PeerEvent::Connected(peer)).await?;
        }
        loop {
            let event = tokio::select! {
                biased;
                event = events.recv() => event,
                // An actor with a blocked thread holds the other end for ever.
                () = life.ended() => None,
            };
            match event {
                Some(Ok(event)) => self.tell(event).await?,
                Some(Err(lagged)) => {
                    let _ = self.sender.send(Err(lagged)).await;
                    return Err(Over);
                }
                None => break,
            }
        }
        // No link outlives the Connections that made it.
        for peer in std::mem::take(&mut self.connected) {
            self.tell(PeerEvent::Lost { peer, reason: LostReason::Restarted }).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, event: PeerEvent) -> Result<(), Over> {
        match event {
            PeerEvent::Connected(peer) => self.connected.insert(peer),
            PeerEvent::Lost { peer, .. } => self.connected.remove(&peer),
        };
        self.sender.send(Ok(event)).await.map_err(|_| Over)
    }
}
