//! Hostile peers over real TLS, beside one that is honest: the sync goes on, the hostile ones pay as far as anything is
//! proved, the honest one does not.

mod epochs;
mod frames;
mod raw;
mod silent;

use raw::{RawServer, is_raw};
use soma_network::{TlsTransport, Transport};
use soma_p2p::{CertifiedCommit, Config, Genesis, Handle, PeerId, PeerStatus, SeedPeer, Status};
use soma_testkit::hostile::{Behaviour, Consequence, Server, Victim, attack};
use soma_tests::{TestNode, chain, config, eventually, expect_commits, key, mem_store, node, start};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinHandle;

/// Key of the first hostile peer; the others follow.
pub(crate) const HOSTILE: u8 = 100;

/// Keys of the victim and of the honest peer.
pub(crate) const VICTIM: u8 = 2;
pub(crate) const HONEST: u8 = 1;

/// Identities of those who connect under one after the other: more than are let in.
const IDENTITIES: u64 = 150;

/// A hostile peer that runs, and what it does of its own accord.
pub(crate) enum Hostile {
    Typed(Server),
    Raw(RawServer),
}

impl Hostile {
    async fn start(behaviour: Behaviour, number: u8, genesis: &Genesis, commits: &[CertifiedCommit]) -> Self {
        let key = key(HOSTILE + number);
        match is_raw(behaviour) {
            true => Self::Raw(RawServer::start(behaviour, &key, genesis, commits.len() as u32).await),
            false => Self::Typed(Server::start(behaviour, &key, genesis, commits, number.into()).await),
        }
    }

    pub(crate) fn seed_peer(&self) -> SeedPeer {
        match self {
            Self::Typed(server) => server.seed_peer(),
            Self::Raw(server) => server.seed_peer(),
        }
    }

    fn acts(&self) -> u64 {
        match self {
            Self::Typed(server) => server.acts(),
            Self::Raw(_) => 0,
        }
    }
}

/// An attack that ends when it is dropped.
struct Attack(JoinHandle<()>);

