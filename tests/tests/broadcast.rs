//! Messages that spread among nodes, over TLS and gRPC, through the handle.

use soma_p2p::{
    Author, Builder, Genesis, Message, MessageEvent, MessageId, MessageValidator, MessageVerdict, Messages,
    PublishError, SignedMessage, SigningKey, Status, Topic,
    testing::{Fault, PlannedFaults},
};
use soma_testkit::ChainBuilder;
use soma_tests::{PATIENCE, TestNode, chain, config, eventually, mem_store, node, node_with_key, seed_peer, start};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::time::timeout;

/// Judges by the first byte of the payload.
struct ByFirstByte;

const IGNORED: u8 = b'i';
const REJECTED: u8 = b'r';
const PANICS: u8 = b'p';
const PROPOSAL: u8 = b's';

impl MessageValidator for ByFirstByte {
    fn validate(&self, message: &SignedMessage) -> MessageVerdict {
        match message.message().payload.first() {
            Some(&IGNORED) => MessageVerdict::Ignore,
            Some(&REJECTED) => MessageVerdict::Reject,
            Some(&PANICS) => panic!("the validator has a bug"),
            Some(&PROPOSAL) => {
                MessageVerdict::Accept { slot: message.message().payload.get(1).copied().map(u64::from) }
            }
            _ => MessageVerdict::Accept { slot: None },
        }
    }
}

fn full_node(number: u8, genesis: &Genesis, seeds: &[&TestNode]) -> Builder {
    let seeds: Vec<_> = seeds.iter().map(|seed| &***seed).collect();
    let handles: Vec<_> = seeds.iter().map(|seed| seed.handle()).collect();
    let handles: Vec<_> = handles.iter().collect();
    node(number, genesis, mem_store(genesis, &[]), config(&handles)).message_validator(Arc::new(ByFirstByte))
}

fn validator(builder: &ChainBuilder, authority: u32, seeds: &[&TestNode]) -> Builder {
    let genesis = builder.genesis();
    let handles: Vec<_> = seeds.iter().map(|seed| seed.handle()).collect();
    let handles: Vec<_> = handles.iter().collect();
    node_with_key(builder.network_key(authority), genesis, mem_store(genesis, &[]), config(&handles))
        .protocol_key(builder.protocol_key(0, authority))
        .message_validator(Arc::new(ByFirstByte))
        .seed(u64::from(authority))
}

/// Whether the node has a stream of the topic to so many peers.
fn has_streams(topic: Topic, peers: usize) -> impl Fn(&Status) -> bool {
    move |status| {
        let topics = status.broadcast.as_ref().map(|broadcast| &broadcast.topics);
        topics.and_then(|topics| topics.get(&topic)).is_some_and(|topic| topic.peers == peers)
    }
}

async fn next(messages: &mut Messages) -> MessageEvent {
    timeout(PATIENCE, messages.next()).await.expect("a message in time").expect("the stream goes on")
}

