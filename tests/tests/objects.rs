//! Objects by digest, over TLS and gRPC, through the handle.

use soma_p2p::{
    Builder, FetchError, Genesis, Handle, MemoryObjects, ObjectBytes, ObjectId, ObjectKind, ObjectSource, Status,
    store::DirectoryObjects,
    testing::{Fault, PlannedFaults},
};
use soma_tests::{PATIENCE, TestNode, chain, config, eventually, mem_store, node, start};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const KIND: ObjectKind = ObjectKind::OBJECT;

type Results = BTreeMap<ObjectId, Result<Vec<u8>, FetchError>>;

fn server(number: u8, genesis: &Genesis, source: Arc<dyn ObjectSource>) -> TestNode {
    start(node(number, genesis, mem_store(genesis, &[]), config(&[])).object_source(source))
}

/// A node that serves nothing and knows these peers.
fn client(genesis: &Genesis, peers: &[&TestNode]) -> Builder {
    let handles: Vec<_> = peers.iter().map(|peer| peer.handle()).collect();
    node(99, genesis, mem_store(genesis, &[]), config(&handles.iter().collect::<Vec<_>>()))
}

fn has_peers(peers: usize) -> impl Fn(&Status) -> bool {
    move |status| status.objects.as_ref().is_some_and(|objects| objects.peers == peers)
}

async fn fetch(node: &Handle, kind: ObjectKind, ids: impl IntoIterator<Item = ObjectId>) -> Results {
    fetch_within(node, kind, ids, PATIENCE).await
}

async fn fetch_within(
    node: &Handle,
    kind: ObjectKind,
    ids: impl IntoIterator<Item = ObjectId>,
    within: Duration,
) -> Results {
    let mut stream = node.fetch(kind, ids, within);
    let mut results = Results::new();
    while let Some((id, result)) = stream.next().await {
        assert!(results.insert(id, result.map(|bytes| bytes.to_vec())).is_none(), "each object comes once");
    }
    results
}

#[tokio::test]
async fn objects_of_any_length_arrive_and_what_no_peer_has_is_not_found() {
    let (builder, _) = chain(0);
    let directory = tempfile::tempdir().unwrap();
    let source = DirectoryObjects::new(directory.path());
    let mut contents: Vec<Vec<u8>> = (0..100_u32).map(|number| number.to_le_bytes().repeat(10)).collect();
    contents.extend([Vec::new(), vec![1; 1 << 20], vec![2; (1 << 20) + 1], vec![3; (5 << 20) + 7]]);
    let mut expected: Results =
        contents.into_iter().map(|content| (source.put(KIND, &content).unwrap(), Ok(content))).collect();
    expected.insert(ObjectId::of(&[b"nobody has it"]), Err(FetchError::NotFound { asked: 1 }));
    let server = server(1, builder.genesis(), Arc::new(source));
    let client = start(client(builder.genesis(), &[&server]));
    eventually(&client, "it is connected", has_peers(1)).await;
    let results = fetch(&client, KIND, expected.keys().copied()).await;
    assert!(results == expected, "{} of {} are as they must be", results.len(), expected.len());
    let status = client.status().await.objects.expect("the actor shows itself");
    assert_eq!((status.requests, status.wanted, status.found), (0, 0, expected.len() as u64 - 1));
}

#[tokio::test]
async fn the_one_peer_that_has_an_object_is_found_and_nothing_is_asked_of_it_twice() {
    /// Counts reads of what it has.
    struct Counting(MemoryObjects, AtomicUsize);
    impl ObjectSource for Counting {
        fn read(&self, kind: ObjectKind, id: &ObjectId, from: u64, most: usize) -> io::Result<Option<ObjectBytes>> {
            let read = self.0.read(kind, id, from, most)?;
            self.1.fetch_add(usize::from(read.is_some()), Ordering::Relaxed);
            Ok(read)
        }
    }
    let (builder, _) = chain(0);
    let genesis = builder.genesis();
    let without: Vec<_> = (1..4).map(|number| server(number, genesis, Arc::new(MemoryObjects::default()))).collect();
    let source = Arc::new(Counting(MemoryObjects::default(), AtomicUsize::new(0)));
    let id = source.0.put(KIND, &b"rare"[..]);
    let with = server(4, genesis, source.clone());
    let client = start(client(genesis, &[&without[0], &without[1], &without[2], &with]));
    eventually(&client, "it is connected", has_peers(4)).await;
    let expected = Results::from([(id, Ok(b"rare".to_vec()))]);
    // Several that ask at once get the answer of one call.
    let (first, second) = tokio::join!(fetch(&client, KIND, [id]), fetch(&client, KIND, [id]));
    assert_eq!((first, second), (expected.clone(), expected));
    assert!(source.1.load(Ordering::Relaxed) <= 2, "two requests made more than two reads");
    let kinds = fetch(&client, ObjectKind::TRANSACTION, [id]).await;
    assert_eq!(kinds, Results::from([(id, Err(FetchError::NotFound { asked: 4 }))]), "kinds are kept apart");
}