impl Drop for Attack {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn begin_attack(behaviour: Behaviour, number: u8, victim: &Handle, identities: u64) -> Option<Attack> {
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let (peer, chain) = (victim.peer_id(), victim.chain_id());
    let victim = Victim { peer, address: victim.address().clone(), chain, now_ms };
    let own = key(HOSTILE + number);
    let identity = move |identity: u64| -> Arc<dyn Transport> {
        let mut bytes = key(HOSTILE + number).to_bytes();
        bytes[..8].copy_from_slice(&identity.to_le_bytes());
        let key = if identity == 0 { key(HOSTILE + number) } else { soma_p2p::SigningKey::from_bytes(&bytes) };
        Arc::new(TlsTransport::new(&key).unwrap())
    };
    let attacking = attack(behaviour, victim, own, identity, identities, number.into());
    behaviour.attacks().then(|| Attack(tokio::spawn(attacking)))
}

/// Settings of a node that is to find out soon.
pub(crate) fn settings() -> Config {
    let mut settings = config(&[]);
    settings.state_sync.commits_per_fetch = 6;
    settings.state_sync.request_timeout = Duration::from_secs(2);
    settings
}

/// A node with nothing that knows these peers.
pub(crate) fn victim(genesis: &Genesis, has: &[CertifiedCommit], seeds: Vec<SeedPeer>) -> TestNode {
    let mut settings = settings();
    settings.seed_peers = seeds;
    start(node(VICTIM, genesis, mem_store(genesis, has), settings))
}

/// Lets an honest node turn up beside the others; the victim gets all of `expected` and has nothing against it.
/// Answers the victim's status then.
pub(crate) async fn goes_on(
    victim: &Handle,
    genesis: &Genesis,
    commits: &[CertifiedCommit],
    expected: &[CertifiedCommit],
) -> Status {
    let honest = start(node(HONEST, genesis, mem_store(genesis, commits), config(&[victim])));
    expect_commits(victim, expected).await;
    let connected = |status: &Status| serving(status, honest.peer_id()).is_some();
    let status = eventually(victim, "connected to the honest peer", connected).await;
    assert_eq!(serving(&status, honest.peer_id()).unwrap().score, 100, "honest peers never pay");
    status
}

pub(crate) fn serving(status: &Status, peer: PeerId) -> Option<&soma_p2p::PeerSnapshot> {
    let peer: Option<&PeerStatus> = status.peers.iter().find(|found| found.peer_id == peer);
    peer.and_then(|peer| peer.serving.as_ref())
}

pub(crate) fn hostile_id(number: u8) -> PeerId {
    PeerId::from(&key(HOSTILE + number))
}

pub(crate) fn is_banned(status: &Status) -> bool {
    matches!(&status.banned[..], [ban] if ban.peer == hostile_id(0))
}

/// It was asked, and failed in a way that proves nothing; or its claims, all there are, are not believed any more,
/// which may outlast its failures.
pub(crate) fn is_doubted(status: &Status) -> bool {
    let has_failed = serving(status, hostile_id(0)).is_some_and(|serving| serving.failures > 0);
    has_failed || status.cause.as_deref() == Some("claims-unproven")
}

/// Some peer has opened a stream of messages.
fn has_stream(status: &Status) -> bool {
    status.broadcast.as_ref().is_some_and(|broadcast| broadcast.topics.values().any(|topic| topic.peers > 0))
}

/// A node that knows one hostile peer only finds it out as it must; then an honest one turns up, and the sync goes on.
async fn pays_as_it_must(behaviour: Behaviour) {
    // Long enough that every range cannot be one of a single commit, or end with its epoch.
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let hostile = Hostile::start(behaviour, 0, genesis, &commits).await;
    let victim = victim(genesis, &[], vec![hostile.seed_peer()]);
    let _attack = begin_attack(behaviour, 0, &victim, IDENTITIES);
    let consequence = behaviour.consequence();
    let refused = |status: &Status| match behaviour {
        Behaviour::HasOtherKey => status.explanation.contains("another key than the dialled one"),
        Behaviour::IsOnOtherChain => status.explanation.contains("another chain"),
        _ => hostile.acts() > 1,
    };
    eventually(&victim, &format!("{behaviour} is noticed"), |status| match consequence {
        Consequence::Banned => is_banned(status),
        Consequence::Doubted => is_doubted(status),
        Consequence::NotConnected => refused(status),
        Consequence::WithoutEffect if behaviour.sends_messages() => has_stream(status),
        Consequence::WithoutEffect => hostile.acts() > 0,
    })
    .await;

    let status = goes_on(&victim, genesis, &commits, &commits).await;
    match consequence {
        Consequence::Banned => assert!(is_banned(&status), "{behaviour}: {:?}", status.banned),
        _ => assert_eq!(status.banned, [], "{behaviour}: no proof, no ban"),
    }
    if consequence == Consequence::WithoutEffect {
        let known = status.discovery.as_ref().map_or(0, |discovery| discovery.known);
        assert!(known <= 2_000, "{behaviour}: {known} peers in the book");
        let score = serving(&status, hostile_id(0)).map_or(100, |serving| serving.score);
        assert_eq!(score, 100, "{behaviour}: it serves as well as any");
    }
}

async fn all_pay_as_they_must(consequence: Consequence) {
    let chosen = Behaviour::ALL.into_iter().filter(|behaviour| behaviour.consequence() == consequence);
    // Those who take all places for callers have a test of their own: here the honest peer would find none.
    for behaviour in chosen.filter(|behaviour| *behaviour != Behaviour::ConnectsAndIdles) {
        println!("{behaviour}");
        pays_as_it_must(behaviour).await;
    }
}

#[tokio::test]
async fn provably_hostile_peers_are_banned_and_the_sync_continues() {
    all_pay_as_they_must(Consequence::Banned).await;
}

#[tokio::test]
async fn peers_that_fail_to_serve_are_penalised_and_the_sync_continues() {
    all_pay_as_they_must(Consequence::Doubted).await;
}

#[tokio::test]
async fn peers_that_cannot_be_connected_to_are_told_of_and_the_sync_goes_on() {
    all_pay_as_they_must(Consequence::NotConnected).await;
}

#[tokio::test]
async fn what_peers_do_beside_serving_has_no_effect_on_a_sync() {
    all_pay_as_they_must(Consequence::WithoutEffect).await;
}

#[tokio::test]
async fn a_thousand_idle_connections_stay_within_the_inbound_limit() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let honest = start(node(HONEST, genesis, mem_store(genesis, &commits), config(&[])));
    let victim = victim(genesis, &[], vec![soma_tests::seed_peer(&honest)]);
    let _attack = begin_attack(Behaviour::ConnectsAndIdles, 0, &victim, 1_000);
    let max_inbound = config(&[]).connections.max_inbound;
    let inbound = |status: &Status| status.peers.iter().filter(|peer| peer.inbound).count();
    eventually(&victim, "all places are taken", |status| inbound(status) == max_inbound).await;
    expect_commits(&victim, &commits).await;
    let status = victim.status().await;
    assert!(inbound(&status) <= max_inbound);
    assert_eq!(serving(&status, honest.peer_id()).unwrap().score, 100);
    assert!(status.is_ready());
}

