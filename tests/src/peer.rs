//! A peer of our own making, behind the real transport: honest by default, and as bad as a scenario wants.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_p2p::{CertifiedCommit, Genesis, MemStore, PeerId, Store};
use soma_store::serve_commits;
use soma_transport::{ConnectionId, Inbound, InboundHandler, Listener, TlsTransport, Transport};
use soma_types::{BlockRef, CommitIndex, CommitRef};
use soma_wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, FetchedCommits, KnownPeers, PeerApi, Status,
};
use std::{net::SocketAddr, sync::Arc};

/// What a peer does to its answers before it gives them.
pub struct Behaviour {
    /// Changes what it says it has.
    pub availability: fn(Availability) -> Availability,
    /// Changes commits and votes.
    pub commits: fn(FetchedCommits) -> Result<FetchedCommits, CallError>,
    /// Changes the blocks of one answer.
    pub blocks: fn(Vec<Bytes>) -> Result<Vec<Bytes>, CallError>,
    /// Changes the digest of commit 0.
    pub genesis: fn(CommitRef) -> CommitRef,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { availability: |said| said, commits: Ok, blocks: Ok, genesis: |commit| commit }
    }
}

/// Answers calls from a store, through a [`Behaviour`].
struct Peer {
    store: MemStore,
    behaviour: Behaviour,
}

#[async_trait]
impl PeerApi for Peer {
    async fn get_known_peers(&self, _: Call, _: Bytes) -> Result<KnownPeers, CallError> {
        Ok(KnownPeers { own_info: Bytes::new(), known_peers: Vec::new() })
    }

    async fn get_commit_availability(&self, _: Call) -> Result<Availability, CallError> {
        let watermarks = self.store.watermarks().map_err(failed)?;
        let said = Availability {
            highest_synced: watermarks.highest_synced.index,
            lowest_available: watermarks.lowest_available,
        };
        Ok((self.behaviour.availability)(said))
    }

    async fn get_commit_info(&self, _: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let commit = self.store.commit(index.unwrap_or(0)).map_err(failed)?.ok_or_else(not_here)?;
        Ok((self.behaviour.genesis)(commit.reference()))
    }

    async fn fetch_commits(&self, _: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let served = serve_commits(&self.store, range.start(), range.end(), range.max_bytes());
        let served = served.map_err(failed)?.ok_or_else(not_here)?;
        (self.behaviour.commits)(FetchedCommits { commits: served.commits, certifier_blocks: served.certifiers })
    }

    async fn fetch_blocks(&self, _: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let refs: Vec<BlockRef> = refs.into_vec();
        let blocks: Option<Vec<Bytes>> = self.store.blocks(&refs).map_err(failed)?.into_iter().collect();
        let blocks = (self.behaviour.blocks)(blocks.ok_or_else(not_here)?)?;
        // A chunk for each block: small chains, and every chunk boundary is crossed.
        let chunks: Vec<_> = blocks.into_iter().map(|block| Ok(vec![block])).collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn push_commit(&self, _: Call, _: CommitIndex) -> Result<(), CallError> {
        Ok(())
    }
}

fn failed(error: impl ToString) -> CallError {
    CallError::new(Status::Internal, error.to_string())
}

fn not_here() -> CallError {
    CallError::new(Status::NotFound, "not here")
}

/// Admits everybody.
struct Open(Arc<Peer>);

#[async_trait]
impl InboundHandler for Open {
    async fn connected(&self, _: Inbound) -> bool {
        true
    }

    fn closed(&self, _: ConnectionId, _: PeerId) {}

    fn api(&self) -> Arc<dyn PeerApi> {
        self.0.clone()
    }
}

/// Serves `commits` over TLS on loopback, with key `number`, behaving as told, until the listener is dropped.
pub async fn serve(
    number: u8,
    genesis: &Genesis,
    commits: &[CertifiedCommit],
    behaviour: Behaviour,
) -> (Listener, soma_p2p::SeedPeer) {
    let store = MemStore::new(genesis);
    if !commits.is_empty() {
        store.apply(commits).expect("the builder's commits fit");
    }
    let key = crate::key(number);
    let transport = TlsTransport::new(&key).expect("a key");
    let address = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let handler = Arc::new(Open(Arc::new(Peer { store, behaviour })));
    let listener = transport.listen(&address, handler).await.expect("loopback");
    let seed = soma_p2p::SeedPeer { peer_id: PeerId::from(&key), address: listener.address().clone() };
    (listener, seed)
}
