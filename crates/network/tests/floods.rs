//! Attackers over real TLS: they do not read their responses, flood a connection with frames, or open silent sockets.
//! Each takes a bounded part of the listener for a bounded time, and other peers are served meanwhile.

#![cfg(feature = "tls")]

mod support;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use rustls::pki_types::ServerName;
use soma_network::wire::{
    CommitRange, FetchedCommits,
    proto::{BlockRef, FetchBlocksRequest, FetchCommitsRequest},
};
use soma_network::{Inbound, Link, TlsTransport, Transport};
use std::{sync::Arc, time::Duration};
use support::{tls::*, *};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const LISTENER: u8 = 2;
const HONEST: u8 = 3;

/// Time in which a response must be read in these tests.
const ANSWER_TIME: Duration = Duration::from_secs(3);

const MIB: usize = 1 << 20;

/// A listener that sends 8 MiB for each request for commits.
async fn listener(unread: usize) -> Node {
    let transport = TlsTransport::new(&key(LISTENER)).unwrap().with_answer_time(ANSWER_TIME).with_unread_bytes(unread);
    let part = Bytes::from(vec![7; MIB]);
    let commits = FetchedCommits { commits: vec![part.clone(); 8], certifier_blocks: Vec::new() };
    let behaviour = Behaviour::Says { peers: known_peers(), commits, chunks: vec![vec![part]; 64] };
    Node::listen(&transport, LISTENER, behaviour).await
}

async fn honest(node: &Node) -> Link {
    let transport = TlsTransport::new(&key(HONEST)).unwrap();
    transport.dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap()
}

/// The honest peer gets a response, and soon.
async fn is_served(link: &Link) {
    let began = Instant::now();
    link.api().get_commit_availability(call(LISTENER)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The next connection, after any other events.
async fn next_connected(node: &mut Node) -> Inbound {
    loop {
        if let Event::Connected(inbound) = node.event().await {
            return inbound;
        }
    }
}

async fn tls(node: &Node) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    tls_over(tcp).await
}

async fn tls_over(tcp: TcpStream) -> TlsStream<TcpStream> {
    let config = client_config(Card::Chain(vec![certificate(&key(STRANGER))]));
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("soma-p2p").unwrap(), tcp).await.unwrap()
}

/// HTTP/2 with a window of one byte per response, which is never extended.
async fn never_reads(node: &mut Node) -> (SendRequest<Bytes>, Inbound) {
    let io = tls(node).await;
    let (requests, connection) = h2::client::Builder::new().initial_window_size(1).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let inbound = next_connected(node).await;
    (requests, inbound)
}

async fn ask(requests: &SendRequest<Bytes>, method: &str, message: impl Message) -> ResponseFuture {
    let request = http::Request::post(format!("http://any/soma.p2p.v1.P2p/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "500m")
        .body(())
        .unwrap();
    let mut body = BytesMut::from(&[0][..]);
    body.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut body).unwrap();
    let mut requests = requests.clone().ready().await.unwrap();
    let (response, mut stream) = requests.send_request(request, false).unwrap();
    stream.send_data(body.freeze(), true).unwrap();
    response
}

async fn ask_for_commits(requests: &SendRequest<Bytes>) -> ResponseFuture {
    ask(requests, "FetchCommits", FetchCommitsRequest { start: 1, end: 100, max_bytes: 0 }).await
}

#[tokio::test]
async fn caller_that_reads_no_large_responses_has_few_waiting_and_is_hung_up() {
    let mut node = listener(40 * MIB).await;
    let link = honest(&node).await;
    node.connected().await;
    let (requests, inbound) = never_reads(&mut node).await;
    let began = Instant::now();
    let mut asked = Vec::new();
    for _ in 0..64 {
        asked.push(ask_for_commits(&requests).await);
    }
    let answers: Vec<_> = join_all(asked).await.into_iter().map(|answer| answer.expect("an answer")).collect();
    // Room for the largest response (12 MiB) was free twice. All other calls waited for it in vain.
    assert_eq!(node.calls(), 2);
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.headers().get("grpc-status")).collect();
    assert_eq!(refused, ["8"; 62], "RESOURCE_EXHAUSTED");
    assert_eq!(answers.iter().filter(|answer| answer.headers().contains_key("retry-after-ms")).count(), 62);
    is_served(&link).await;
    node.closed(&inbound).await;
    assert!(began.elapsed() < ANSWER_TIME + Duration::from_secs(5), "{:?}", began.elapsed());
    is_served(&link).await;
    drop(answers);
}