/// Looks at a node again and again, until it is dropped: what it holds is within its budget.
fn watch(node: &Handle, limits: Config) -> Attack {
    let node = node.clone();
    Attack(tokio::spawn(async move {
        loop {
            let status = node.status().await;
            expect_within(&status, &limits);
            tokio::task::yield_now().await;
        }
    }))
}

fn expect_within(status: &Status, limits: &Config) {
    let (sync, connections) = (&limits.state_sync, &limits.connections);
    if let Some(snapshot) = &status.state_sync {
        assert!(snapshot.bytes_in_flight <= sync.bytes_in_flight, "{} bytes in flight", snapshot.bytes_in_flight);
        assert!(
            snapshot.workers <= soma_protocol::state_sync::most_workers(sync.max_workers),
            "{} workers",
            snapshot.workers
        );
    }
    if let Some(snapshot) = &status.serving {
        assert!(snapshot.active <= limits.serving.max_calls, "{} calls", snapshot.active);
    }
    let count = |chosen: fn(&PeerStatus) -> bool| status.peers.iter().filter(|peer| chosen(peer)).count();
    assert!(count(|peer| peer.outbound) <= connections.max_outbound);
    assert!(count(|peer| peer.inbound) <= connections.max_inbound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_honest_peer_among_nine_hostile_suffices_over_tls() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let honest = start(node(HONEST, genesis, mem_store(genesis, &commits), config(&[])));
    for behaviours in Behaviour::ALL.chunks(9) {
        let mut peers = Vec::new();
        for (number, behaviour) in (0..).zip(behaviours) {
            peers.push(Hostile::start(*behaviour, number, genesis, &commits).await);
        }
        let mut seeds: Vec<_> = peers.iter().map(Hostile::seed_peer).collect();
        seeds.push(soma_tests::seed_peer(&honest));
        let victim = victim(genesis, &[], seeds);
        let watching = watch(&victim, settings());
        let attacks = (0..).zip(behaviours);
        let _attacks: Vec<_> =
            attacks.filter_map(|(number, behaviour)| begin_attack(*behaviour, number, &victim, IDENTITIES)).collect();
        expect_commits(&victim, &commits).await;
        let connected = |status: &Status| serving(status, honest.peer_id()).is_some();
        let status = eventually(&victim, "connected to the honest peer", connected).await;
        assert_eq!(serving(&status, honest.peer_id()).unwrap().score, 100, "{behaviours:?}");
        assert!(!status.is_banned(honest.peer_id()), "{behaviours:?}");
        assert!(!watching.0.is_finished(), "{behaviours:?}: over its budget");
    }
}
