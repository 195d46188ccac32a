//! Every way in which a chain can come to a node.

use crate::forge::Item;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use soma_archive::{Archive, Segment, SegmentStorage, Verification, pull};
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, Call, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    KnownPeers, PeerApi, Seen, limits::MAX_CHUNK_BYTES,
};
use soma_network::{ConnectionId, Inbound, InboundHandler, Link, Listener, MemoryNetwork, Transport};
use soma_p2p::CertificateVerifier;
use soma_p2p::{
    CommitIndex, Genesis, MemStore, PeerId, SeedPeer, Status, Store, SubDagDigest,
    testing::{Clock, LocalResources, LocalSystem, RuntimeContext},
};
use soma_tests::{config, key, node};
use soma_types::{BlockRef, CommitRef};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::LocalSet, time::sleep};

/// The node under test.
pub(crate) const NODE: u8 = 1;

/// A little after the chain's end.
pub(crate) const NOW_MS: u64 = 1_700_000_100_000;

/// How long a node has for a few commits, with many attempts at one that does not pass.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

/// Changes an answer on its way out. Given the honest one and the index of the chain's first commit that is broken.
pub(crate) type Lie = fn(&mut FetchedCommits, CommitRange);

/// Changes the blocks that are sent.
pub(crate) type BlockLie = fn(&mut Vec<Bytes>);

/// Serves a chain as it is, whatever is wrong with it. Its answers end where it is cut.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    pub(crate) genesis: CommitRef0,
    pub(crate) items: Vec<Item>,
    /// Bit `n`: an answer ends with commit `n + 1` at the latest.
    pub(crate) cuts: u32,
    pub(crate) lie: Option<Lie>,
    pub(crate) block_lie: Option<BlockLie>,
    /// What it says of itself, and of others.
    pub(crate) own_info: Bytes,
    pub(crate) known_peers: Vec<Bytes>,
}

/// A reference that has a default.
#[derive(Clone, Copy)]
pub(crate) struct CommitRef0(pub(crate) CommitRef);

impl Default for CommitRef0 {
    fn default() -> Self {
        Self(CommitRef { index: 0, digest: Default::default() })
    }
}

impl Scripted {
    pub(crate) fn new(genesis: &Genesis, items: &[Item], cuts: u32) -> Self {
        let genesis = CommitRef0(genesis.commit().reference());
        Self { genesis, items: items.to_vec(), cuts, ..Self::default() }
    }

    fn missing() -> CallError {
        CallError::new(soma_network::wire::Status::NotFound, "not here")
    }
}

#[async_trait]
impl PeerApi for Scripted {
    async fn get_known_peers(&self, _: Call, _: Bytes) -> Result<KnownPeers, CallError> {
        let known_peers = self.known_peers.clone();
        Ok(KnownPeers { own_info: self.own_info.clone(), known_peers, seen: Seen::default() })
    }

    async fn get_commit_availability(&self, _: Call) -> Result<Availability, CallError> {
        Ok(Availability { highest_synced: self.items.len() as CommitIndex, lowest_available: 1 })
    }

    async fn get_commit_info(&self, _: Call, _: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        Ok(self.genesis.0)
    }

    async fn fetch_commits(&self, _: Call, range: CommitRange) -> Result<FetchedCommits, CallError> {
        let (start, end) = (range.start() as usize, (range.end() as usize).min(self.items.len()));
        let first = self.items.get(start - 1).ok_or_else(Self::missing)?;
        // As honest peers do, it ends with the epoch.
        let of_epoch = self.items[start - 1..].iter().take_while(|item| item.commit.epoch == first.commit.epoch);
        let end = end.min(start - 1 + of_epoch.count());
        let cut = (start..=end).find(|index| self.cuts & (1 << (index - 1)) != 0).unwrap_or(end);
        let items = &self.items[start - 1..cut];
        let mut answer = FetchedCommits {
            commits: items.iter().map(|item| item.commit.bytes().clone()).collect(),
            certifier_blocks: items[items.len() - 1].certifiers.clone(),
        };
        if let Some(lie) = self.lie {
            lie(&mut answer, range);
        }
        Ok(answer)
    }