#[tokio::test]
async fn response_that_is_cancelled_or_read_makes_room_for_the_next() {
    let mut node = listener(20 * MIB).await;
    let (requests, inbound) = never_reads(&mut node).await;
    for _ in 0..10 {
        let answer = ask_for_commits(&requests).await.await.unwrap();
        assert_eq!(answer.headers().get("grpc-status"), None);
        // Dropping resets the stream.
    }
    let link = honest(&node).await;
    let range = CommitRange::new(1, 100).unwrap();
    for _ in 0..10 {
        assert_eq!(link.api().fetch_commits(call(LISTENER), range).await.unwrap().size(), 8 * MIB);
    }
    assert!(!inbound_has_ended(&mut node, &inbound));
}

fn inbound_has_ended(node: &mut Node, inbound: &Inbound) -> bool {
    let mut ended = false;
    while let Ok(event) = node.events.try_recv() {
        ended |= matches!(event, Event::Closed(connection, _) if connection == inbound.id());
    }
    ended
}

#[tokio::test]
async fn when_others_wait_for_room_the_longest_stalled_is_hung_up_soon() {
    let mut node = listener(20 * MIB).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(never_reads(&mut node).await);
    }
    let [(first, ended), (second, _), (third, stays)] = &connections[..] else { panic!("three") };
    let _unread = ask_for_commits(first).await.await.unwrap();
    let _unread_too = ask_for_commits(second).await.await.unwrap();
    let mut refused = 0;
    let answer = loop {
        let answer = ask_for_commits(third).await.await.unwrap();
        if answer.headers().get("grpc-status").is_none() {
            break answer;
        }
        refused += 1;
    };
    assert!(refused > 0);
    node.closed(ended).await;
    assert!(!inbound_has_ended(&mut node, stays));
    drop(answer);
}

#[tokio::test]
async fn block_stream_that_is_not_read_is_hung_up_in_time() {
    let mut node = listener(128 * MIB).await;
    let link = honest(&node).await;
    node.connected().await;
    let (requests, inbound) = never_reads(&mut node).await;
    let reference = BlockRef { epoch: 1, round: 1, author: 1, digest: Bytes::from(vec![1; 32]) };
    let began = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..64 {
        let message = FetchBlocksRequest { refs: vec![reference.clone()] };
        answers.push(ask(&requests, "FetchBlocks", message).await.await.unwrap());
    }
    is_served(&link).await;
    node.closed(&inbound).await;
    assert!(began.elapsed() < ANSWER_TIME + Duration::from_secs(5), "{:?}", began.elapsed());
    is_served(&link).await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 frame about the connection.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Sends `flood` until the listener hangs up, and reads everything meanwhile. Returns how often it was sent.
async fn flood(node: &mut Node, flood: &[u8], at_most: usize) -> usize {
    let io = tls(node).await;
    let inbound = next_connected(node).await;
    let (mut reads, mut writes) = tokio::io::split(io);
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while reads.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    });
    writes.write_all(PREFACE).await.unwrap();
    writes.write_all(&frame(4, &[])).await.unwrap();
    let mut sent = 0;
    while sent < at_most && writes.write_all(flood).await.is_ok() && writes.flush().await.is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    node.closed(&inbound).await;
    timeout(TEST_TIMEOUT, reading).await.expect("the end is seen").unwrap();
    sent
}

