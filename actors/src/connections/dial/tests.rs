use super::*;
use async_trait::async_trait;
use bytes::Bytes;
use soma_network::wire::{
    Availability, BlockRefs, BlockStream, CallError, CommitRange, EpochProofs, EpochProofsFrom, FetchedCommits,
    KnownPeers, PeerApi, Status,
};
use soma_network::{ConnectionId, Inbound, InboundHandler, ListenError, Listener, MemoryNetwork};
use soma_types::{ChainId, CommitDigest, CommitIndex, CommitRef, ListenAddress};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

const PEER: PeerId = PeerId([7; 32]);

/// A peer that answers what its commit 0 is, and counts its connections.
struct Node {
    genesis: CommitRef,
    open: Arc<AtomicUsize>,
}

#[async_trait]
impl InboundHandler for Node {
    async fn connected(&self, _: Inbound) -> bool {
        self.open.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn closed(&self, _: ConnectionId, _: PeerId) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn api(&self) -> Arc<dyn PeerApi> {
        Arc::new(Genesis(self.genesis))
    }
}

struct Genesis(CommitRef);

fn unanswered<T>() -> Result<T, CallError> {
    Err(CallError::new(Status::Unavailable, "not asked in a dial"))
}

#[async_trait]
impl PeerApi for Genesis {
    async fn get_known_peers(&self, _: Call, _: Bytes) -> Result<KnownPeers, CallError> {
        unanswered()
    }

    async fn get_commit_availability(&self, _: Call) -> Result<Availability, CallError> {
        unanswered()
    }

    async fn get_commit_info(&self, _: Call, _: Option<CommitIndex>) -> Result<CommitRef, CallError> {
        Ok(self.0)
    }

    async fn fetch_commits(&self, _: Call, _: CommitRange) -> Result<FetchedCommits, CallError> {
        unanswered()
    }

    async fn fetch_blocks(&self, _: Call, _: BlockRefs) -> Result<BlockStream, CallError> {
        unanswered()
    }

    async fn push_commit(&self, _: Call, _: CommitIndex) -> Result<(), CallError> {
        unanswered()
    }