    async fn fetch_blocks(&self, _: Call, refs: BlockRefs) -> Result<BlockStream, CallError> {
        let blocks: BTreeMap<BlockRef, Bytes> = self.items.iter().flat_map(|item| item.blocks.clone()).collect();
        let found = refs.as_slice().iter().map(|reference| blocks.get(reference).cloned());
        let mut found = found.collect::<Option<Vec<_>>>().ok_or_else(Self::missing)?;
        if let Some(lie) = self.block_lie {
            lie(&mut found);
        }
        // Chunks have a limit, and none is empty.
        let is_large = found.iter().map(Bytes::len).sum::<usize>() > MAX_CHUNK_BYTES;
        let in_chunk = if is_large { 1 } else { found.len().max(1) };
        let chunks: Vec<_> = found.chunks(in_chunk).map(|chunk| Ok(chunk.to_vec())).collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn push_commit(&self, _: Call, _: CommitIndex) -> Result<(), CallError> {
        Ok(())
    }

    async fn get_epoch_proofs(&self, _: Call, _: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        Err(Self::missing())
    }
}

/// Lets everybody in.
struct Open(Arc<dyn PeerApi>);

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

/// How a node has judged a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The last commit that it has stored.
    pub(crate) height: CommitIndex,
    /// Numbers of the peers that it has banned.
    pub(crate) banned: Vec<u8>,
    /// Of what its executor was given.
    pub(crate) digest: SubDagDigest,
}

/// What the node said last, for a test that fails.
static EXPLANATION: Mutex<String> = Mutex::new(String::new());

