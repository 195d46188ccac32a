//! The promises of every transport, tested over TLS and in memory.

#![cfg(feature = "tls")]

mod support;

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use soma_network::wire::{
    Call, CallError, CommitRange, EpochProofsFrom, FetchedCommits, KnownPeers, Status, limits::*,
};
use soma_network::{DialError, Link, ListenError, MemoryNetwork};
use soma_types::{Address, CommitDigest, CommitRef, ListenAddress};
use std::time::Duration;
use support::*;
use tokio::time::timeout;

/// Seed of the dialling node.
const DIALLER: u8 = 1;
/// Seed of the listening node.
const RESPONDER: u8 = 2;

/// Long enough for a message to arrive, short enough to wait for.
const SHORT: Duration = Duration::from_millis(150);

async fn connect(net: &Net, node: &Node) -> Link {
    net.transport(DIALLER).dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap()
}

/// A node, and a link to it that it has admitted.
async fn pair(net: &Net, behaviour: Behaviour) -> (Node, Link, soma_network::Inbound) {
    let mut node = net.node(RESPONDER, behaviour).await;
    let link = connect(net, &node).await;
    let inbound = node.connected().await;
    (node, link, inbound)
}

async fn ends(link: &Link) {
    timeout(TEST_TIMEOUT, link.closed()).await.expect("the link ends");
    assert!(link.is_closed());
}

/// Whether a failure means a lost connection. The exact status depends on timing.
fn lost(status: Status) -> bool {
    matches!(status, Status::Cancelled | Status::Unavailable | Status::Internal)
}

fn one_block() -> Vec<Bytes> {
    vec![Bytes::from_static(b"block")]
}

async fn each_call_reaches_the_handler_with_its_caller_and_gets_its_response(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Answers).await;
    assert_eq!((inbound.peer(), link.peer()), (id(DIALLER), id(RESPONDER)));
    assert!(inbound.remote().is_loopback());
    assert_eq!(link.remote(), node.address().ip());
    let elsewhere = Some([192, 0, 2, 1].into());
    let call = Call { timeout: Duration::from_secs(7), remote: elsewhere, ..call(RESPONDER) };
    let api = link.api();

    assert_eq!(api.get_known_peers(call, Bytes::from_static(b"caller's")).await.unwrap(), known_peers());
    assert_eq!(api.get_commit_availability(call).await.unwrap(), AVAILABILITY);
    let digest = CommitDigest([4; 32]);
    assert_eq!(api.get_commit_info(call, Some(5)).await.unwrap(), CommitRef { index: 5, digest });
    assert_eq!(api.get_commit_info(call, None).await.unwrap(), CommitRef { index: 70, digest });
    let range = CommitRange::new(1, 100).unwrap();
    assert_eq!(api.fetch_commits(call, range).await.unwrap(), fetched_commits());
    let stream = api.fetch_blocks(call, refs(3)).await.unwrap();
    let received: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(received, chunks());
    api.push_commit(call, 71).await.unwrap();
    assert_eq!(api.get_epoch_proofs(call, EpochProofsFrom::new(3)).await.unwrap(), epoch_proofs());

    for method in [
        "get_known_peers",
        "get_commit_availability",
        "get_commit_info",
        "get_commit_info",
        "fetch_commits",
        "fetch_blocks",
        "push_commit",
        "get_epoch_proofs",
    ] {
        let (asked, seen) = node.asked().await;
        assert_eq!(asked, method);
        assert_eq!(seen.peer, id(DIALLER), "the authenticated caller, not the one in the call");
        assert_eq!(seen.chain, Some(CHAIN));
        assert_eq!(seen.remote, Some(inbound.remote()), "the connection's address, not the one in the call");
        assert_eq!(seen.timeout, Duration::from_secs(7));
    }
}

async fn caller_may_omit_the_chain(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::Answers).await;
    let call = Call { chain: None, ..call(RESPONDER) };
    link.api().get_commit_availability(call).await.unwrap();
    assert_eq!(node.asked().await.1.chain, None);
}

async fn error_arrives_with_its_status_message_and_retry_hint(net: Net) {
    let mut error = CallError::new(Status::ResourceExhausted, "too many calls");
    error.retry_after = Some(Duration::from_millis(250));
    let (_node, link, _) = pair(&net, Behaviour::Fails(error.clone())).await;
    assert_eq!(link.api().get_commit_availability(call(RESPONDER)).await.unwrap_err(), error);
    assert_eq!(link.api().fetch_blocks(call(RESPONDER), refs(1)).await.err(), Some(error));
}