    async fn get_epoch_proofs(&self, _: Call, _: EpochProofsFrom) -> Result<EpochProofs, CallError> {
        unanswered()
    }
}

/// A network in which the answer of some addresses takes its time.
struct Slow {
    inner: Arc<dyn Transport>,
    delays: BTreeMap<Address, Duration>,
}

#[async_trait]
impl Transport for Slow {
    async fn dial(&self, peer: PeerId, address: &Address, limit: Duration) -> Result<Link, DialError> {
        let delay = self.delays.get(address).copied().unwrap_or_default();
        tokio::time::sleep(delay.min(limit)).await;
        if delay >= limit {
            return Err(DialError::Timeout { address: address.clone(), timeout: limit });
        }
        self.inner.dial(peer, address, limit).await
    }

    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError> {
        self.inner.listen(address, handler).await
    }
}

fn genesis(number: u8) -> CommitRef {
    CommitRef { index: 0, digest: CommitDigest([number; 32]) }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn v4(host: u8) -> Address {
    address(&format!("/ip4/192.0.2.{host}/tcp/1"))
}

fn v6(host: u8) -> Address {
    address(&format!("/ip6/2001:db8::{host}/tcp/1"))
}

/// Dials these addresses. `listening`: who answers there, on which chain, after how many milliseconds.
async fn play(listening: &[(Address, PeerId, u8, u64)], addresses: &[Address]) -> (Dialled, Duration, usize) {
    let network = MemoryNetwork::new();
    let open = Arc::new(AtomicUsize::new(0));
    let mut listeners = Vec::new();
    for (address, peer, chain, _) in listening {
        let node = Node { genesis: genesis(*chain), open: open.clone() };
        let listen: ListenAddress = address.to_string().parse().unwrap();
        listeners.push(network.transport(*peer).listen(&listen, Arc::new(node)).await.unwrap());
    }
    let mut delays: BTreeMap<_, _> =
        listening.iter().map(|(address, _, _, ms)| (address.clone(), Duration::from_millis(*ms))).collect();
    // Where nobody listens nobody answers.
    for address in addresses {
        delays.entry(address.clone()).or_insert(Duration::MAX);
    }
    let transport = Arc::new(Slow { inner: Arc::new(network.transport(PeerId([1; 32]))), delays });
    let settings =
        Settings { chain: ChainId([0; 32]), genesis_commit: genesis(0), connect_timeout: Duration::from_secs(5) };
    let began = Instant::now();
    let dialled = dial(transport, settings, PEER, addresses.to_vec()).await;
    let took = began.elapsed();
    // The ends of connections are told by tasks; time passes only when all of them are done.
    tokio::time::sleep(Duration::from_millis(1)).await;
    (dialled, took, open.load(Ordering::SeqCst))
}

fn endpoint(dialled: &Dialled) -> Option<&Address> {
    dialled.result.as_ref().ok().map(|(_, endpoint)| &endpoint.address)
}

#[test]
fn families_take_turns_beginning_with_the_first_addresses() {
    let name = address("/dns/node.example/tcp/1");
    let given = vec![v6(1), v6(2), v6(3), v4(1), name.clone()];
    assert_eq!(interleaved(given), [v6(1), v4(1), v6(2), name.clone(), v6(3)]);
    assert_eq!(interleaved(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
    assert_eq!(interleaved(vec![name.clone(), v4(1)]), [name, v4(1)]);
    assert_eq!(interleaved(vec![]), []);
}

#[tokio::test(start_paused = true)]
async fn a_dead_address_costs_a_moment_and_not_a_timeout() {
    let (dialled, took, open) = play(&[(v4(2), PEER, 0, 10)], &[v4(1), v6(1), v4(2)]).await;
    assert_eq!(endpoint(&dialled), Some(&v4(2)));
    assert_eq!(took, Duration::from_millis(510));
    assert_eq!((dialled.failed, open), (vec![], 1), "those that were given up have not failed");
}

#[tokio::test(start_paused = true)]
async fn first_dial_to_the_right_peer_on_our_chain_wins_and_others_are_hung_up() {
    let other = PeerId([8; 32]);
    let listening = [
        (v4(1), other, 0, 10),
        (v4(2), PEER, 9, 10),
        (v4(3), PEER, 0, 400),
        (v4(4), PEER, 0, 100),
        (v4(5), PEER, 0, 900),
    ];
    let (dialled, took, open) = play(&listening, &[v4(1), v4(2), v4(3), v4(4), v4(5)]).await;
    assert_eq!(endpoint(&dialled), Some(&v4(4)));
    assert_eq!(took, Duration::from_millis(10 + 10 + 250 + 100));
    assert_eq!((dialled.failed.clone(), open), (vec![v4(1), v4(2)], 1));
    drop(dialled);
}

#[tokio::test(start_paused = true)]
async fn of_several_dial_failures_the_most_telling_one_is_reported() {
    let (dialled, took, _) = play(&[(v4(2), PEER, 9, 10)], &[v4(1), v4(2), v4(3)]).await;
    assert!(matches!(dialled.result, Err(DialFailure::OtherChain { .. })));
    assert_eq!(dialled.failed, [v4(2), v4(1), v4(3)]);
    assert!(took < Duration::from_secs(6), "{took:?}: not a timeout for each");
    let (dialled, ..) = play(&[], &[v4(1)]).await;
    assert!(matches!(dialled.result, Err(DialFailure::Unreachable { .. })));
    let (dialled, ..) = play(&[], &[]).await;
    assert!(matches!(dialled.result, Err(DialFailure::Unreachable { .. })) && dialled.failed.is_empty());
}
