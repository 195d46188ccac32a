//! Hostile responses of a dialled peer: the caller gets an error of the right kind, never a panic.

#![cfg(feature = "tls")]

mod support;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use soma_network::wire::{Call, CallError, CommitRange, FrameStream, Hello, Status};
use soma_network::{DialError, Link, TlsTransport, Transport};
use soma_types::{Address, SigningKey, Topic};
use std::{convert::Infallible, sync::Arc, time::Duration};
use support::{tls::*, *};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{
    body::Body,
    codec::{EncodeBody, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::Server,
};
use tower::service_fn;

/// Seed of the hostile peer's own key.
const HOSTILE: u8 = 13;

/// A response to any request.
#[derive(Clone, Debug)]
enum Answer {
    /// HTTP headers and a body of text, which may hold any byte under 128.
    Text(&'static [(&'static str, &'static str)], &'static str),
    /// A status with these trailers.
    Trailers(&'static [(&'static str, &'static str)]),
}

use Answer::{Text, Trailers};

fn headers(entries: &[(&'static str, &'static str)]) -> http::HeaderMap {
    entries.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

/// An encoder for a stream without messages.
struct NoMessages;

impl Encoder for NoMessages {
    type Item = ();
    type Error = tonic::Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        Ok(())
    }
}

impl Answer {
    fn response(&self) -> http::Response<Body> {
        match self {
            Text(entries, body) => {
                let mut response = http::Response::new(Body::new((*body).to_owned()));
                response.headers_mut().extend(headers(entries));
                response
            }
            Trailers(entries) => {
                let trailers = MetadataMap::from_headers(headers(entries));
                let status = tonic::Status::with_metadata(tonic::Code::NotFound, "", trailers);
                let messages = futures::stream::iter([Err(status)]);
                let body = EncodeBody::new_server(NoMessages, messages, None, Default::default(), None);
                let mut response = http::Response::new(Body::new(body));
                response.headers_mut().extend(headers(HEADERS));
                response
            }
        }
    }
}

/// Headers of a response before its status.
const HEADERS: &[(&str, &str)] = &[("content-type", "application/grpc")];
/// Headers that report success before the body.
const DONE: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "0")];

async fn socket() -> (TcpListener, Address) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::try_from(socket.local_addr().unwrap()).unwrap();
    (socket, address)
}

/// Dials a peer that presents `chain`, signs with `key`, and sends `answer` to every call.
async fn dial(chain: Vec<CertificateDer<'static>>, key: SigningKey, answer: Answer) -> Result<Link, DialError> {
    let (socket, address) = socket().await;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(chain, key)));
    tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.unwrap();
        let Ok(mut tls) = acceptor.accept(tcp).await else { return };
        let (ours, mut theirs) = duplex(1 << 16);
        tokio::spawn(async move { copy_bidirectional(&mut tls, &mut theirs).await });
        let answers = service_fn(move |_: http::Request<Body>| {
            let response = answer.response();
            async move { Ok::<_, Infallible>(response) }
        });
        let incoming =
            futures::StreamExt::chain(futures::stream::iter([Ok::<_, Infallible>(ours)]), futures::stream::pending());
        Server::builder().serve_with_incoming(answers, incoming).await.unwrap();
    });
    TlsTransport::new(&support::key(1)).unwrap().dial(id(HOSTILE), &address, TEST_TIMEOUT).await
}

async fn hostile(answer: Answer) -> Link {
    dial(vec![certificate(&key(HOSTILE))], key(HOSTILE), answer).await.unwrap()
}

/// The failures of one call of each shape. Runs in a task of its own to catch a panic.
async fn failures(answer: Answer) -> Vec<CallError> {
    let link = hostile(answer).await;
    let calls = tokio::spawn(async move {
        let unary = link.api().get_commit_info(call(HOSTILE), None).await.err();
        let range = CommitRange::new(1, 9).unwrap();
        let large = link.api().fetch_commits(call(HOSTILE), range).await.err();
        let streamed = match link.api().fetch_blocks(call(HOSTILE), refs(1)).await {
            Err(error) => Some(error),
            Ok(mut stream) => futures::StreamExt::next(&mut stream).await.and_then(Result::err),
        };
        [unary, large, streamed].into_iter().flatten().collect()
    });
    calls.await.expect("no panic in the caller's task")
}

#[tokio::test]
async fn valid_response_of_the_test_server_arrives() {
    // Proves that the failures below have their stated reason and no other.
    const INFO: &str = "\0\0\0\0\x24\x08\x05\x12\x200123456789abcdef0123456789abcdef";
    let link = hostile(Text(DONE, INFO)).await;
    assert_eq!(link.api().get_commit_info(call(HOSTILE), None).await.unwrap().index, 5);
}

