//! Streams of frames of `Broadcast`, over TLS and in memory.

#![cfg(feature = "tls")]

mod support;

use bytes::Bytes;
use soma_network::wire::{Call, CallError, Frame, Hello, Status, limits::*};
use soma_network::{Inbound, Link, MemoryNetwork};
use soma_types::{Author, ChainId, Message, MessageId, SignedMessage, Topic, limits::MAX_MESSAGE_BYTES};
use std::time::Duration;
use support::*;

/// Seed of the dialling node.
const DIALLER: u8 = 1;
/// Seed of the listening node.
const RESPONDER: u8 = 2;

/// The limit of the responder, which is lower than the caller's.
const RESPONDER_LIMIT: u32 = 64 << 10;

const HELLO: Hello = Hello { topic: Topic::Certificates, max_message_bytes: MAX_MESSAGE_BYTES as u32 };

/// A message of the stream's topic.
fn message(number: u64, bytes: usize) -> SignedMessage {
    of_topic(Topic::Certificates, number, bytes)
}

fn of_topic(topic: Topic, number: u64, bytes: usize) -> SignedMessage {
    let author = if number.is_multiple_of(2) { Author::Authority(7) } else { Author::Peer(id(9)) };
    let payload = Bytes::from(vec![number as u8; bytes]);
    Message { topic, epoch: number, author, payload }.sign(ChainId([3; 32]), &key(9))
}

fn ids(count: usize) -> Vec<MessageId> {
    (0..count).map(|number| MessageId::of(&[&number.to_le_bytes()])).collect()
}

/// A frame with this message.
fn with(message: SignedMessage) -> Frame {
    Frame { messages: vec![message], ..Frame::default() }
}

/// A frame with everything.
fn full() -> Frame {
    Frame {
        messages: (0..5).map(|number| message(number, 100 * number as usize)).collect(),
        have: ids(3),
        want: ids(2),
        do_not_send: ids(1),
        graft: vec![Author::Authority(999), Author::Peer(id(4))],
        prune: vec![Author::Authority(0)],
    }
}

async fn connect(net: &Net, behaviour: Behaviour) -> (Node, Link, Inbound) {
    let mut node = net.node(RESPONDER, behaviour).await;
    let link = net.transport(DIALLER).dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap();
    let inbound = node.connected().await;
    (node, link, inbound)
}

/// A stream: the node, the link, the caller's side and the responder's.
async fn stream(net: &Net) -> (Node, Link, Inbound, Side, Side) {
    let (mut node, link, inbound) = connect(net, Behaviour::Spreads(RESPONDER_LIMIT)).await;
    let caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
    let responder = node.opened().await;
    (node, link, inbound, caller, responder)
}

fn fault(item: Option<Result<Frame, CallError>>) -> Status {
    item.expect("an error").expect_err("an error").status
}

