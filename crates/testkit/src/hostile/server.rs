//! Hostile peers as real servers: TLS, HTTP/2 and gRPC of this library, answers of the behaviour.

use crate::hostile::{Behaviour, Means, Mischief, ObjectMischief, node_infos, throttle::Throttle};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    KnownPeers, ObjectIds, ObjectStream, PeerApi, Seen, Status, limits::MAX_EPOCH_PROOFS_PER_FETCH,
};
use soma_network::{ConnectionId, Inbound, InboundHandler, Listener, TlsTransport, Transport};
use soma_p2p::{CertifiedCommit, Genesis, MemStore, SeedPeer, Store};
use soma_store::{MemoryObjects, serve_commits, serve_epoch_proofs};
use soma_types::{BlockRef, ChainId, CommitIndex, CommitRef, PeerId, SignedNodeInfo, SigningKey};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

/// Blocks in one chunk: small chains, and chunk boundaries that are crossed all the same.
const CHUNK_BLOCKS: usize = 3;

/// Answers calls honestly from a store.
pub struct StorePeer {
    store: Arc<dyn Store>,
    chain: ChainId,
    key: SigningKey,
    /// Where it listens, once it does.
    address: OnceLock<soma_types::Address>,
    /// Its objects, and what it does when it is asked for them.
    objects: Option<(Arc<MemoryObjects>, ObjectMischief)>,
}

impl StorePeer {
    /// A peer that has these commits and this key.
    pub fn new(genesis: &Genesis, commits: &[CertifiedCommit], key: SigningKey) -> Self {
        let store = MemStore::new(genesis);
        if !commits.is_empty() {
            store.apply(commits).expect("commits that follow one another");
        }
        Self { store: Arc::new(store), chain: genesis.chain_id(), key, address: OnceLock::new(), objects: None }
    }
}

fn failed(error: impl ToString) -> CallError {
    CallError::new(Status::Internal, error.to_string())
}

fn not_here() -> CallError {
    CallError::new(Status::NotFound, "not here")
}

