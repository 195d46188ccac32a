//! Peers that answer calls for objects with lies, floods and silence, over TLS, beside one that is honest.

use soma_p2p::{MemoryObjects, ObjectId, ObjectKind, PeerId, Status};
use soma_testkit::hostile::{Consequence, ObjectMischief, Server};
use soma_tests::{PATIENCE, chain, config, eventually, key, mem_store, node, seed_peer, start};
use std::{collections::BTreeMap, sync::Arc};

const KIND: ObjectKind = ObjectKind::OBJECT;
const HONEST: u8 = 1;
const VICTIM: u8 = 2;
const HOSTILE: u8 = 100;

/// Short objects and a long one.
fn objects() -> (Arc<MemoryObjects>, BTreeMap<ObjectId, Vec<u8>>) {
    let source = MemoryObjects::default();
    let contents = [b"first".to_vec(), b"second".to_vec(), b"third".to_vec(), vec![4; (2 << 20) + 3]];
    let expected = contents.map(|content| (source.put(KIND, content.clone()), content));
    (Arc::new(source), expected.into())
}

/// Asks the hostile peer first. Every object arrives, and the peer pays for what it did.
async fn arrives_all_the_same(mischief: ObjectMischief) {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let (source, expected) = objects();
    let honest = start(node(HONEST, genesis, mem_store(genesis, &[]), config(&[])).object_source(source.clone()));
    let hostile_id = PeerId::from(&key(HOSTILE));
    let hostile = Server::start_with_objects(mischief, &key(HOSTILE), genesis, source).await;
    let mut settings = config(&[]);
    settings.seed_peers = vec![seed_peer(&honest.handle()), hostile.seed_peer()];
    let victim = start(node(VICTIM, genesis, mem_store(genesis, &[]), settings));
    let has_both = |status: &Status| status.objects.as_ref().is_some_and(|objects| objects.peers == 2);
    eventually(&victim, "it is connected to both", has_both).await;
    let mut stream = victim.fetch_first_from(hostile_id, KIND, expected.keys().copied(), PATIENCE);
    let mut arrived = BTreeMap::new();
    while let Some((id, result)) = stream.next().await {
        arrived.insert(id, result.unwrap_or_else(|error| panic!("{mischief:?}: {id}: {error}")).to_vec());
    }
    assert!(arrived == expected, "{mischief:?}: every object is what it must be");
    match mischief.consequence() {
        Consequence::Banned => {
            eventually(&victim, &format!("{mischief:?}: it is banned"), |status| status.is_banned(hostile_id)).await;
        }
        Consequence::Doubted | Consequence::NotConnected | Consequence::WithoutEffect => {
            let status = victim.status().await;
            assert_eq!(status.banned, [], "{mischief:?}: nothing is proved");
            let objects = status.objects.expect("the actor shows itself");
            assert_eq!((objects.requests, objects.wanted), (0, 0), "{mischief:?}: nothing is left");
        }
    }
    assert!(!victim.status().await.is_banned(honest.peer_id()), "honest peers never pay");
}

#[tokio::test]
async fn lies_about_objects_ban_the_peer_and_every_object_arrives() {
    let all = ObjectMischief::ALL.into_iter();
    for mischief in all.filter(|mischief| mischief.consequence() == Consequence::Banned) {
        arrives_all_the_same(mischief).await;
    }
}

#[tokio::test]
async fn silence_and_failures_about_objects_delay_no_object_for_long() {
    let all = ObjectMischief::ALL.into_iter();
    for mischief in all.filter(|mischief| mischief.consequence() != Consequence::Banned) {
        arrives_all_the_same(mischief).await;
    }
}