async fn hellos_and_frames_travel_both_ways_in_order(net: Net) {
    let (_node, _link, _inbound, mut caller, mut responder) = stream(&net).await;
    assert_eq!(responder.hello, HELLO);
    assert_eq!(caller.hello, Hello { max_message_bytes: RESPONDER_LIMIT, ..HELLO });
    caller.send(full()).await;
    responder.send(full()).await;
    assert_eq!(responder.next().await.unwrap().unwrap(), full());
    assert_eq!(caller.next().await.unwrap().unwrap(), full());
    let sending = async {
        for number in 0..300 {
            caller.outgoing.send(Ok(with(message(number, 512)))).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..300 {
            assert_eq!(responder.next().await.unwrap().unwrap(), with(message(number, 512)));
        }
    };
    tokio::join!(sending, receiving);
}

async fn frame_over_the_limits_is_cut_by_its_sender(net: Net) {
    let (_node, _link, _inbound, mut caller, responder) = stream(&net).await;
    let authors = (0..MAX_AUTHORS_PER_FRAME as u32).map(Author::Authority);
    let sent = Frame {
        messages: (0..2_500).map(|number| message(number, 300)).chain([message(1, MAX_MESSAGE_BYTES)]).collect(),
        have: ids(3_000),
        want: ids(MAX_IDS_PER_FRAME),
        do_not_send: ids(1),
        graft: authors.clone().collect(),
        prune: authors.collect(),
    };
    responder.send(sent.clone()).await;
    responder.send(Frame::default()).await;
    let mut received = Frame::default();
    while received != sent {
        let frame = caller.next().await.unwrap().unwrap();
        assert!(frame.messages.len() <= MAX_MESSAGES_PER_FRAME && frame.have.len() <= MAX_IDS_PER_FRAME);
        assert!(frame.messages.len() == 1 || frame.payload_bytes() <= MAX_BATCH_BYTES);
        received.messages.extend(frame.messages);
        received.have.extend(frame.have);
        received.want.extend(frame.want);
        received.do_not_send.extend(frame.do_not_send);
        received.graft.extend(frame.graft);
        received.prune.extend(frame.prune);
    }
}

async fn either_side_ends_both_directions(net: Net) {
    let (mut node, link, _inbound, mut caller, mut responder) = stream(&net).await;
    responder.send(full()).await;
    assert!(caller.next().await.unwrap().is_ok());
    responder.end_outgoing();
    assert!(caller.next().await.is_none(), "the responder has ended its frames");
    caller.is_closed().await;
    assert!(responder.incoming_ends().await);

    let caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
    let mut responder = node.opened().await;
    drop(caller.outgoing);
    assert!(responder.next().await.is_none(), "the caller has ended its frames");
    responder.is_closed().await;

    let caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
    let responder = node.opened().await;
    drop(caller.incoming);
    responder.is_closed().await;
    let mut caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
    let responder = node.opened().await;
    drop(responder.incoming);
    assert!(caller.incoming_ends().await);
    caller.is_closed().await;
    assert!(!link.is_closed());
}

async fn end_of_the_connection_ends_its_streams(net: Net) {
    let (_node, link, _inbound, mut caller, mut responder) = stream(&net).await;
    link.hang_up();
    assert!(caller.incoming_ends().await && responder.incoming_ends().await);
    caller.is_closed().await;
    responder.is_closed().await;
    let (_node, _link, inbound, mut caller, mut responder) = stream(&net).await;
    inbound.hang_up();
    assert!(caller.incoming_ends().await && responder.incoming_ends().await);
    caller.is_closed().await;
    responder.is_closed().await;
}

async fn stream_outlives_its_link(net: Net) {
    let (_node, link, _inbound, mut caller, responder) = stream(&net).await;
    drop(link);
    responder.send(full()).await;
    assert_eq!(caller.next().await.unwrap().unwrap(), full());
}

async fn shutdown_of_the_listener_ends_streams_and_does_not_wait_for_them(net: Net) {
    let (node, _link, _inbound, mut caller, mut responder) = stream(&net).await;
    let began = tokio::time::Instant::now();
    node.listener.shutdown(TEST_TIMEOUT).await;
    assert!(began.elapsed() < TEST_TIMEOUT / 2, "{:?}", began.elapsed());
    assert!(caller.incoming_ends().await && responder.incoming_ends().await);
}

async fn older_peer_is_recognised_and_still_answers(net: Net) {
    let (_node, link, _inbound) = connect(&net, Behaviour::Answers).await;
    let refused = Side::open(&link, RESPONDER, HELLO).await.unwrap_err();
    assert_eq!(refused.status, Status::Unimplemented);
    assert_eq!(link.api().get_commit_availability(call(RESPONDER)).await.unwrap(), AVAILABILITY);
}

async fn refusal_arrives_with_its_reason(net: Net) {
    let error = CallError::new(Status::FailedPrecondition, "another chain");
    let (_node, link, _inbound) = connect(&net, Behaviour::Fails(error.clone())).await;
    assert_eq!(Side::open(&link, RESPONDER, HELLO).await.unwrap_err(), error);
}

async fn timeout_covers_the_exchange_of_hellos_only(net: Net) {
    let limit = Duration::from_millis(150);
    let (_node, link, _inbound) = connect(&net, Behaviour::Silent).await;
    let call = Call { timeout: limit, ..call(RESPONDER) };
    let opened = link.api().broadcast(call, HELLO, Side::frames().1).await;
    assert_eq!(status(opened), Status::DeadlineExceeded);

    let (mut node, link, _inbound) = connect(&net, Behaviour::Spreads(RESPONDER_LIMIT)).await;
    let (_outgoing, frames) = Side::frames();
    let (_, mut incoming) = link.api().broadcast(call, HELLO, frames).await.unwrap();
    let responder = node.opened().await;
    tokio::time::sleep(2 * limit).await;
    responder.send(full()).await;
    assert_eq!(futures::StreamExt::next(&mut incoming).await.unwrap().unwrap(), full());
}

/// Each is sent by a caller and ends the stream with a fault of the caller.
async fn frame_against_a_limit_of_the_receiver_ends_the_stream_with_a_fault(net: Net) {
    let (mut node, link, _inbound) = connect(&net, Behaviour::Spreads(RESPONDER_LIMIT)).await;
    let frame = Frame::default;
    for wrong in [
        with(message(1, RESPONDER_LIMIT as usize + 1)),
        Frame { graft: vec![Author::Authority(1_000)], ..frame() },
        Frame { prune: vec![Author::Authority(u32::MAX)], ..frame() },
    ] {
        let mut caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
        let mut responder = node.opened().await;
        caller.send(full()).await;
        assert_eq!(responder.next().await.unwrap().unwrap(), full());
        caller.send(wrong).await;
        assert_eq!(fault(responder.next().await), Status::MalformedAnswer);
        assert!(responder.next().await.is_none(), "nothing follows an error");
        responder.is_closed().await;
        assert!(caller.incoming_ends().await);
        caller.is_closed().await;
    }
    assert!(!link.is_closed(), "the connection is still of use");
    // The largest one arrives.
    let caller = Side::open(&link, RESPONDER, HELLO).await.unwrap();
    let mut responder = node.opened().await;
    let largest = with(message(1, RESPONDER_LIMIT as usize));
    caller.send(largest.clone()).await;
    assert_eq!(responder.next().await.unwrap().unwrap(), largest);
}

async fn responder_without_a_valid_hello_is_malformed(net: Net) {
    let (_node, link, _inbound) = connect(&net, Behaviour::Spreads(0)).await;
    assert_eq!(Side::open(&link, RESPONDER, HELLO).await.unwrap_err().status, Status::MalformedAnswer);
}

/// Runs scenarios over both transports.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        mod tls {
            $(#[tokio::test] async fn $name() { super::$name(super::Net::Tls).await })*
        }
        mod memory {
            $(#[tokio::test(start_paused = true)] async fn $name() {
                super::$name(super::Net::Memory(super::MemoryNetwork::new())).await
            })*
        }
    };
}

scenarios!(
    hellos_and_frames_travel_both_ways_in_order,
    frame_over_the_limits_is_cut_by_its_sender,
    either_side_ends_both_directions,
    end_of_the_connection_ends_its_streams,
    stream_outlives_its_link,
    shutdown_of_the_listener_ends_streams_and_does_not_wait_for_them,
    older_peer_is_recognised_and_still_answers,
    refusal_arrives_with_its_reason,
    timeout_covers_the_exchange_of_hellos_only,
    frame_against_a_limit_of_the_receiver_ends_the_stream_with_a_fault,
    responder_without_a_valid_hello_is_malformed,
);
