//! The gate between the transport and Connections, for what others connect to this node.
//!
//! ```text
//!   transport --connected?--> gate --InboundArrived--> Connections --admitted--> doorkeeper task
//!             --closed------> doorkeeper task --InboundClosed--> Connections
//!   Connections has ended ---> doorkeeper task --hang up--> every connection that it had admitted
//! ```
//!
//! The actor that admits a connection knows it, counts it, and can end it. A connection whose admitter has died would be
//! outside all limits and bans. So it is ended, and the peer connects again.

use crate::connections::messages::{InboundArrived, InboundClosed};
use async_trait::async_trait;
use soma_network::wire::PeerApi;
use soma_network::{ConnectionId, Inbound, InboundHandler};
use soma_runtime::IoTasks;
use soma_runtime::{Life, Mailbox};
use soma_types::PeerId;
use std::{collections::BTreeMap, future::pending, sync::Arc};
use tokio::sync::mpsc;

/// Capacity for beginnings and ends of inbound connections: two for each connection.
const NEWS_CAPACITY: usize = 4_096;

enum News {
    Admitted { inbound: Inbound, by: Life },
    Closed(ConnectionId),
}

/// What the transport asks about connections and calls of others: Connections admits, the service answers.
pub struct InboundGate {
    arrived: Mailbox<InboundArrived>,
    news: mpsc::Sender<News>,
    service: Arc<dyn PeerApi>,
}

impl InboundGate {
    /// A gate before `service`. Its doorkeeper is a task on `io`.
    pub fn new(
        arrived: Mailbox<InboundArrived>,
        closed: Mailbox<InboundClosed>,
        service: Arc<dyn PeerApi>,
        io: &IoTasks,
    ) -> Self {
        let (news, comes) = mpsc::channel(NEWS_CAPACITY);
        io.detach(keep_door(comes, closed));
        Self { arrived, news, service }
    }
}

async fn keep_door(mut comes: mpsc::Receiver<News>, mut closed: Mailbox<InboundClosed>) {
    let mut inside: BTreeMap<ConnectionId, (Inbound, Life)> = BTreeMap::new();
    loop {
        // Any life that has ended is noticed through the first that is still counted on.
        let oldest = inside.values().map(|(_, by)| by.clone()).next();
        let admitter_ended = async {
            match oldest {
                Some(life) => life.ended().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = admitter_ended => {
                inside.retain(|_, (inbound, by)| {
                    if by.has_ended() {
                        inbound.hang_up();
                    }
                    !by.has_ended()
                });
            }
            news = comes.recv() => match news {
                Some(News::Admitted { inbound, by }) => drop(inside.insert(inbound.id(), (inbound, by))),
                Some(News::Closed(connection)) => {
                    inside.remove(&connection);
                    // Connections that has been restarted does not know it any more.
                    let _ = closed.deliver(InboundClosed(connection)).await;
                }
                None => return,
            }
        }
    }
}

#[async_trait]
impl InboundHandler for InboundGate {
    async fn connected(&self, inbound: Inbound) -> bool {
        let (mut arrived, admitted) = (self.arrived.clone(), inbound.clone());
        match arrived.ask_one(|reply| InboundArrived { inbound, reply }).await {
            // Without a watcher a connection does not come in.
            Ok((true, by)) => self.news.try_send(News::Admitted { inbound: admitted, by }).is_ok(),
            Ok((false, _)) | Err(_) => false,
        }
    }

    fn closed(&self, connection: ConnectionId, peer: PeerId) {
        if self.news.try_send(News::Closed(connection)).is_err() {
            tracing::error!(peer = %peer.short(), "the end of a connection could not be told");
        }
    }

    fn api(&self) -> Arc<dyn PeerApi> {
        self.service.clone()
    }
}