pub(crate) fn explanation() -> String {
    EXPLANATION.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs something in virtual time.
pub(crate) fn in_virtual_time<R>(work: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// A node in virtual time, and what goes with it.
pub(crate) struct Running {
    pub(crate) system: LocalSystem,
    pub(crate) store: Arc<MemStore>,
    network: MemoryNetwork,
    _disk: watch::Sender<Duration>,
    _listeners: Vec<Listener>,
}

/// Starts a node on this store beside peers of these numbers.
pub(crate) async fn start(
    genesis: &Genesis,
    store: Arc<MemStore>,
    commits_per_fetch: u32,
    peers: Vec<(u8, Scripted)>,
) -> Running {
    let network = MemoryNetwork::new();
    let (mut listeners, mut seeds) = (Vec::new(), Vec::new());
    for (number, peer) in peers {
        let peer_id = PeerId::from(&key(number));
        let any_port = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let listening = network.transport(peer_id).listen(&any_port, Arc::new(Open(Arc::new(peer)))).await.unwrap();
        seeds.push(SeedPeer { peer_id, address: listening.address().clone() });
        listeners.push(listening);
    }
    let mut settings = config(&[]);
    settings.seed_peers = seeds;
    settings.state_sync.commits_per_fetch = commits_per_fetch;
    let (disk, disk_time) = watch::channel(Duration::ZERO);
    let builder =
        node(NODE, genesis, store.clone(), settings).transport(Arc::new(network.transport(PeerId::from(&key(NODE)))));
    let runtime_context = RuntimeContext::new(Clock::simulated(NOW_MS));
    let system = builder.start_local(LocalResources { runtime_context, disk_time, check_threads: None }).await.unwrap();
    Running { system, store, network, _disk: disk, _listeners: listeners }
}

impl Running {
    /// A connection of a peer of this number to the node.
    pub(crate) async fn dial(&self, number: u8) -> Link {
        let (node, transport) = (self.system.handle(), self.network.transport(PeerId::from(&key(number))));
        transport.dial(node.peer_id(), node.address(), LONG_ENOUGH).await.unwrap()
    }

    /// Waits until the node has all of it, or has had time to try again and again.
    pub(crate) async fn settle(&self, height: CommitIndex) {
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(100);
        while waited < LONG_ENOUGH && self.system.handle().height() < height {
            sleep(step).await;
            waited += step;
        }
    }

    pub(crate) async fn status(&self) -> Status {
        self.system.handle().status().await
    }

    /// Stops the node, and says how it has judged.
    pub(crate) async fn judge(self) -> Verdict {
        let status = self.status().await;
        *EXPLANATION.lock().unwrap_or_else(PoisonError::into_inner) = status.explanation.clone();
        let banned = (0..=u8::MAX).filter(|number| status.is_banned(PeerId::from(&key(*number)))).collect();
        self.system.shutdown(Duration::from_secs(5)).await;
        Verdict::of(&self.store, banned)
    }
}

impl Verdict {
    /// What a node has taken that has this store.
    fn of(store: &MemStore, banned: Vec<u8>) -> Self {
        let height = store.watermarks().unwrap().highest_synced.index;
        let mut digest = SubDagDigest::default();
        for index in 1..=height {
            digest.push(&store.sub_dag(index).unwrap().unwrap());
        }
        Self { height, banned, digest }
    }
}

/// A store that holds the first commits.
pub(crate) fn store_with(genesis: &Genesis, items: &[Item]) -> Arc<MemStore> {
    let store = MemStore::new(genesis);
    let commits: Option<Vec<_>> = items.iter().map(|item| item.certified.clone()).collect();
    if let Some(commits) = commits.filter(|commits| !commits.is_empty()) {
        store.apply(&commits).unwrap();
    }
    Arc::new(store)
}

/// The number of the peer that serves what is under test, and of one that is honest.
pub(crate) const SERVER: u8 = 2;
pub(crate) const HONEST: u8 = 3;

/// A chain that comes from a peer, cut so, to a node that has its first commits already.
pub(crate) fn from_peers(
    genesis: &Genesis,
    stored: &[Item],
    height: usize,
    commits_per_fetch: u32,
    peers: Vec<(u8, Scripted)>,
) -> Verdict {
    in_virtual_time(async {
        let running = start(genesis, store_with(genesis, stored), commits_per_fetch, peers).await;
        running.settle(height as CommitIndex).await;
        running.judge().await
    })
}

/// A chain that the node's own consensus hands over, up to the first commit that is refused; and why that is. `None` if
/// it cannot be expressed so.
pub(crate) fn from_consensus(
    genesis: &Genesis,
    stored: usize,
    items: &[Item],
) -> Option<(Verdict, Option<soma_p2p::LocalCommitError>)> {
    let commits: Vec<_> = items[stored..].iter().map(|item| item.certified.clone()).collect::<Option<_>>()?;
    Some(in_virtual_time(async {
        let running = start(genesis, store_with(genesis, &items[..stored]), 100, Vec::new()).await;
        let mut error = None;
        for commit in commits {
            if let Err(refused) = running.system.handle().send_commit(commit).await {
                error = Some(refused);
                break;
            }
        }
        (running.judge().await, error)
    }))
}

/// A chain that comes from an archive, in segments that are cut so.
pub(crate) fn from_archive(genesis: &Genesis, stored: usize, items: &[Item], cuts: u32) -> Verdict {
    let store = store_with(genesis, &items[..stored]);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let archive = Archive::open(directory.path().to_str().unwrap()).unwrap();
        let mut rest = items;
        while let [first, ..] = rest {
            // A segment is of one epoch, as its commits state it.
            let of_epoch = rest.iter().take_while(|item| item.commit.epoch == first.commit.epoch).count();
            let begins = items.len() - rest.len();
            let length = (1..=of_epoch).find(|length| cuts & (1 << (begins + length - 1)) != 0).unwrap_or(of_epoch);
            let (segment, behind) = rest.split_at(length);
            rest = behind;
            let segment = Segment {
                chain: genesis.chain_id(),
                epoch: first.commit.epoch,
                first: begins as CommitIndex + 1,
                commits: segment.iter().map(|item| item.commit.bytes().clone()).collect(),
                certifiers: segment[length - 1].certifiers.clone(),
                blocks: segment.iter().flat_map(|item| item.blocks.iter().map(|(_, block)| block.clone())).collect(),
            };
            archive.put(&segment).await.unwrap();
        }
        let verification = Verification::Full(Arc::new(CertificateVerifier));
        let pulled = pull(&archive, store.clone(), &verification, |_| {}).await;
        let explanation = pulled.map_or_else(|error| error.to_string(), |pulled| format!("{pulled:?}"));
        *EXPLANATION.lock().unwrap_or_else(PoisonError::into_inner) = explanation;
    });
    Verdict::of(&store, Vec::new())
}
