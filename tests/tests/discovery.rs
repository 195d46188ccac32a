//! Finding peers again: real TLS, and the address book on a real disk.

use soma_p2p::{
    Address, FjallStore, Genesis, Handle, PeerId, PeerList, Store,
    testing::{Clock, LocalResources, RuntimeContext},
};
use soma_tests::{chain, config, eventually, key, mem_store, node, seed_peer, start};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{sync::watch, task::LocalSet};

fn store(dir: &Path, genesis: &Genesis) -> Arc<FjallStore> {
    Arc::new(FjallStore::open(&dir.join("store"), genesis).unwrap())
}

/// Whether the address book on disk has the peer.
fn is_stored(store: &FjallStore, peer: PeerId) -> bool {
    store.peers(PeerList::Infos).unwrap().iter().any(|(stored, _)| *stored == peer)
}

/// Runs a node that knows one seed, until it has a link to the other peer and the book on its disk has it; then the
/// node is gone as if its process had been killed: nothing of it runs any more, and nothing was stopped in order.
async fn learn_and_die(dir: &Path, genesis: &Genesis, seed: &Handle, other: PeerId) {
    let runtime_context = RuntimeContext::new(Clock::system());
    let (_disk, disk_time) = watch::channel(Duration::ZERO);
    let store = store(dir, genesis);
    let builder = soma_tests::node_with_key(key(3), genesis, store.clone(), config(&[seed]));
    let on_this_thread = LocalSet::new();
    let lives = async {
        let system =
            builder.start_local(LocalResources { runtime_context, disk_time, check_threads: None }).await.unwrap();
        let node = system.handle();
        let linked = move |status: &soma_p2p::Status| {
            let mut links = status.peers.iter().filter(|peer| peer.outbound);
            links.any(|peer| peer.peer_id == other) && is_stored(&store, other)
        };
        eventually(&node, "it has learned of the other and noted it", linked).await;
    };
    on_this_thread.run_until(lives).await;
}

#[tokio::test]
async fn killed_node_rejoins_from_its_address_book_when_all_seeds_are_dead() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let dir = tempfile::tempdir().unwrap();
    let seed = start(node(1, genesis, mem_store(genesis, &[]), config(&[])));
    let other = start(node(2, genesis, mem_store(genesis, &[]), config(&[&seed])));
    learn_and_die(dir.path(), genesis, &seed, other.peer_id()).await;
    // With the only seed that it knows, dead by now; and on another port, so that nobody else can dial it.
    let settings = config(&[&seed]);
    seed.stop().await;
    let again = start(node(3, genesis, store(dir.path(), genesis), settings));
    let linked = |status: &soma_p2p::Status| {
        let link = status.peers.iter().find(|peer| peer.outbound).map(|peer| peer.peer_id);
        link == Some(other.peer_id())
    };
    let status = eventually(&again, "it has dialled whom its book has", linked).await;
    assert_eq!(status.network_trouble, None);
}

/// On Linux the whole of 127.0.0.0/8 is this machine: here, each of its addresses is a network.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn node_on_all_interfaces_announces_the_address_three_networks_observe() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let listening_on = |ip: [u8; 4]| {
        let mut settings = config(&[]);
        settings.listen = SocketAddr::from((ip, 0)).into();
        settings
    };
    let at = |number: u8| start(node(number, genesis, mem_store(genesis, &[]), listening_on([127, 0, 0, number])));
    let witnesses = [11, 12, 13].map(at);
    let seed_peers = witnesses.iter().map(|witness| seed_peer(witness)).collect();
    let mut settings = listening_on([0, 0, 0, 0]);
    settings.seed_peers = seed_peers;
    let everywhere = start(node(2, genesis, mem_store(genesis, &[]), settings));
    let (_, port) = everywhere.address().host_and_port();
    let seen = Address::try_from(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let tells =
        |status: &soma_p2p::Status| status.discovery.as_ref().is_some_and(|said| said.addresses == [seen.clone()]);
    eventually(&everywhere, "it has learned its address", tells).await;
    for witness in &witnesses {
        let dials = |status: &soma_p2p::Status| {
            status.peers.iter().any(|peer| peer.outbound && peer.peer_id == everywhere.peer_id())
        };
        eventually(witness, "it has dialled the node there", dials).await;
    }
}
