//! Streams of `Broadcast` with a hostile or slow peer, over TLS. Malformed frames end a stream with a fault and nothing
//! else, and a topic that is not read holds up no other.

#![cfg(feature = "tls")]

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, future::join_all};
use h2::{SendStream, client::SendRequest};
use prost::Message as _;
use rustls::pki_types::ServerName;
use soma_network::wire::{
    CallError, Frame, Hello, Status,
    limits::*,
    proto::{
        BroadcastAuthor, BroadcastFrame, BroadcastHello, BroadcastMessage, GetCommitAvailabilityRequest,
        broadcast_author::Author as Kind, p2p_client::P2pClient,
    },
};
use soma_network::{Inbound, Link, TlsTransport, Transport};
use soma_types::{Author, ChainId, Message, MessageId, SignedMessage, Topic, limits::MAX_MESSAGE_BYTES};
use std::{sync::Arc, time::Duration};
use support::{raw::raw_client, tls::*, *};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

const LISTENER: u8 = 2;
const HONEST: u8 = 3;

/// The listener's limit of a message.
const LIMIT: u32 = MAX_MESSAGE_BYTES as u32;

fn hello(topic: Topic) -> Hello {
    Hello { topic, max_message_bytes: LIMIT }
}

fn signed(topic: Topic, bytes: usize) -> SignedMessage {
    let payload = vec![5; bytes].into();
    Message { topic, epoch: 1, author: Author::Authority(1), payload }.sign(ChainId([3; 32]), &key(9))
}

fn frame(topic: Topic, bytes: usize) -> Frame {
    Frame { messages: vec![signed(topic, bytes)], ..Frame::default() }
}

async fn listener(transport: TlsTransport) -> (Node, Link, Inbound) {
    let mut node = Node::listen(&transport, LISTENER, Behaviour::Spreads(LIMIT)).await;
    let dialler = TlsTransport::new(&key(HONEST)).unwrap();
    let link = dialler.dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap();
    let inbound = node.connected().await;
    (node, link, inbound)
}

fn tls_transport() -> TlsTransport {
    TlsTransport::new(&key(LISTENER)).unwrap()
}

async fn open(node: &mut Node, link: &Link, topic: Topic) -> (Side, Side) {
    let caller = Side::open(link, LISTENER, hello(topic)).await.unwrap();
    (caller, node.opened().await)
}

/// Sends frames until the network takes no more.
async fn fill(side: &Side, topic: Topic) -> usize {
    let mut taken = 0;
    // A network that is not full takes a frame much sooner.
    while timeout(Duration::from_millis(500), side.outgoing.send(Ok(frame(topic, 64 << 10)))).await.is_ok() {
        taken += 1;
        assert!(taken < 1_000, "the network takes frames without end");
    }
    taken
}

#[tokio::test]
async fn topics_that_are_not_read_delay_no_other_topic_and_no_call() {
    let (mut node, link, _inbound) = listener(tls_transport()).await;
    let (mut unread_at_callers, mut unread_at_responders) =
        (open(&mut node, &link, Topic::Transactions).await, open(&mut node, &link, Topic::Certificates).await);
    let (mut caller, mut responder) = open(&mut node, &link, Topic::Consensus).await;
    let mut taken = Vec::new();
    for (callers, responders, topic) in [
        (&unread_at_callers.0, &unread_at_callers.1, Topic::Transactions),
        (&unread_at_responders.0, &unread_at_responders.1, Topic::Certificates),
    ] {
        taken.push((fill(callers, topic).await, fill(responders, topic).await));
    }
    for _ in 0..50 {
        caller.send(frame(Topic::Consensus, 100 << 10)).await;
        assert!(responder.next().await.unwrap().is_ok());
        responder.send(frame(Topic::Consensus, 100 << 10)).await;
        assert!(caller.next().await.unwrap().is_ok());
        assert_eq!(link.api().get_commit_availability(call(LISTENER)).await.unwrap(), AVAILABILITY);
    }
    // Nothing is lost: what waited arrives when it is read.
    for ((callers, responders), (to_responder, to_caller)) in
        [&mut unread_at_callers, &mut unread_at_responders].into_iter().zip(taken)
    {
        for _ in 0..to_responder {
            assert!(responders.next().await.unwrap().is_ok());
        }
        for _ in 0..to_caller {
            assert!(callers.next().await.unwrap().is_ok());
        }
    }
}