async fn another_key_than_the_dialled_one_is_refused(net: Net) {
    let mut node = net.node(RESPONDER, Behaviour::Answers).await;
    let other = id(7);
    let refused = net.transport(DIALLER).dial(other, node.address(), TEST_TIMEOUT).await.unwrap_err();
    let wrong = DialError::WrongKey { address: node.address().clone(), expected: other, found: id(RESPONDER) };
    assert_eq!(refused, wrong);
    assert!(node.is_quiet(), "the handler is not asked about a dialler that has hung up");
    connect(&net, &node).await;
}

async fn address_without_a_listener_is_unreachable(net: Net) {
    let node = net.node(RESPONDER, Behaviour::Answers).await;
    let address = node.address().clone();
    node.listener.shutdown(TEST_TIMEOUT).await;
    let refused = net.transport(DIALLER).dial(id(RESPONDER), &address, TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(&refused, DialError::Unreachable { address: named, .. } if *named == address), "{refused}");
}

/// The dial fails, or the link ends before any call succeeds.
async fn peer_that_is_not_admitted_gets_no_response_and_its_end_is_not_reported(net: Net) {
    let mut node = net.node(RESPONDER, Behaviour::Refuses).await;
    match net.transport(DIALLER).dial(node.id, node.address(), TEST_TIMEOUT).await {
        Err(error) => assert!(matches!(error, DialError::Refused { .. }), "{error}"),
        Ok(link) => {
            assert!(lost(status(link.api().get_commit_availability(call(RESPONDER)).await)));
            ends(&link).await;
        }
    }
    node.connected().await;
    node.listener.stop_accepting();
    assert_eq!(node.calls(), 0);
    assert!(node.is_quiet(), "the end of a connection that was not admitted is not reported");
}

async fn dialler_that_hangs_up_is_noticed_once(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Answers).await;
    let clone = link.clone();
    link.hang_up();
    ends(&link).await;
    ends(&clone).await;
    node.closed(&inbound).await;
    link.hang_up();
    inbound.hang_up();
    // Ends are reported in order: after another connection's end, none of this one is in flight.
    let other = net.transport(3).dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap();
    let last = node.connected().await;
    other.hang_up();
    node.closed(&last).await;
    assert!(node.is_quiet(), "an end is reported once");
}

async fn listener_that_hangs_up_is_noticed_and_calls_in_flight_fail(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Silent).await;
    let under_way = {
        let link = link.clone();
        tokio::spawn(async move { link.api().get_commit_availability(call(RESPONDER)).await })
    };
    node.asked().await;
    inbound.hang_up();
    assert!(lost(status(timeout(TEST_TIMEOUT, under_way).await.unwrap().unwrap())));
    ends(&link).await;
    node.closed(&inbound).await;
    assert!(lost(status(link.api().get_commit_availability(call(RESPONDER)).await)), "a link never reconnects");
    assert_eq!(node.calls(), 1);
}

async fn hanging_up_ends_a_block_stream(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::StallsStream).await;
    let mut stream = link.api().fetch_blocks(call(RESPONDER), refs(3)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), chunks()[0]);
    link.hang_up();
    assert!(lost(status(timeout(TEST_TIMEOUT, stream.next()).await.unwrap().unwrap())));
    assert!(stream.next().await.is_none(), "after an error nothing follows");
    node.given_up().await;
}

async fn unanswered_call_ends_at_its_deadline_and_is_cancelled(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::Silent).await;
    let call = Call { timeout: SHORT, ..call(RESPONDER) };
    assert_eq!(status(link.api().get_commit_availability(call).await), Status::DeadlineExceeded);
    node.given_up().await;
    assert_eq!(status(link.api().fetch_blocks(call, refs(1)).await), Status::DeadlineExceeded);
    node.given_up().await;
    assert!(!link.is_closed(), "a late response does not end the connection");
}

async fn passed_deadline_is_always_reported_as_such(net: Net) {
    let (_node, link, _) = pair(&net, Behaviour::Silent).await;
    for milliseconds in 1..=40 {
        let call = Call { timeout: Duration::from_millis(milliseconds % 8), ..call(RESPONDER) };
        assert_eq!(status(link.api().get_commit_availability(call).await), Status::DeadlineExceeded);
    }
}