#[tokio::test]
async fn response_announced_larger_than_the_limit_is_malformed() {
    // 16 MiB and 2 GiB: refused by the length prefix, before any memory is allocated for it.
    for body in ["\0\x01\0\0\0", "\0\x7f\x7f\x7f\x7f"] {
        for failure in failures(Text(HEADERS, body)).await {
            assert_eq!(failure.status, Status::MalformedAnswer, "{failure}");
        }
    }
}

#[tokio::test]
async fn response_may_be_as_long_as_its_call_can_need_and_no_longer() {
    // A megabyte instead of two numbers or a digest, three instead of two hundred node infos, and five instead of a
    // chunk of blocks. Only the length prefix is sent.
    let (one, three, five) = ("\0\0\x10\0\0", "\0\0\x30\0\0", "\0\0\x50\0\0");
    let link = hostile(Text(HEADERS, one)).await;
    assert_eq!(status(link.api().get_commit_info(call(HOSTILE), None).await), Status::MalformedAnswer);
    assert_eq!(status(link.api().get_commit_availability(call(HOSTILE)).await), Status::MalformedAnswer);
    assert_eq!(status(link.api().push_commit(call(HOSTILE), 1).await), Status::MalformedAnswer);
    let link = hostile(Text(HEADERS, three)).await;
    assert_eq!(status(link.api().get_known_peers(call(HOSTILE), "".into()).await), Status::MalformedAnswer);
    let link = hostile(Text(HEADERS, five)).await;
    let mut chunks = link.api().fetch_blocks(call(HOSTILE), refs(1)).await.unwrap();
    let refused = futures::StreamExt::next(&mut chunks).await.expect("an answer");
    assert_eq!(status(refused), Status::MalformedAnswer);
}

#[tokio::test]
async fn response_that_is_no_protobuf_is_malformed() {
    let failures = failures(Text(HEADERS, "\0\0\0\0\x03\x07\x07\x07")).await;
    assert_eq!(failures.len(), 3);
    for failure in failures {
        assert_eq!(failure.status, Status::MalformedAnswer, "{failure}");
    }
}

#[tokio::test]
async fn digest_of_the_wrong_length_is_malformed() {
    let link = hostile(Text(DONE, "\0\0\0\0\x07\x08\x05\x12\x03abc")).await;
    assert_eq!(status(link.api().get_commit_info(call(HOSTILE), None).await), Status::MalformedAnswer);
}

#[tokio::test]
async fn status_with_details_that_are_no_base64_is_an_error_and_no_panic() {
    const DETAILS: &[(&str, &str)] =
        &[("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-status-details-bin", "!")];
    const TRAILERS: &[(&str, &str)] = &[("grpc-status-details-bin", "!")];
    for answer in [Text(DETAILS, ""), Trailers(TRAILERS)] {
        let failures = failures(answer).await;
        assert_eq!(failures.len(), 3);
        for failure in failures {
            assert_eq!(failure.status, Status::NotFound, "{failure}");
        }
    }
}

#[tokio::test]
async fn response_that_breaks_grpc_is_an_error() {
    const OTHER_HTTP: &[(&str, &str)] = &[("content-type", "text/html")];
    const COMPRESSED: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
    const STATUS: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "nonsense")];
    for answer in [
        Text(HEADERS, ""),
        Text(HEADERS, "\0\0\0\0"),
        Text(HEADERS, "\0\0\0\0\x10cut short"),
        Text(HEADERS, "\x01\0\0\0\x01a"),
        Text(HEADERS, "\x02\0\0\0\x01a"),
        Text(OTHER_HTTP, "<html>It works!</html>"),
        Text(COMPRESSED, "\x01\0\0\0\x01a"),
        Text(STATUS, ""),
    ] {
        assert_eq!(failures(answer.clone()).await.len(), 3, "{answer:?}");
    }
}

/// A hello for the topic 2 with a limit of 100 bytes, as a gRPC message.
macro_rules! hello {
    () => {
        "\0\0\0\0\x08\x0a\x06\x08\x01\x10\x02\x18\x64"
    };
}

async fn broadcast(answer: Answer) -> Result<FrameStream, CallError> {
    let hello = Hello { topic: Topic::Certificates, max_message_bytes: 100 };
    let frames = futures::StreamExt::boxed(futures::stream::pending());
    let (answered, frames) = hostile(answer).await.api().broadcast(call(HOSTILE), hello, frames).await?;
    assert_eq!(answered, hello);
    Ok(frames)
}

#[tokio::test]
async fn server_of_an_older_version_does_not_know_broadcast() {
    const UNKNOWN: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "12")];
    assert_eq!(status(broadcast(Text(UNKNOWN, "")).await), Status::Unimplemented);
}