/// The payload of the next message.
async fn next_payload(messages: &mut Messages) -> Vec<u8> {
    match next(messages).await {
        MessageEvent::Message(message) => message.message().payload.to_vec(),
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn message_reaches_every_node_once_with_its_author() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let first = start(full_node(1, genesis, &[]));
    let second = start(full_node(2, genesis, &[&first]));
    // It knows the second node only, and so does not hear the first one directly.
    let third = start(full_node(3, genesis, &[&second]));
    eventually(&first, "it has a stream", has_streams(Topic::Transactions, 2)).await;
    eventually(&third, "it has a stream", has_streams(Topic::Transactions, 2)).await;
    let mut readers = [second.messages(Topic::Transactions), third.messages(Topic::Transactions)];
    for reader in &mut readers {
        // Both are in use once a first message has come.
        let _ = reader;
    }
    let ids: Vec<MessageId> = publish_until_heard(&first, &mut readers).await;
    for number in 0..100_u32 {
        let id = first.publish(Topic::Transactions, number.to_le_bytes().to_vec()).await.unwrap();
        for reader in &mut readers {
            let MessageEvent::Message(message) = next(reader).await else { panic!("a message") };
            assert_eq!((message.id(), message.message().author), (id, Author::Peer(first.peer_id())));
            assert!(!ids.contains(&message.id()));
        }
    }
}

/// Publishes until every reader is in use, and reads what came.
async fn publish_until_heard(publisher: &TestNode, readers: &mut [Messages]) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for (attempt, reader) in readers.iter_mut().enumerate() {
        loop {
            let payload = format!("first {attempt} {}", ids.len()).into_bytes();
            ids.push(publisher.publish(Topic::Transactions, payload).await.unwrap());
            if timeout(Duration::from_millis(500), reader.next()).await.is_ok() {
                break;
            }
        }
    }
    // Whatever is still on the way comes before what is published next.
    let last = publisher.publish(Topic::Transactions, b"last".to_vec()).await.unwrap();
    for reader in readers {
        loop {
            let MessageEvent::Message(message) = next(reader).await else { panic!("a message") };
            if message.id() == last {
                break;
            }
        }
    }
    ids
}

#[tokio::test]
async fn consensus_messages_go_to_validators_only() {
    let (builder, _) = chain(0);
    let first = start(validator(&builder, 0, &[]));
    let second = start(validator(&builder, 1, &[&first]));
    let outsider = start(full_node(9, builder.genesis(), &[&first, &second]));
    eventually(&outsider, "it has streams", has_streams(Topic::Certificates, 2)).await;
    eventually(&first, "it has streams", has_streams(Topic::Consensus, 2)).await;
    let (mut heard, mut by_outsider) = (second.messages(Topic::Consensus), outsider.messages(Topic::Consensus));
    let mut certificates = outsider.messages(Topic::Certificates);
    let mut number = 0_u8;
    // The readers are in use when a first message has come.
    let first_heard = loop {
        number += 1;
        first.publish(Topic::Consensus, vec![number]).await.unwrap();
        if let Ok(Some(MessageEvent::Message(message))) = timeout(Duration::from_millis(500), heard.next()).await {
            break message;
        }
    };
    assert_eq!(first_heard.message().author, Author::Authority(0));
    loop {
        first.publish(Topic::Certificates, vec![number]).await.unwrap();
        number += 1;
        if timeout(Duration::from_millis(500), certificates.next()).await.is_ok() {
            break;
        }
    }
    assert!(timeout(Duration::from_millis(10), by_outsider.next()).await.is_err(), "it is no validator");
    let refused = outsider.publish(Topic::Consensus, b"mine".to_vec()).await;
    assert_eq!(refused, Err(PublishError::NotValidator { epoch: 0 }));
}

#[tokio::test]
async fn message_with_a_wrong_signature_bans_the_peer_that_sent_it() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let honest = start(full_node(1, genesis, &[]));
    let liar = start(full_node(2, genesis, &[&honest]));
    eventually(&honest, "they have a stream", has_streams(Topic::Transactions, 1)).await;
    let author = Author::Peer(honest.peer_id());
    let message = Message { topic: Topic::Transactions, epoch: 0, author, payload: b"forged".to_vec().into() };
    let forged = message.sign(genesis.chain_id(), &SigningKey::from_bytes(&[77; 32]));
    liar.publish_signed(vec![forged]).await.unwrap();
    let status = eventually(&honest, "the liar is banned", |status| !status.banned.is_empty()).await;
    assert!(status.is_banned(liar.peer_id()));
    assert_eq!(status.banned.len(), 1);
    assert_eq!(status.broadcast.unwrap().topics[&Topic::Transactions].delivered, 0);
}