#[tokio::test]
async fn certificates_are_checked_with_the_committee_of_their_epoch() {
    let (builder, commits) = chain(5);
    let genesis = builder.genesis();
    let blocks = commits.iter().flat_map(|commit| &commit.blocks);
    let certificate = blocks.flat_map(|block| &block.transactions).next().expect("the chain has some");
    let source = MemoryObjects::default();
    let valid = source.put(ObjectKind::CERTIFICATE, certificate.0.clone());
    let mut forged = certificate.0.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = source.put(ObjectKind::CERTIFICATE, forged);
    let nonsense = source.put(ObjectKind::CERTIFICATE, &b"no certificate"[..]);
    let server = server(1, genesis, Arc::new(source));
    let client = start(client(genesis, &[&server]));
    eventually(&client, "it is connected", has_peers(1)).await;
    let results = fetch(&client, ObjectKind::CERTIFICATE, [valid, forged, nonsense]).await;
    assert_eq!(results[&valid], Ok(certificate.0.to_vec()));
    for invalid in [forged, nonsense] {
        assert!(matches!(results[&invalid], Err(FetchError::Invalid { .. })), "{:?}", results[&invalid]);
    }
    // The peer has sent what was asked for: it is not to blame.
    assert_eq!(client.status().await.banned, []);
}

#[tokio::test]
async fn a_peer_without_objects_is_not_asked_again_and_the_deadline_ends_the_wait() {
    let (builder, _) = chain(0);
    let server = start(node(1, builder.genesis(), mem_store(builder.genesis(), &[]), config(&[])));
    let client = start(client(builder.genesis(), &[&server]));
    eventually(&client, "it is connected", has_peers(1)).await;
    let id = ObjectId::of(&[b"any"]);
    let results = fetch_within(&client, KIND, [id], Duration::from_millis(500)).await;
    assert_eq!(results, Results::from([(id, Err(FetchError::Late { asked: 0 }))]));
    let status = eventually(&client, "the peer has no objects", has_peers(0)).await;
    assert_eq!(status.objects.map(|objects| (objects.requests, objects.calls)), Some((0, 0)));
}

#[tokio::test]
async fn an_object_that_does_not_come_is_the_cause_in_the_status() {
    let (builder, commits) = chain(3);
    let genesis = builder.genesis();
    let server = start(node(1, genesis, mem_store(genesis, &commits), config(&[])));
    let client = start(client(genesis, &[&server]));
    eventually(&client, "it has synced", |status| status.cause.as_deref() == Some("synced") && status.height == 3)
        .await;
    let id = ObjectId::of(&[b"nobody has it"]);
    let fetched = client.fetch(KIND, [id], PATIENCE);
    let status =
        eventually(&client, "the status names it", |status| status.cause.as_deref() == Some("objects-missing")).await;
    let text = &status.explanation;
    assert!(text.contains(&format!("object {id}")) && text.contains("no connected peer has objects"), "{text}");
    assert!(status.is_ready(), "it serves and syncs all the same");
    drop(fetched);
    eventually(&client, "nothing is wanted", |status| status.cause.as_deref() == Some("synced")).await;
}

#[tokio::test]
async fn a_restart_of_the_actor_costs_no_answer() {
    let (builder, _) = chain(0);
    let source = MemoryObjects::default();
    let expected: Results = (0..3_000_u32)
        .map(|number| number.to_le_bytes().to_vec())
        .map(|content| (source.put(KIND, content.clone()), Ok(content)))
        .collect();
    let server = server(1, builder.genesis(), Arc::new(source));
    let due = Arc::new(AtomicBool::new(true));
    let panics = due.clone();
    let faults: PlannedFaults = Arc::new(move |actor, input| {
        let now =
            actor == "objects" && format!("{input:?}").starts_with("Arrived") && panics.swap(false, Ordering::Relaxed);
        now.then(|| Fault::Panic("on purpose".into()))
    });
    let client = start(client(builder.genesis(), &[&server]).faults(faults));
    eventually(&client, "it is connected", has_peers(1)).await;
    let results = fetch(&client, KIND, expected.keys().copied()).await;
    assert!(results == expected, "{} of {} are as they must be", results.len(), expected.len());
    assert!(!due.load(Ordering::Relaxed), "the actor was restarted");
}

#[tokio::test]
async fn a_dropped_stream_ends_its_calls() {
    /// Lets nothing be read before the test ends.
    struct Blocked(AtomicBool);
    impl ObjectSource for Blocked {
        fn read(&self, _: ObjectKind, _: &ObjectId, _: u64, _: usize) -> io::Result<Option<ObjectBytes>> {
            while !self.0.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(None)
        }
    }
    let (builder, _) = chain(0);
    let source = Arc::new(Blocked(AtomicBool::new(false)));
    let server = server(1, builder.genesis(), source.clone());
    let client = start(client(builder.genesis(), &[&server]));
    eventually(&client, "it is connected", has_peers(1)).await;
    let stream = client.fetch(KIND, [ObjectId::of(&[b"any"])], PATIENCE);
    let calls = |calls| move |status: &Status| status.objects.as_ref().is_some_and(|objects| objects.calls == calls);
    eventually(&client, "a call is under way", calls(1)).await;
    drop(stream);
    eventually(&client, "the call has ended", calls(0)).await;
    source.0.store(true, Ordering::Relaxed);
}