#[tokio::test]
async fn answer_to_a_hello_that_is_no_hello_is_malformed() {
    for body in [
        "",
        "\0\0\0\0\0",
        "\0\0\0\0\x05\x1a\x03abc",
        // The topic 1, the version 0, a limit of 0 bytes, and a frame too long.
        "\0\0\0\0\x08\x0a\x06\x08\x01\x10\x01\x18\x64",
        "\0\0\0\0\x08\x0a\x06\x08\x00\x10\x02\x18\x64",
        "\0\0\0\0\x08\x0a\x06\x08\x01\x10\x02\x18\x00",
        "\0\0\x20\0\0",
    ] {
        assert_eq!(status(broadcast(Text(DONE, body)).await), Status::MalformedAnswer, "{body:?}");
    }
}

#[tokio::test]
async fn malformed_frame_of_a_responder_ends_the_stream_with_a_fault() {
    for body in [
        concat!(hello!(), "\0\0\0\0\0"),
        concat!(hello!(), hello!()),
        concat!(hello!(), "\0\0\0\0\x05\x1a\x03abc"),
        concat!(hello!(), "\0\0\0\0\x03\x07\x07\x07"),
        concat!(hello!(), "\0\0\x20\0\0"),
    ] {
        let mut frames = broadcast(Text(HEADERS, body)).await.unwrap();
        let fault = timeout(TEST_TIMEOUT, futures::StreamExt::next(&mut frames)).await.unwrap().expect("a fault");
        assert_eq!(status(fault), Status::MalformedAnswer, "{body:?}");
        assert!(futures::StreamExt::next(&mut frames).await.is_none(), "nothing follows");
    }
}

#[tokio::test]
async fn endless_headers_are_not_kept() {
    static NAMES: std::sync::LazyLock<Vec<(&'static str, &'static str)>> =
        std::sync::LazyLock::new(|| vec![("x-endless", "0123456789abcdef0123456789abcdef"); 4_000]);
    assert_eq!(failures(Text(&NAMES, "")).await.len(), 3);
}

fn is_handshake(result: Result<Link, DialError>) -> bool {
    match result {
        Err(DialError::Handshake { .. }) => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn peer_with_a_certificate_of_the_wrong_form_is_refused() {
    let own = certificate(&key(HOSTILE));
    let mut forged = own.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let ecdsa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let ecdsa = CertificateParams::default().self_signed(&ecdsa).unwrap().der().clone();
    for chain in [vec![forged.into()], vec![ecdsa], vec![own.clone(), own], vec![vec![0x30; 40].into()]] {
        assert!(is_handshake(dial(chain, key(HOSTILE), Text(DONE, "")).await));
    }
}

#[tokio::test]
async fn peer_with_anothers_certificate_but_not_its_key_is_refused() {
    assert!(is_handshake(dial(vec![certificate(&key(HOSTILE))], key(14), Text(DONE, "")).await));
}

#[tokio::test]
async fn server_without_tls_is_refused() {
    let (socket, address) = socket().await;
    tokio::spawn(async move {
        let (mut tcp, _) = socket.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let transport = TlsTransport::new(&key(1)).unwrap();
    assert!(is_handshake(transport.dial(id(HOSTILE), &address, TEST_TIMEOUT).await));
}

#[tokio::test]
async fn dial_of_a_silent_server_times_out() {
    let (_socket, address) = socket().await;
    let limit = Duration::from_millis(100);
    let transport = TlsTransport::new(&key(1)).unwrap();
    let error = transport.dial(id(HOSTILE), &address, limit).await.unwrap_err();
    assert_eq!(error, DialError::Timeout { address, timeout: limit });
}

#[tokio::test]
async fn call_to_a_server_that_is_silent_after_tls_ends_at_its_deadline() {
    let (socket, address) = socket().await;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(vec![certificate(&key(HOSTILE))], key(HOSTILE))));
    let silent = tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let _ = tls.read_to_end(&mut Vec::new()).await;
    });
    let limit = Duration::from_millis(200);
    let transport = TlsTransport::new(&key(1)).unwrap();
    // Both results are valid: the peer's admission shows only when it has sent something.
    let link = match transport.dial(id(HOSTILE), &address, limit).await {
        Err(error) => return assert_eq!(error, DialError::Timeout { address, timeout: limit }),
        Ok(link) => link,
    };
    let call = Call { timeout: limit, ..call(HOSTILE) };
    let failed = status(link.api().get_commit_availability(call).await);
    assert!(matches!(failed, Status::DeadlineExceeded | Status::Cancelled), "{failed:?}");
    link.hang_up();
    timeout(TEST_TIMEOUT, link.closed()).await.expect("the link ends");
    timeout(TEST_TIMEOUT, silent).await.expect("the peer sees the end").unwrap();
}