#[tokio::test]
async fn ignored_message_costs_nobody_and_goes_no_further() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let first = start(full_node(1, genesis, &[]));
    let second = start(full_node(2, genesis, &[&first]));
    eventually(&first, "it has a stream", has_streams(Topic::Transactions, 1)).await;
    first.publish(Topic::Transactions, vec![IGNORED]).await.unwrap();
    let ignored =
        |status: &Status| status.broadcast.as_ref().is_some_and(|it| it.topics[&Topic::Transactions].ignored == 1);
    let status = eventually(&second, "it has ignored the message", ignored).await;
    assert!(status.banned.is_empty());
    assert_eq!(status.broadcast.unwrap().topics[&Topic::Transactions].delivered, 0);
}

#[tokio::test]
async fn validator_that_panics_costs_one_message() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let first = start(full_node(1, genesis, &[]));
    let second = start(full_node(2, genesis, &[&first]));
    eventually(&first, "it has a stream", has_streams(Topic::Transactions, 1)).await;
    let mut readers = [second.messages(Topic::Transactions)];
    publish_until_heard(&first, &mut readers).await;
    first.publish(Topic::Transactions, vec![PANICS]).await.unwrap();
    first.publish(Topic::Transactions, b"after".to_vec()).await.unwrap();
    assert_eq!(next_payload(&mut readers[0]).await, b"after");
    let status = second.status().await;
    assert_eq!(status.tree.find("verifier").unwrap().restarts, 0);
    assert!(status.banned.is_empty());
}

/// Blocks at every transaction until it is released.
struct Blocks(std::sync::Mutex<mpsc::Receiver<()>>);

impl MessageValidator for Blocks {
    fn validate(&self, message: &SignedMessage) -> MessageVerdict {
        if message.message().topic == Topic::Transactions {
            // The error is that the sender was dropped.
            let _ = self.0.lock().unwrap().recv();
        }
        MessageVerdict::Accept { slot: None }
    }
}

#[tokio::test]
async fn slow_validator_of_one_topic_delays_neither_another_topic_nor_a_sync() {
    let (builder, commits) = chain(60);
    let genesis = builder.genesis();
    let (release, released) = mpsc::channel::<()>();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let slow = Blocks(std::sync::Mutex::new(released));
    let client = full_node(2, genesis, &[]).message_validator(Arc::new(slow));
    let client = start(client);
    client.add_seed(seed_peer(&server)).await.unwrap();
    eventually(&server, "it has a stream", has_streams(Topic::Certificates, 1)).await;
    let synced = soma_tests::expect_commits(&client, &commits);
    for number in 0..50_u8 {
        server.publish(Topic::Transactions, vec![number]).await.unwrap();
    }
    synced.await;
    let mut certificates = client.messages(Topic::Certificates);
    let mut number = 0_u8;
    loop {
        server.publish(Topic::Certificates, vec![number]).await.unwrap();
        number += 1;
        if timeout(Duration::from_millis(500), certificates.next()).await.is_ok() {
            break;
        }
    }
    drop(release);
}