async fn deadline_covers_the_whole_block_stream(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::StallsStream).await;
    let call = Call { timeout: SHORT * 2, ..call(RESPONDER) };
    let mut stream = link.api().fetch_blocks(call, refs(3)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), chunks()[0]);
    assert_eq!(status(stream.next().await.unwrap()), Status::DeadlineExceeded);
    assert!(stream.next().await.is_none(), "after an error nothing follows");
    node.given_up().await;
}

async fn dropping_a_block_stream_cancels_the_call(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::StallsStream).await;
    let mut stream = link.api().fetch_blocks(call(RESPONDER), refs(3)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), chunks()[0]);
    drop(stream);
    node.given_up().await;
    assert!(!link.is_closed());
}

async fn dropping_a_call_cancels_it(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::Silent).await;
    let api = link.clone();
    let under_way = tokio::spawn(async move { api.api().get_commit_availability(call(RESPONDER)).await });
    node.asked().await;
    under_way.abort();
    node.given_up().await;
}

async fn responses_against_the_protocol_are_malformed(net: Net) {
    let behaviour = Behaviour::Says {
        peers: KnownPeers { known_peers: vec![Bytes::new(); MAX_KNOWN_PEERS + 1], ..known_peers() },
        commits: FetchedCommits { commits: vec![Bytes::new(); MAX_COMMITS_PER_FETCH + 1], certifier_blocks: vec![] },
        chunks: vec![one_block(), vec![], one_block()],
    };
    let (_node, link, _) = pair(&net, behaviour).await;
    let api = link.api();
    let own_info = Bytes::from_static(b"caller's");
    assert_eq!(status(api.get_known_peers(call(RESPONDER), own_info).await), Status::MalformedAnswer);
    let range = CommitRange::new(1, 100).unwrap();
    assert_eq!(status(api.fetch_commits(call(RESPONDER), range).await), Status::MalformedAnswer);
    let mut stream = api.fetch_blocks(call(RESPONDER), refs(3)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), one_block(), "earlier chunks stay valid");
    assert_eq!(status(stream.next().await.unwrap()), Status::MalformedAnswer);
    assert!(stream.next().await.is_none(), "after an error nothing follows");
}

async fn largest_responses_arrive(net: Net) {
    let block = |len| Bytes::from(vec![5; len]);
    let commits = FetchedCommits {
        commits: vec![block(512 << 10); 2],
        certifier_blocks: vec![block(1 << 20); (MAX_COMMITS_RESPONSE_BYTES >> 20) - 1],
    };
    assert_eq!(commits.size(), MAX_COMMITS_RESPONSE_BYTES);
    let behaviour = Behaviour::Says {
        peers: known_peers(),
        commits: commits.clone(),
        chunks: vec![vec![block(1 << 20); MAX_CHUNK_BYTES >> 20]; 3],
    };
    let (_node, link, _) = pair(&net, behaviour).await;
    let range = CommitRange::new(1, 100).unwrap();
    assert!(link.api().fetch_commits(call(RESPONDER), range).await.unwrap() == commits);
    let mut stream = link.api().fetch_blocks(call(RESPONDER), refs(1_000)).await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        bytes += chunk.unwrap().iter().map(Bytes::len).sum::<usize>();
    }
    assert_eq!(bytes, 3 * MAX_CHUNK_BYTES);
}

async fn listener_reports_its_port_and_an_address_is_taken_only_once(net: Net) {
    let node = net.node(RESPONDER, Behaviour::Answers).await;
    let (host, port) = node.address().host_and_port();
    assert_eq!(host, "127.0.0.1");
    assert_ne!(port, 0);
    let (other, ..) = handler(Behaviour::Answers);
    let same: ListenAddress = node.address().to_string().parse().unwrap();
    let refused = net.transport(3).listen(&same, other.clone()).await.unwrap_err();
    assert_eq!(refused, ListenError::AddressInUse { address: same });
    let elsewhere = net.transport(3).listen(&any_port(), other.clone()).await.unwrap();
    assert_ne!(elsewhere.address(), node.address());

    let freed: Address = node.address().clone();
    node.listener.shutdown(TEST_TIMEOUT).await;
    assert_eq!(net.transport(3).listen(&same, other).await.unwrap().address(), &freed);
}