fn now_ms() -> u64 {
    // A clock before 1970 is none that a test machine has.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl PeerApi for StorePeer {
    async fn get_known_peers(&self, _: Call, _: Bytes) -> Result<KnownPeers, CallError> {
        let address = self.address.get().ok_or_else(not_here)?;
        let info = node_infos::own_info(&self.key, self.chain, address, now_ms());
        let own_info = SignedNodeInfo::sign(info, self.chain, &self.key).bytes().clone();
        Ok(KnownPeers { own_info, known_peers: Vec::new(), seen: Seen::default() })
    }

    async fn get_commit_availability(&self, _: Call) -> Result<Availability, CallError> {
        let watermarks = self.store.watermarks().map_err(failed)?;
        Ok(Availability {
            highest_synced: watermarks.highest_synced.index,
            lowest_available: watermarks.lowest_available,
        })
    }

    async fn get_commit_info(&self, _: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        let commit = self.store.commit(index.unwrap_or(0)).map_err(failed)?.ok_or_else(not_here)?;
        Ok(commit.reference())
    }

    async fn fetch_commits(&self, _: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let served = serve_commits(&*self.store, range.start(), range.end(), range.max_bytes());
        let served = served.map_err(failed)?.map_err(|_| not_here())?;
        Ok(FetchedCommits { commits: served.commits, certifier_blocks: served.certifiers })
    }

    async fn fetch_blocks(&self, _: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let refs: Vec<BlockRef> = refs.into_vec();
        let blocks: Option<Vec<Bytes>> = self.store.blocks(&refs).map_err(failed)?.into_iter().collect();
        let blocks = blocks.ok_or_else(not_here)?;
        let chunks: Vec<_> = blocks.chunks(CHUNK_BLOCKS).map(|chunk| Ok(chunk.to_vec())).collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn push_commit(&self, _: Call, _: CommitIndex) -> Result<(), CallError> {
        Ok(())
    }

    async fn fetch_objects(&self, _: Call, ids: ObjectIds) -> Result<ObjectStream, CallError> {
        match &self.objects {
            Some((source, mischief)) => mischief.answer(source, &ids),
            None => Err(CallError::new(Status::Unimplemented, "no objects here")),
        }
    }

    async fn get_epoch_proofs(&self, _: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        let (from, max_bytes) = (request.from_epoch(), request.max_bytes());
        let served = serve_epoch_proofs(&*self.store, from, MAX_EPOCH_PROOFS_PER_FETCH, max_bytes);
        let proofs = served.map_err(failed)?.map_err(|_| not_here())?;
        Ok(EpochProofs { proofs: proofs.into_iter().map(Bytes::from).collect() })
    }
}

/// Connections by caller, so that they can be ended.
#[derive(Default)]
struct Callers(Mutex<BTreeMap<ConnectionId, Inbound>>);

impl Callers {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Inbound>> {
        // Each use is one insertion, removal or look.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang_up(&self, caller: PeerId) {
        self.connections().values().filter(|inbound| inbound.peer() == caller).for_each(Inbound::hang_up);
    }
}

/// Admits everybody.
struct Open {
    api: Arc<dyn PeerApi>,
    callers: Arc<Callers>,
}

#[async_trait]
impl InboundHandler for Open {
    async fn connected(&self, inbound: Inbound) -> bool {
        self.callers.connections().insert(inbound.id(), inbound);
        true
    }

    fn closed(&self, connection: ConnectionId, _: PeerId) {
        self.callers.connections().remove(&connection);
    }

    fn api(&self) -> Arc<dyn PeerApi> {
        self.api.clone()
    }
}

/// A peer that listens on loopback, until it is dropped.
pub struct Server {
    mischief: Option<Mischief>,
    seed_peer: SeedPeer,
    _listener: Listener,
    _throttle: Option<Throttle>,
}

impl Server {
    /// Starts a peer that has `commits`, is known by `key`, and behaves so; what it serves may be forged, where it is
    /// honest in serving that.
    pub async fn start(
        behaviour: impl Into<Option<Behaviour>>,
        key: &SigningKey,
        genesis: &Genesis,
        commits: &[CertifiedCommit],
        seed: u64,
    ) -> Self {
        let behaviour = behaviour.into();
        let callers = Arc::new(Callers::default());
        let trickle = Arc::new(AtomicBool::new(false));
        let honest = StorePeer::new(genesis, commits, key.clone());
        Self::serve(behaviour, key, honest, callers, trickle, seed).await
    }

    /// Starts a peer that has objects, is known by `key`, and answers so when it is asked for them.
    pub async fn start_with_objects(
        mischief: ObjectMischief,
        key: &SigningKey,
        genesis: &Genesis,
        objects: Arc<MemoryObjects>,
    ) -> Self {
        let peer = StorePeer::new(genesis, &[], key.clone());
        let peer = StorePeer { objects: Some((objects, mischief)), ..peer };
        Self::serve(None, key, peer, Arc::default(), Arc::default(), 0).await
    }

    async fn serve(
        behaviour: Option<Behaviour>,
        key: &SigningKey,
        honest: StorePeer,
        callers: Arc<Callers>,
        trickle: Arc<AtomicBool>,
        seed: u64,
    ) -> Self {
        let honest = Arc::new(honest);
        let mischief = behaviour.map(|behaviour| {
            let (key, hang_up, trickle) = (key.clone(), callers.clone(), Some(trickle.clone()));
            let hang_up = Arc::new(move |caller| hang_up.hang_up(caller));
            Mischief::new(behaviour, Means { key, seed, hang_up, trickle, objects: None })
        });
        let api: Arc<dyn PeerApi> = match &mischief {
            Some(mischief) => Arc::new(mischief.wrap(honest.clone())),
            None => honest.clone(),
        };
        let proves = match behaviour {
            Some(Behaviour::HasOtherKey) => SigningKey::from_bytes(&[0xee; 32]),
            _ => key.clone(),
        };
        let transport = TlsTransport::new(&proves).expect("a key");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let listener = transport.listen(&any_port, Arc::new(Open { api, callers })).await.expect("loopback");
        let mut address = listener.address().clone();
        let mut throttle = None;
        if behaviour == Some(Behaviour::DribblesBytes) {
            let started = Throttle::start(address, move || trickle.load(Ordering::Relaxed)).await;
            address = started.address().clone();
            throttle = Some(started);
        }
        // It listens once.
        let _ = honest.address.set(address.clone());
        let seed_peer = SeedPeer { peer_id: PeerId::from(key), address };
        Self { mischief, seed_peer, _listener: listener, _throttle: throttle }
    }

    /// The address for seed lists.
    pub fn seed_peer(&self) -> SeedPeer {
        self.seed_peer.clone()
    }

    /// How many answers it has changed, withheld or made up.
    pub fn acts(&self) -> u64 {
        self.mischief.as_ref().map_or(0, Mischief::acts)
    }
}