#[tokio::test]
async fn author_that_fills_a_slot_twice_is_reported_once_with_both_messages() {
    let (builder, _) = chain(0);
    let first = start(validator(&builder, 0, &[]));
    let second = start(validator(&builder, 1, &[&first]));
    eventually(&first, "it has a stream", has_streams(Topic::Consensus, 1)).await;
    let mut heard = second.messages(Topic::Consensus);
    let mut number = 0_u8;
    loop {
        first.publish(Topic::Consensus, vec![b'x', number]).await.unwrap();
        number += 1;
        if timeout(Duration::from_millis(500), heard.next()).await.is_ok() {
            break;
        }
    }
    for payload in [[PROPOSAL, 7, 1], [PROPOSAL, 7, 2], [PROPOSAL, 7, 3], [PROPOSAL, 8, 1]] {
        first.publish(Topic::Consensus, payload.to_vec()).await.unwrap();
    }
    let mut events = Vec::new();
    while events.len() < 3 {
        match next(&mut heard).await {
            MessageEvent::Message(message) if message.message().payload[0] == b'x' => {}
            event => events.push(event),
        }
    }
    let payload = |message: &SignedMessage| message.message().payload.to_vec();
    // Messages of one check come before what they show.
    let (mut delivered, mut reported) = (Vec::new(), Vec::new());
    for event in &events {
        match event {
            MessageEvent::Message(message) => delivered.push(payload(message)),
            MessageEvent::Equivocation { first: Some(first), second } => {
                reported.push([payload(first), payload(second)]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, [[PROPOSAL, 7, 1], [PROPOSAL, 8, 1]]);
    assert_eq!(reported, [[[PROPOSAL, 7, 1], [PROPOSAL, 7, 2]]]);
    assert_eq!(second.status().await.broadcast.unwrap().equivocations, 1);
}

#[tokio::test]
async fn messages_published_during_a_short_outage_arrive_after_it() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let first = start(full_node(1, genesis, &[]));
    let second = start(full_node(2, genesis, &[&first]));
    eventually(&first, "it has a stream", has_streams(Topic::Transactions, 1)).await;
    let mut readers = [second.messages(Topic::Transactions)];
    publish_until_heard(&first, &mut readers).await;
    second.disconnect_peer(first.peer_id()).await.unwrap();
    first.disconnect_peer(second.peer_id()).await.unwrap();
    let mut published = Vec::new();
    for number in 0..50_u8 {
        published.push(first.publish(Topic::Transactions, vec![number]).await.unwrap());
    }
    let mut arrived = Vec::new();
    while arrived.len() < published.len() {
        let MessageEvent::Message(message) = next(&mut readers[0]).await else { panic!("a message") };
        arrived.push(message.id());
    }
    arrived.sort();
    published.sort();
    assert_eq!(arrived, published);
}

#[tokio::test]
async fn reader_learns_of_a_gap_when_broadcast_is_restarted_and_messages_go_on() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let first = start(full_node(1, genesis, &[]));
    let panics = Arc::new(AtomicBool::new(false));
    let due = panics.clone();
    let faults: PlannedFaults = Arc::new(move |actor, input| {
        let now =
            actor == "broadcast" && format!("{input:?}").starts_with("Received") && due.swap(false, Ordering::Relaxed);
        now.then(|| Fault::Panic("on purpose".into()))
    });
    let second = start(full_node(2, genesis, &[&first]).faults(faults));
    eventually(&first, "it has a stream", has_streams(Topic::Transactions, 1)).await;
    let mut readers = [second.messages(Topic::Transactions)];
    publish_until_heard(&first, &mut readers).await;
    panics.store(true, Ordering::Relaxed);
    first.publish(Topic::Transactions, b"kills it".to_vec()).await.unwrap();
    assert_eq!(next(&mut readers[0]).await, MessageEvent::Gap { missed: 0 });
    // The peer offers the ids of the last seconds on the new stream.
    while next_payload(&mut readers[0]).await != b"kills it" {}
}

#[tokio::test]
async fn node_that_spreads_no_messages_still_syncs() {
    let (builder, commits) = chain(40);
    let genesis = builder.genesis();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let mut settings = config(&[&server]);
    settings.broadcast.enabled = false;
    let client = start(node(2, genesis, mem_store(genesis, &[]), settings));
    soma_tests::expect_commits(&client, &commits).await;
    assert_eq!(client.publish(Topic::Transactions, b"mine".to_vec()).await, Err(PublishError::Disabled));
    let status = client.status().await;
    assert!(status.broadcast.is_none() && status.is_alive());
    let other = server.status().await;
    assert!(other.banned.is_empty());
}

#[tokio::test]
async fn message_that_is_too_large_is_refused_with_the_limit() {
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let alone = start(full_node(1, genesis, &[]));
    let limit = 256 << 10;
    let refused = alone.publish(Topic::Transactions, vec![0; limit + 1]).await;
    assert_eq!(refused, Err(PublishError::TooLarge { topic: Topic::Transactions, bytes: limit + 1, limit }));
}