async fn shutdown_ends_every_link_and_reports_each_end_once(net: Net) {
    let mut node = net.node(RESPONDER, Behaviour::Answers).await;
    let mut links = Vec::new();
    let mut open = std::collections::BTreeMap::new();
    for seed in 10..15 {
        links.push(net.transport(seed).dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap());
        let inbound = node.connected().await;
        assert_eq!(inbound.peer(), id(seed));
        assert!(open.insert(inbound.id(), inbound.peer()).is_none(), "connection ids are unique");
    }
    node.listener.shutdown(TEST_TIMEOUT).await;
    for link in &links {
        ends(link).await;
    }
    drop(links);
    for _ in 0..5 {
        let Some(Event::Closed(connection, peer)) = timeout(TEST_TIMEOUT, node.events.recv()).await.unwrap() else {
            panic!("only ends")
        };
        assert_eq!(open.remove(&connection), Some(peer));
    }
    assert!(node.events.try_recv().is_err(), "each end is reported once");
}

async fn shutdown_cuts_a_call_that_does_not_finish_in_time(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Silent).await;
    let under_way = {
        let link = link.clone();
        tokio::spawn(async move { link.api().get_commit_availability(call(RESPONDER)).await })
    };
    node.asked().await;
    timeout(TEST_TIMEOUT, node.listener.shutdown(SHORT)).await.expect("a shutdown ends");
    assert!(lost(status(timeout(TEST_TIMEOUT, under_way).await.unwrap().unwrap())));
    ends(&link).await;
    loop {
        match timeout(TEST_TIMEOUT, node.events.recv()).await.unwrap() {
            Some(Event::Closed(connection, _)) => break assert_eq!(connection, inbound.id()),
            Some(_) => {}
            None => panic!("an end that was not told"),
        }
    }
}