/// Time in which a response must be read in the next test.
const ANSWER_TIME: Duration = Duration::from_millis(500);

#[tokio::test]
async fn idle_and_unread_streams_outlive_the_time_of_a_response() {
    let (mut node, link, inbound) = listener(tls_transport().with_answer_time(ANSWER_TIME)).await;
    let (mut idle, mut idle_too) = open(&mut node, &link, Topic::Consensus).await;
    let (mut unread, unread_too) = open(&mut node, &link, Topic::Transactions).await;
    let taken = fill(&unread_too, Topic::Transactions).await;
    // A caller that does not read a response is hung up, so the time of a response is over.
    let hung_up = never_reads(&mut node).await;
    node.closed(&hung_up).await;
    idle.send(frame(Topic::Consensus, 10)).await;
    assert!(idle_too.next().await.unwrap().is_ok());
    idle_too.send(frame(Topic::Consensus, 10)).await;
    assert!(idle.next().await.unwrap().is_ok());
    for _ in 0..taken {
        assert!(unread.next().await.unwrap().is_ok());
    }
    assert!(!inbound.is_stalled() && !link.is_closed());
}

async fn h2(node: &mut Node, window: u32) -> (SendRequest<Bytes>, Inbound) {
    let tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    let config = client_config(Card::Chain(vec![certificate(&key(STRANGER))]));
    let tls =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("soma-p2p").unwrap(), tcp).await.unwrap();
    let (requests, connection) = h2::client::Builder::new().initial_window_size(window).handshake(tls).await.unwrap();
    tokio::spawn(connection);
    loop {
        if let Event::Connected(inbound) = node.event().await {
            return (requests, inbound);
        }
    }
}

