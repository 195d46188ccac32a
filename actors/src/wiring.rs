//! The list of actors, and the resources that each is made from.
//!
//! Each folder's `wiring.rs` says what its actor is given: settings, mailboxes of others, and what the store holds
//! for it. References are made before any actor lives. So actors that write to each other need no later introduction.

use crate::{
    archiver::Archiver,
    broadcast::Broadcast,
    connections::{Connections, LinkRegistry},
    discovery::Discovery,
    grpc_adapter::GrpcAdapter,
    objects::Objects,
    peer_heights::PeerHeights,
    state_sync::StateSync,
    store_writer::StoreWriter,
    verifier::Verifier,
};
use soma_archive::SegmentStorage;
use soma_protocol::{
    ChosenPeers, Core, archiver as archiving, broadcast as spreading, connections, discovery,
    grpc_adapter as admission, objects as fetching, peer_heights as heights, state_sync as sync,
    store_writer as writer, verifier as checks,
};
use soma_runtime::{ActorRef, IoTasks, Offload, OrderedSender, RuntimeContext, Slot};
use soma_store::{ObjectSource, Store, StoreError};
use soma_types::ChainId;
use std::{collections::BTreeMap, fmt::Debug, future::Future, sync::Arc};
use tokio::sync::watch;

macro_rules! actors {
    ($($field:ident: $actor:ty, $core:ty;)*) => {
        /// A place for each actor.
        pub struct Slots { $(#[doc = concat!("Of [`", stringify!($actor), "`].")] pub $field: Slot<$actor>,)* }

        impl Default for Slots {
            fn default() -> Self {
                Self { $($field: Slot::new(<$core as Core>::NAME),)* }
            }
        }

        impl Slots {
            /// References to the actors in them.
            pub fn actors(&self) -> Actors {
                Actors { $($field: self.$field.reference(),)* }
            }
        }

        /// A reference to each actor, which follows its restarts.
        #[derive(Clone)]
        pub struct Actors { $(#[doc = concat!("To [`", stringify!($actor), "`].")] pub $field: ActorRef<$actor>,)* }
    };
}

actors! {
    verifier: Verifier, checks::Verifier;
    store_writer: StoreWriter, writer::StoreWriter;
    archiver: Archiver, archiving::Archiver;
    connections: Connections, connections::Connections;
    discovery: Discovery, discovery::Discovery;
    state_sync: StateSync, sync::StateSync;
    peer_heights: PeerHeights, heights::PeerHeights;
    broadcast: Broadcast, spreading::Broadcast;
    objects: Objects, fetching::Objects;
    grpc_adapter: GrpcAdapter, admission::Serving;
}

/// Resources that actors are made from, besides their settings.
#[derive(Clone)]
pub struct Resources {
    /// All actors.
    pub actors: Actors,
    /// Messages in the mailbox of each actor. Each sender adds one.
    pub mailbox_capacity: usize,
    /// This node's chain.
    pub chain: ChainId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The archive, if the node has one.
    pub archive: Option<Arc<dyn SegmentStorage>>,
    /// What the node has of objects, if it serves any.
    pub objects: Option<Arc<dyn ObjectSource>>,
    /// Live links.
    pub links: LinkRegistry,
    /// Where calls run.
    pub io: IoTasks,
    /// Where the store is read.
    pub offload: Offload,
    /// Time, chance and faults.
    pub runtime_context: RuntimeContext,
    /// Written by the handle alone. An actor that starts begins with these lists; a running one gets a message.
    pub chosen_peers: watch::Receiver<ChosenPeers>,
}

impl Resources {
    /// The peers that the operator chose, for an actor that is being started.
    pub(crate) fn chosen_peers(&self) -> ChosenPeers {
        self.chosen_peers.borrow().clone()
    }

    /// Reads the store off the actor's thread, for an actor that is being started.
    pub(crate) fn read<R, F>(&self, read: F) -> impl Future<Output = Result<R, String>> + use<R, F>
    where
        R: Send + 'static,
        F: FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    {
        let (offload, store) = (self.offload.clone(), self.store.clone());
        async move {
            match offload.run(move || read(&*store)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(exit) => Err(exit.to_string()),
            }
        }
    }
}

/// Senders to several actors, by the name of the receiver.
pub(crate) fn by_receiver<M>(
    senders: impl IntoIterator<Item = OrderedSender<M>>,
) -> BTreeMap<&'static str, OrderedSender<M>>
where
    M: Debug + Send + 'static,
{
    senders.into_iter().map(|sender| (sender.receiver(), sender)).collect()
}