async fn dropped_listener_ends_its_links(net: Net) {
    let (node, link, _) = pair(&net, Behaviour::Answers).await;
    let address = node.address().clone();
    drop(node.listener);
    ends(&link).await;
    // A task closes the socket: until it has run, a dial may still get a connection, which then ends.
    match net.transport(DIALLER).dial(id(RESPONDER), &address, TEST_TIMEOUT).await {
        Ok(link) => ends(&link).await,
        Err(DialError::Unreachable { .. } | DialError::Handshake { .. } | DialError::Refused { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn links_of_two_nodes_that_dial_each_other_are_independent(net: Net) {
    let mut one = net.node(1, Behaviour::Answers).await;
    let mut two = net.node(2, Behaviour::Answers).await;
    let to_two = net.transport(1).dial(two.id, two.address(), TEST_TIMEOUT).await.unwrap();
    let to_one = net.transport(2).dial(one.id, one.address(), TEST_TIMEOUT).await.unwrap();
    let (at_two, at_one) = (two.connected().await, one.connected().await);
    assert_eq!((at_two.peer(), at_one.peer()), (one.id, two.id));
    to_two.hang_up();
    two.closed(&at_two).await;
    to_one.api().push_commit(call(1), 71).await.unwrap();
    assert!(!to_one.is_closed());
}

async fn many_calls_share_one_link(net: Net) {
    let (node, link, _) = pair(&net, Behaviour::Answers).await;
    let calls = (0..300).map(|index| {
        let link = link.clone();
        async move { link.api().get_commit_info(call(RESPONDER), Some(index)).await.unwrap().index }
    });
    assert_eq!(join_all(calls).await, (0..300).collect::<Vec<_>>());
    assert_eq!(node.calls(), 300);
}

async fn dropped_link_ends_its_connection(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Answers).await;
    link.api().push_commit(call(RESPONDER), 71).await.unwrap();
    drop(link);
    node.closed(&inbound).await;
}

async fn block_stream_outlives_its_link(net: Net) {
    let (mut node, link, inbound) = pair(&net, Behaviour::Answers).await;
    let stream = link.api().fetch_blocks(call(RESPONDER), refs(3)).await.unwrap();
    drop(link);
    let received: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(received, chunks());
    node.closed(&inbound).await;
}

async fn shutdown_lets_a_call_in_flight_finish(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::WhenLet).await;
    let under_way = {
        let link = link.clone();
        tokio::spawn(async move { link.api().get_commit_availability(call(RESPONDER)).await })
    };
    let let_go = loop {
        if let Event::Waits(let_go) = node.event().await {
            break let_go;
        }
    };
    let down = tokio::spawn(node.listener.shutdown(TEST_TIMEOUT));
    tokio::task::yield_now().await;
    let _ = let_go.send(());
    assert_eq!(under_way.await.unwrap().unwrap(), AVAILABILITY);
    timeout(TEST_TIMEOUT, down).await.unwrap().unwrap();
    ends(&link).await;
}

async fn listener_that_is_shut_down_drops_its_handler(net: Net) {
    let (mut node, link, _) = pair(&net, Behaviour::Answers).await;
    node.listener.shutdown(TEST_TIMEOUT).await;
    ends(&link).await;
    drop(link);
    // Only the handler holds a sender of events.
    while timeout(TEST_TIMEOUT, node.events.recv()).await.expect("a handler that is dropped").is_some() {}
}

async fn cancelled_dial_during_admission_reports_its_end(net: Net) {
    let mut node = net.node(RESPONDER, Behaviour::Undecided).await;
    let (transport, address) = (net.transport(DIALLER), node.address().clone());
    let dial = tokio::spawn(async move { transport.dial(id(RESPONDER), &address, TEST_TIMEOUT).await });
    let inbound = node.connected().await;
    // In memory the dial still waits. Over TLS it may have succeeded, and the link is dropped here.
    dial.abort();
    drop(dial.await);
    // The handler may have admitted the connection, so it must learn of its end.
    node.closed(&inbound).await;
}

/// Runs scenarios over one transport.
macro_rules! scenarios {
    ($transport:ident, $net:expr, paused: $paused:literal, $($(#[$known:meta])* $name:ident),* $(,)?) => {
        mod $transport {
            use super::*;
            $($(#[$known])* #[tokio::test(start_paused = $paused)] async fn $name() { super::$name($net).await })*
        }
    };
}

scenarios!(
    tls,
    Net::Tls,
    paused: false,
    each_call_reaches_the_handler_with_its_caller_and_gets_its_response,
    caller_may_omit_the_chain,
    error_arrives_with_its_status_message_and_retry_hint,
    another_key_than_the_dialled_one_is_refused,
    address_without_a_listener_is_unreachable,
    peer_that_is_not_admitted_gets_no_response_and_its_end_is_not_reported,
    dialler_that_hangs_up_is_noticed_once,
    listener_that_hangs_up_is_noticed_and_calls_in_flight_fail,
    hanging_up_ends_a_block_stream,
    unanswered_call_ends_at_its_deadline_and_is_cancelled,
    passed_deadline_is_always_reported_as_such,
    deadline_covers_the_whole_block_stream,
    dropping_a_block_stream_cancels_the_call,
    dropping_a_call_cancels_it,
    responses_against_the_protocol_are_malformed,
    largest_responses_arrive,
    listener_reports_its_port_and_an_address_is_taken_only_once,
    shutdown_ends_every_link_and_reports_each_end_once,
    shutdown_cuts_a_call_that_does_not_finish_in_time,
    dropped_listener_ends_its_links,
    links_of_two_nodes_that_dial_each_other_are_independent,
    many_calls_share_one_link,
    dropped_link_ends_its_connection,
    block_stream_outlives_its_link,
    shutdown_lets_a_call_in_flight_finish,
    listener_that_is_shut_down_drops_its_handler,
    cancelled_dial_during_admission_reports_its_end,
);

scenarios!(
    memory,
    Net::Memory(MemoryNetwork::new()),
    // No threads and no sockets: time passes only when no task is ready.
    paused: true,
    each_call_reaches_the_handler_with_its_caller_and_gets_its_response,
    caller_may_omit_the_chain,
    error_arrives_with_its_status_message_and_retry_hint,
    another_key_than_the_dialled_one_is_refused,
    address_without_a_listener_is_unreachable,
    peer_that_is_not_admitted_gets_no_response_and_its_end_is_not_reported,
    dialler_that_hangs_up_is_noticed_once,
    listener_that_hangs_up_is_noticed_and_calls_in_flight_fail,
    hanging_up_ends_a_block_stream,
    unanswered_call_ends_at_its_deadline_and_is_cancelled,
    passed_deadline_is_always_reported_as_such,
    deadline_covers_the_whole_block_stream,
    dropping_a_block_stream_cancels_the_call,
    dropping_a_call_cancels_it,
    responses_against_the_protocol_are_malformed,
    largest_responses_arrive,
    listener_reports_its_port_and_an_address_is_taken_only_once,
    shutdown_ends_every_link_and_reports_each_end_once,
    shutdown_cuts_a_call_that_does_not_finish_in_time,
    dropped_listener_ends_its_links,
    links_of_two_nodes_that_dial_each_other_are_independent,
    many_calls_share_one_link,
    dropped_link_ends_its_connection,
    block_stream_outlives_its_link,
    shutdown_lets_a_call_in_flight_finish,
    listener_that_is_shut_down_drops_its_handler,
    cancelled_dial_during_admission_reports_its_end,
);