/// A request, whose body is open.
async fn request(requests: &SendRequest<Bytes>, method: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let request = http::Request::post(format!("http://any/soma.p2p.v1.P2p/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    requests.clone().ready().await.unwrap().send_request(request, false).unwrap()
}

fn in_grpc(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// A connection with a response that is never read.
async fn never_reads(node: &mut Node) -> Inbound {
    let (requests, inbound) = h2(node, 1).await;
    let (response, mut body) = request(&requests, "FetchBlocks").await;
    let asked = soma_network::wire::proto::FetchBlocksRequest::from(&refs(1));
    body.send_data(in_grpc(&asked.encode_to_vec()), true).unwrap();
    tokio::spawn(async move {
        let unread = response.await;
        // Kept until the connection ends.
        std::future::pending::<()>().await;
        drop((unread, requests));
    });
    inbound
}

/// A hello and the beginning of a frame of this length.
async fn begin_frame(
    requests: &SendRequest<Bytes>,
    length: usize,
) -> (http::Response<h2::RecvStream>, SendStream<Bytes>) {
    let (response, mut body) = request(requests, "Broadcast").await;
    body.send_data(in_grpc(&BroadcastFrame::from(hello(Topic::Consensus)).encode_to_vec()), false).unwrap();
    let mut begun = BytesMut::new();
    begun.put_u8(0);
    begun.put_u32(length as u32);
    begun.put_bytes(0, 1_000);
    body.send_data(begun.freeze(), false).unwrap();
    (timeout(TEST_TIMEOUT, response).await.expect("an answer").unwrap(), body)
}

/// Unread bytes and frames, once they are as many as that.
async fn memory(node: &Node, bytes: usize) {
    let memory = node.listener.memory().unwrap();
    let counted = async {
        while memory.unread_bytes() != bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TEST_TIMEOUT, counted).await.unwrap_or_else(|_| panic!("{} bytes, not {bytes}", memory.unread_bytes()));
}

#[tokio::test]
async fn unfinished_large_frames_are_counted_and_a_connection_has_few() {
    let (mut node, link, _inbound) = listener(tls_transport().with_unread_bytes(8 << 20)).await;
    let (requests, inbound) = h2(&mut node, 1 << 16).await;
    let mut begun = Vec::new();
    for number in 1..=6 {
        begun.push(begin_frame(&requests, 1 << 20).await);
        let mut responder = node.opened().await;
        tokio::spawn(async move { responder.incoming_ends().await });
        // Strangers leave a quarter to others, and one has at most as much as is free.
        memory(&node, number.min(3) << 20).await;
    }
    let (refused, _) = request(&requests, "Broadcast").await;
    let refused = timeout(TEST_TIMEOUT, refused).await.unwrap().unwrap();
    assert_eq!(refused.headers().get("grpc-status").unwrap(), "8", "RESOURCE_EXHAUSTED");
    // Others are not held up.
    let (caller, mut responder) = open(&mut node, &link, Topic::Consensus).await;
    caller.send(frame(Topic::Consensus, 1 << 20)).await;
    assert!(responder.next().await.unwrap().is_ok());
    drop(begun);
    memory(&node, 0).await;
    let (_response, _body) = begin_frame(&requests, 1_000).await;
    inbound.hang_up();
    node.closed(&inbound).await;
}

/// Opens a stream with raw frames. Returns the status that it ends with.
async fn ends_with(client: &P2pClient<Channel>, frames: Vec<BroadcastFrame>) -> tonic::Status {
    let mut client = client.clone().max_encoding_message_size(4 << 20);
    let (sender, sent) = mpsc::channel(frames.len());
    for frame in frames {
        sender.send(frame).await.unwrap();
    }
    // The sender stays, so that only the fault can end the stream.
    let ending = async {
        let mut answers = client.broadcast(ReceiverStream::new(sent)).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    let status: Result<(), tonic::Status> = timeout(TEST_TIMEOUT, ending).await.expect("an end");
    drop(sender);
    status.expect_err("a fault")
}

fn first() -> BroadcastFrame {
    hello(Topic::Certificates).into()
}

/// A message of this many bytes.
fn message(bytes: usize) -> BroadcastMessage {
    let author = Some(BroadcastAuthor { author: Some(Kind::Authority(1)) });
    BroadcastMessage { epoch: 1, author, payload: vec![1; bytes].into(), signature: vec![2; 64].into() }
}

fn with(messages: Vec<BroadcastMessage>) -> BroadcastFrame {
    BroadcastFrame { messages, ..Default::default() }
}

fn ids(bytes: usize) -> Bytes {
    vec![7; bytes].into()
}

fn authority(index: u32) -> BroadcastAuthor {
    BroadcastAuthor { author: Some(Kind::Authority(index)) }
}

/// One of each kind of malformed frame that can follow a hello.
fn malformed_frames() -> Vec<(&'static str, BroadcastFrame)> {
    let frame = BroadcastFrame::default;
    let signature = |len: usize| BroadcastMessage { signature: vec![2; len].into(), ..message(1) };
    let by = |author| BroadcastMessage { author, ..message(1) };
    let peer = |len: usize| BroadcastAuthor { author: Some(Kind::Peer(vec![3; len].into())) };
    vec![
        ("empty", frame()),
        ("second hello", first()),
        ("id cut short", BroadcastFrame { have: ids(31), ..frame() }),
        ("half an id more", BroadcastFrame { want: ids(48), ..frame() }),
        ("too many ids", BroadcastFrame { have: ids(32 * (MAX_IDS_PER_FRAME + 1)), ..frame() }),
        ("too many wanted ids", BroadcastFrame { want: ids(32 * (MAX_IDS_PER_FRAME + 1)), ..frame() }),
        ("too many suppressed ids", BroadcastFrame { do_not_send: ids(32 * (MAX_IDS_PER_FRAME + 1)), ..frame() }),
        ("too many messages", with(vec![message(0); MAX_MESSAGES_PER_FRAME + 1])),
        ("message too long", with(vec![message(MAX_MESSAGE_BYTES + 1)])),
        ("batch too long", with(vec![message(MAX_BATCH_BYTES / 2 + 1); 2])),
        ("no signature", with(vec![signature(0)])),
        ("short signature", with(vec![message(5), signature(63)])),
        ("long signature", with(vec![signature(65)])),
        ("no author", with(vec![by(None)])),
        ("author of no kind", with(vec![by(Some(BroadcastAuthor { author: None }))])),
        ("authority beyond any committee", with(vec![by(Some(authority(1_000)))])),
        ("short peer id", with(vec![by(Some(peer(31)))])),
        ("graft of a long peer id", BroadcastFrame { graft: vec![peer(33)], ..frame() }),
        ("prune of nobody", BroadcastFrame { prune: vec![BroadcastAuthor { author: None }], ..frame() }),
        (
            "too many authors",
            BroadcastFrame { graft: vec![authority(1); MAX_AUTHORS_PER_FRAME], prune: vec![authority(2)], ..frame() },
        ),
        ("too many fields", with(vec![BroadcastMessage::default(); MAX_MESSAGE_FIELDS + 1])),
        ("frame too long", with(vec![message(MAX_FRAME_BYTES)])),
    ]
}

#[tokio::test]
async fn malformed_frames_of_every_kind_end_the_stream_with_a_fault_and_nothing_else() {
    let (mut node, link, _inbound) = listener(tls_transport()).await;
    let mut client = raw_client(&node).await;
    node.connected().await;
    let (mut other, mut other_too) = open(&mut node, &link, Topic::Consensus).await;
    for (what, frame) in malformed_frames() {
        let decodable = !["too many fields", "frame too long"].contains(&what);
        let responding = async {
            let mut responder = node.opened().await;
            assert_eq!(responder.next().await.unwrap().unwrap().messages[0].message().payload.len(), 9);
            let fault = responder.next().await.expect(what).expect_err(what);
            assert!(responder.next().await.is_none(), "{what}: nothing follows");
            responder.is_closed().await;
            fault
        };
        let frames = vec![first(), with(vec![message(9)]), frame.clone()];
        let (fault, status) = tokio::join!(responding, ends_with(&client, frames));
        assert_eq!(fault.status, Status::MalformedAnswer, "{what}: {fault}");
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        if decodable {
            let seen = Frame::received(frame, hello(Topic::Certificates)).expect_err(what);
            assert_eq!(seen, fault, "{what}");
        }
        client.get_commit_availability(GetCommitAvailabilityRequest {}).await.expect(what);
    }
    other.send(frame(Topic::Consensus, 1)).await;
    assert!(other_too.next().await.unwrap().is_ok());
    other_too.send(frame(Topic::Consensus, 1)).await;
    assert!(other.next().await.unwrap().is_ok(), "other streams go on");
}

#[tokio::test]
async fn stream_without_a_valid_hello_is_refused_before_the_handler_sees_it() {
    let (mut node, _link, _inbound) = listener(tls_transport()).await;
    let client = raw_client(&node).await;
    node.connected().await;
    let with_hello = |version, topic, max_message_bytes| BroadcastFrame {
        hello: Some(BroadcastHello { version, topic, max_message_bytes }),
        ..Default::default()
    };
    for (what, frame) in [
        ("no hello", with(vec![message(1)])),
        ("nothing", BroadcastFrame::default()),
        ("version 0", with_hello(0, 1, 100)),
        ("topic 0", with_hello(1, 0, 100)),
        ("topic 4", with_hello(1, 4, 100)),
        ("topic 257", with_hello(1, 257, 100)),
        ("no messages", with_hello(1, 1, 0)),
        ("more than a hello", BroadcastFrame { have: ids(32), ..first() }),
    ] {
        let status = ends_with(&client, vec![frame]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
    }
    assert_eq!(node.calls(), 0);
    // A later version speaks this one, too, and a larger limit counts as the protocol's.
    let mut client = client.clone();
    let (sender, sent) = mpsc::channel(1);
    sender.send(with_hello(7, 2, u32::MAX)).await.unwrap();
    let mut answers = client.broadcast(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.hello, Some(BroadcastHello { version: 1, topic: 2, max_message_bytes: LIMIT }));
    assert_eq!(node.opened().await.hello, hello(Topic::Certificates));
}

#[tokio::test]
async fn largest_frame_with_full_lists_arrives() {
    let (mut node, link, _inbound) = listener(tls_transport()).await;
    let (mut caller, mut responder) = open(&mut node, &link, Topic::Consensus).await;
    let lists = Frame {
        have: (0..MAX_IDS_PER_FRAME).map(|number| MessageId::of(&[&number.to_le_bytes()])).collect(),
        want: vec![MessageId([1; 32]); MAX_IDS_PER_FRAME],
        do_not_send: vec![MessageId([2; 32]); MAX_IDS_PER_FRAME],
        graft: vec![Author::Peer(id(4)); MAX_AUTHORS_PER_FRAME],
        ..Frame::default()
    };
    let one = Frame { messages: vec![signed(Topic::Consensus, MAX_MESSAGE_BYTES)], ..lists.clone() };
    let small = signed(Topic::Consensus, MAX_BATCH_BYTES / MAX_MESSAGES_PER_FRAME);
    let many = Frame { messages: vec![small; MAX_MESSAGES_PER_FRAME], ..lists };
    for largest in [one, many] {
        let encoded = BroadcastFrame::from(largest.clone()).encoded_len();
        assert!(encoded <= MAX_FRAME_BYTES, "{encoded}");
        caller.send(largest.clone()).await;
        assert_eq!(responder.next().await.unwrap().unwrap(), largest);
        responder.send(largest.clone()).await;
        assert_eq!(caller.next().await.unwrap().unwrap(), largest);
    }
}

#[tokio::test]
async fn many_streams_of_tiny_frames_are_no_flood() {
    let (mut node, link, inbound) = listener(tls_transport()).await;
    let (mut caller, mut responder) = open(&mut node, &link, Topic::Transactions).await;
    let tiny = || Frame { have: vec![MessageId([9; 32])], ..Frame::default() };
    // More than a server may send without a stream, and each way there and back.
    for _ in 0..5_000 {
        responder.send(tiny()).await;
        assert_eq!(caller.next().await.unwrap().unwrap(), tiny());
        caller.send(tiny()).await;
        assert_eq!(responder.next().await.unwrap().unwrap(), tiny());
    }
    assert!(!link.is_closed() && !link.is_flooded() && !inbound.is_flooded());
}

#[tokio::test]
async fn messages_that_are_kept_do_not_keep_their_frame() {
    let small = signed(Topic::Consensus, 100);
    let large = signed(Topic::Consensus, 100_000);
    let sent = Frame { messages: vec![small, large], ..Frame::default() };
    let bytes = Bytes::from(BroadcastFrame::from(sent).encode_to_vec());
    let within = |payload: &Bytes| bytes.as_ptr_range().contains(&payload.as_ptr());
    let decoded = BroadcastFrame::decode(bytes.clone()).unwrap();
    let frame = Frame::received(decoded, hello(Topic::Consensus)).unwrap();
    let [small, large] = &frame.messages[..] else { panic!("two messages") };
    assert!(!within(&small.message().payload), "a copy");
    assert!(within(&large.message().payload), "a slice");
}

#[tokio::test]
async fn six_streams_may_be_open_and_a_closed_one_makes_room() {
    let (mut node, link, _inbound) = listener(tls_transport()).await;
    let opened = join_all((0..6).map(|_| Side::open(&link, LISTENER, hello(Topic::Consensus)))).await;
    let mut sides: Vec<Side> = opened.into_iter().map(Result::unwrap).collect();
    let refused: CallError = Side::open(&link, LISTENER, hello(Topic::Consensus)).await.unwrap_err();
    assert_eq!(refused.status, Status::ResourceExhausted);
    drop(sides.pop());
    let reopened = async {
        while Side::open(&link, LISTENER, hello(Topic::Consensus)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, reopened).await.expect("room");
    for _ in 0..7 {
        node.opened().await;
    }
    let _ = sides.iter_mut().map(|side| side.incoming.next()).count();
}