#[tokio::test]
async fn peer_that_floods_useless_frames_is_hung_up_and_others_are_served() {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let link = honest(&node).await;
    node.connected().await;
    let ping = frame(6, &[7; 8]);
    let settings = frame(4, &[0, 4, 0, 1, 0, 0]);
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 16].to_vec();
    let unknown = frame(0xbb, &[1; 100]);
    for kind in [ping, settings, priority, unknown] {
        let sent = flood(&mut node, &kind, 1_000_000).await;
        assert!(sent < 100_000, "{sent} frames were taken");
        is_served(&link).await;
    }
}

#[tokio::test]
async fn peer_that_resets_endless_calls_is_hung_up_and_others_are_served() {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let link = honest(&node).await;
    node.connected().await;
    let (requests, connection) = h2::client::handshake(tls(&node).await).await.unwrap();
    let connection = tokio::spawn(connection);
    let inbound = next_connected(&mut node).await;
    let mut asked = 0;
    while asked < 1_000_000 {
        let Ok(mut ready) = requests.clone().ready().await else { break };
        let request = http::Request::post("http://any/soma.p2p.v1.P2p/PushCommit").body(()).unwrap();
        let Ok((response, mut stream)) = ready.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        asked += 1;
        tokio::task::yield_now().await;
    }
    node.closed(&inbound).await;
    connection.await.unwrap().unwrap_err();
    is_served(&link).await;
}

#[tokio::test]
async fn one_source_can_neither_take_others_handshake_places_nor_keep_its_own() {
    let limit = Duration::from_secs(4);
    let transport = TlsTransport::new(&key(LISTENER)).unwrap().with_loopback_limited().with_handshake_timeout(limit);
    let mut node = Node::listen(&transport, LISTENER, Behaviour::Answers).await;
    let (_, port) = node.address().host_and_port();
    let from = |source: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(format!("127.0.0.1:{port}").parse().unwrap())
    };
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(from("127.0.0.1").await.unwrap());
    }
    // Another source has its own places.
    let other = tls_over(from("127.0.0.2").await.unwrap()).await;
    assert_eq!(node.connected().await.remote().to_string(), "127.0.0.2");
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    // The oldest made room at once for the last sixteen, which are dropped at their timeout.
    let (first, last) = silent.split_at_mut(84);
    for (streams, soon) in [(first, true), (last, false)] {
        for stream in streams {
            let read = timeout(TEST_TIMEOUT, stream.read(&mut [0])).await.expect("an end");
            assert!(read.is_ok_and(|read| read == 0), "a silent peer gets no byte");
            assert_eq!(began.elapsed() < limit, soon, "{:?}", began.elapsed());
        }
    }
    tls_over(from("127.0.0.1").await.unwrap()).await;
    assert_eq!(node.connected().await.remote().to_string(), "127.0.0.1");
    drop(other);
}

/// Half-open handshakes of the attacker: more than one source may have.
const HALF_OPEN: usize = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endlessly_renewed_half_open_handshakes_keep_no_peer_out() {
    let mut node = Node::listen(&TlsTransport::new(&key(LISTENER)).unwrap(), LISTENER, Behaviour::Answers).await;
    let (_, port) = node.address().host_and_port();
    let address: std::net::SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let attack = tokio::spawn(async move {
        let mut open = std::collections::VecDeque::new();
        loop {
            open.push_back(tokio::net::TcpStream::connect(address).await);
            if open.len() > HALF_OPEN {
                open.pop_front();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut admitted = Vec::new();
    for number in 0..60 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let connecting = timeout(TEST_TIMEOUT, tls_over(stream)).await;
        admitted.push(connecting.unwrap_or_else(|_| panic!("newcomer {number} does not get in")));
        node.connected().await;
    }
    assert!(!attack.is_finished());
    attack.abort();
}
