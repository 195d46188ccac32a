//! Calls byte by byte, as a client in another language may send them. Each gets the status that `docs/protocol.md`
//! states, and the connection stays usable.

#![cfg(feature = "tls")]

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;
use rustls::pki_types::ServerName;
use soma_network::wire::{CHAIN_ID_METADATA, limits::MAX_MESSAGE_FIELDS, proto::FetchBlocksRequest};
use std::sync::Arc;
use support::{tls::*, *};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Seed of the listening node.
const LISTENER: u8 = 2;

/// 32 bytes of 9 in base64, as [`CHAIN`].
const CHAIN_BASE64: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

async fn connect(node: &Node) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    let config = client_config(Card::Chain(vec![certificate(&key(STRANGER))]));
    let name = ServerName::try_from("soma-p2p").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let (requests, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    requests
}

async fn listener() -> (Node, SendRequest<Bytes>) {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let requests = connect(&node).await;
    node.connected().await;
    (node, requests)
}

/// A message in gRPC framing with the given flag.
fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// The `grpc-status` of a call of `method` with this body and these headers.
async fn status(requests: &SendRequest<Bytes>, method: &str, body: Bytes, headers: &[(&str, &str)]) -> String {
    let mut request = http::Request::post(format!("http://any/soma.p2p.v1.P2p/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut requests = requests.clone().ready().await.unwrap();
    let (response, mut stream) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(body, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    let status = head.headers.get("grpc-status").or_else(|| trailers.as_ref()?.get("grpc-status"));
    status.expect("a status").to_str().unwrap().into()
}

/// The status of a call without arguments, with these headers.
async fn availability(requests: &SendRequest<Bytes>, headers: &[(&str, &str)]) -> String {
    status(requests, "GetCommitAvailability", framed(0, &[]), headers).await
}

#[tokio::test]
async fn chain_id_is_one_value_of_base64_with_or_without_padding() {
    let (mut node, requests) = listener().await;
    for value in [CHAIN_BASE64, CHAIN_BASE64.trim_end_matches('=')] {
        assert_eq!(availability(&requests, &[(CHAIN_ID_METADATA, value)]).await, "0", "{value}");
        assert_eq!(node.asked().await.1.chain, Some(CHAIN), "{value}");
    }
    let joined = format!("{CHAIN_BASE64},{CHAIN_BASE64}");
    let other = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    for headers in [
        &[(CHAIN_ID_METADATA, "")][..],
        &[(CHAIN_ID_METADATA, "no base64!")],
        &[(CHAIN_ID_METADATA, &joined)],
        &[(CHAIN_ID_METADATA, CHAIN_BASE64), (CHAIN_ID_METADATA, CHAIN_BASE64)],
        &[(CHAIN_ID_METADATA, CHAIN_BASE64), (CHAIN_ID_METADATA, other)],
    ] {
        assert_eq!(availability(&requests, headers).await, "3", "{headers:?}");
    }
    assert_eq!(availability(&requests, &[]).await, "0");
    assert_eq!(node.calls(), 3);
}

#[tokio::test]
async fn compressed_message_is_unimplemented() {
    let (node, requests) = listener().await;
    // The bytes need not be gzip: the header is refused before they are read.
    let body = framed(1, &[0x1f, 0x8b, 8, 0]);
    assert_eq!(status(&requests, "GetCommitAvailability", body, &[("grpc-encoding", "gzip")]).await, "12");
    assert_eq!(availability(&requests, &[]).await, "0");
    assert_eq!(node.calls(), 1);
}

#[tokio::test]
async fn message_that_cannot_be_read_is_an_internal_error() {
    let (node, requests) = listener().await;
    let fields = FetchBlocksRequest { refs: vec![Default::default(); MAX_MESSAGE_FIELDS + 1] }.encode_to_vec();
    for (what, method, body) in [
        ("no frame", "GetCommitAvailability", Bytes::new()),
        ("a frame that is cut off", "GetCommitAvailability", framed(0, &[1, 2]).slice(..6)),
        ("an unknown flag", "GetCommitAvailability", framed(2, &[])),
        ("a compressed message without an encoding", "GetCommitAvailability", framed(1, &[1])),
        ("no protobuf", "FetchBlocks", framed(0, &[0xff; 20])),
        ("too many fields", "FetchBlocks", framed(0, &fields)),
    ] {
        assert_eq!(status(&requests, method, body, &[]).await, "13", "{what}");
    }
    assert_eq!(availability(&requests, &[]).await, "0");
    assert_eq!(node.calls(), 1);
}

#[tokio::test]
async fn further_messages_of_a_call_are_read_and_dropped() {
    let (node, requests) = listener().await;
    let two = |second: Bytes| [framed(0, &[]), second].concat().into();
    assert_eq!(status(&requests, "GetCommitAvailability", two(framed(0, &[])), &[]).await, "0");
    assert_eq!(node.calls(), 1);
    assert_eq!(status(&requests, "GetCommitAvailability", two(framed(2, &[])), &[]).await, "13");
    assert_eq!(node.calls(), 1);
}

#[tokio::test]
async fn call_of_no_rpc_is_unimplemented() {
    let (node, requests) = listener().await;
    assert_eq!(status(&requests, "GetEverything", framed(0, &[]), &[]).await, "12");
    assert_eq!(availability(&requests, &[]).await, "0");
    assert_eq!(node.calls(), 1);
}

/// Makes a call with one header of this size. Returns the HTTP status, or `None` if the connection ended.
async fn call_with_header(requests: &SendRequest<Bytes>, bytes: usize) -> Option<u16> {
    let request = http::Request::post("http://any/soma.p2p.v1.P2p/GetCommitAvailability")
        .header("content-type", "application/grpc")
        .header("x-long", "x".repeat(bytes))
        .body(())
        .unwrap();
    let (response, mut stream) = requests.clone().ready().await.unwrap().send_request(request, false).unwrap();
    // The refusal of too long headers does not wait for a message.
    let _ = stream.send_data(framed(0, &[]), true);
    response.await.ok().map(|response| response.status().as_u16())
}

#[tokio::test]
async fn metadata_over_4_kib_is_refused_and_a_mebibyte_ends_the_connection() {
    let (mut node, requests) = listener().await;
    assert_eq!(call_with_header(&requests, 3_500).await, Some(200));
    assert_eq!(call_with_header(&requests, 4_500).await, Some(431));
    assert_eq!(node.calls(), 1);
    assert_eq!(call_with_header(&requests, 1 << 20).await, None);
    loop {
        if let Event::Closed(_, peer) = node.event().await {
            assert_eq!(peer, id(STRANGER));
            break;
        }
    }
    assert_eq!(node.calls(), 1);
    // Others are served.
    assert_eq!(availability(&connect(&node).await, &[]).await, "0");
}
