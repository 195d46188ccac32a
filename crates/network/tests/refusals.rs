//! Refused clients over TLS. After each of them the listener still serves honest peers.

#![cfg(feature = "tls")]

mod support;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ClientConfig, pki_types::ServerName};
use soma_network::{TlsTransport, Transport};
use std::{sync::Arc, time::Duration};
use support::{tls::*, *};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Seed of the listening node.
const LISTENER: u8 = 2;

/// Does a handshake and reads until the listener ends it. Returns whether the listener sent any byte before.
async fn was_let_in(node: &Node, config: ClientConfig) -> bool {
    let tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    let name = ServerName::try_from("soma-p2p").unwrap();
    let Ok(mut tls) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await else { return false };
    // A TLS 1.3 client finishes before the server has seen its certificate, so the refusal must be read.
    // A listener that admits a client sends HTTP/2 settings.
    timeout(TEST_TIMEOUT, tls.read_u8()).await.expect("a listener that decides").is_ok()
}

/// The next honest peer is served, and the handler has seen no other peer.
async fn serves_the_honest(node: &mut Node) {
    let transport = TlsTransport::new(&key(1)).unwrap();
    let link = transport.dial(node.id, node.address(), TEST_TIMEOUT).await.unwrap();
    assert_eq!(link.api().get_commit_availability(call(LISTENER)).await.unwrap(), AVAILABILITY);
    let inbound = node.connected().await;
    assert_eq!(inbound.peer(), id(1));
    link.hang_up();
    node.closed(&inbound).await;
}

async fn refuses(card: Card) {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    assert!(!was_let_in(&node, client_config(card)).await);
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn valid_client_of_the_tests_is_let_in() {
    // Proves that the refusals below have their stated reason and no other.
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let card = Card::Chain(vec![certificate(&key(STRANGER))]);
    assert!(was_let_in(&node, client_config(card)).await);
    let inbound = node.connected().await;
    assert_eq!(inbound.peer(), id(STRANGER));
    node.closed(&inbound).await;
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn client_without_a_certificate_is_refused() {
    refuses(Card::Nothing).await;
}

#[tokio::test]
async fn certificate_with_another_kind_of_key_is_refused() {
    let ecdsa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&ecdsa).unwrap();
    refuses(Card::Chain(vec![certificate.der().clone()])).await;
}

#[tokio::test]
async fn certificate_that_its_key_did_not_sign_is_refused() {
    // The key is right and proven by the handshake, but the certificate's own signature is wrong.
    let mut forged = certificate(&key(STRANGER)).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    refuses(Card::Chain(vec![forged.into()])).await;
}

#[tokio::test]
async fn certificate_signed_by_another_key_is_refused() {
    let issuer = rcgen::Issuer::new(CertificateParams::default(), key_pair(&key(67)));
    let issued = CertificateParams::default().signed_by(&key_pair(&key(STRANGER)), &issuer).unwrap();
    refuses(Card::Chain(vec![issued.der().clone()])).await;
}

#[tokio::test]
async fn certificate_of_another_node_is_refused() {
    // The certificate of an honest node, replayed by a client without its key.
    refuses(Card::SignedBy(Box::new(key(STRANGER)), certificate(&key(1)))).await;
}

#[tokio::test]
async fn more_than_one_certificate_is_refused() {
    let own = certificate(&key(STRANGER));
    refuses(Card::Chain(vec![own.clone(), own])).await;
}

#[tokio::test]
async fn certificate_with_trailing_bytes_is_refused() {
    let mut longer = certificate(&key(STRANGER)).to_vec();
    longer.push(0);
    refuses(Card::Chain(vec![longer.into()])).await;
}

#[tokio::test]
async fn malformed_or_huge_certificate_is_refused() {
    refuses(Card::Chain(vec![vec![0x30; 300].into()])).await;
    let mut params = CertificateParams::default();
    let huge = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999], vec![0; 20_000]);
    params.custom_extensions.push(huge);
    let huge = params.self_signed(&key_pair(&key(STRANGER))).unwrap();
    refuses(Card::Chain(vec![huge.der().clone()])).await;
}

#[tokio::test]
async fn client_with_another_application_protocol_is_refused() {
    let mut config = client_config(Card::Chain(vec![certificate(&key(STRANGER))]));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    assert!(!was_let_in(&node, config).await);
    serves_the_honest(&mut node).await;
}

/// A ClientHello of TLS 1.2: no supported_versions extension, otherwise in order.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: [&[u8]; 4] = [
        &[0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x1d], // supported_groups: x25519
        &[0x00, 0x0b, 0x00, 0x02, 0x01, 0x00],             // ec_point_formats: uncompressed
        &[0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x08, 0x07, 0x04, 0x03], // signature_algorithms: ed25519, ecdsa
        &[0x00, 0x10, 0x00, 0x05, 0x00, 0x03, 0x02, b'h', b'2'], // alpn: h2
    ];
    let extensions = extensions.concat();
    let mut body = vec![0x03, 0x03];
    body.extend([0x42; 32]); // random
    body.push(0); // no session
    body.extend([0x00, 0x04, 0xc0, 0x2b, 0xc0, 0x2c]); // ECDHE-ECDSA with AES-GCM
    body.extend([0x01, 0x00]); // no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![0x16, 0x03, 0x01];
    hello.extend((body.len() as u16 + 4).to_be_bytes());
    hello.push(0x01);
    hello.extend(&(body.len() as u32).to_be_bytes()[1..]);
    hello.extend(body);
    hello
}

/// The bytes that the listener sends in reply to `bytes` before it hangs up.
async fn answer_to(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    // The listener may hang up before all is written.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(TEST_TIMEOUT, tcp.read_to_end(&mut answer)).await.expect("the listener hangs up");
    answer
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    const ALERT: u8 = 0x15;
    const PROTOCOL_VERSION: u8 = 70;
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    let answer = answer_to(&node, &tls12_client_hello()).await;
    assert_eq!((answer.first(), answer.last()), (Some(&ALERT), Some(&PROTOCOL_VERSION)), "{answer:x?}");
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn garbage_is_refused() {
    let mut node = Net::Tls.node(LISTENER, Behaviour::Answers).await;
    for garbage in [&[0xff; 5_000][..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 64]] {
        answer_to(&node, garbage).await;
    }
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn silent_client_is_hung_up_when_the_handshake_times_out() {
    let transport = TlsTransport::new(&key(LISTENER)).unwrap().with_handshake_timeout(Duration::from_millis(100));
    let mut node = Node::listen(&transport, LISTENER, Behaviour::Answers).await;
    let mut silent = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    let mut half = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    half.write_all(&tls12_client_hello()[..20]).await.unwrap();
    for socket in [&mut silent, &mut half] {
        let end = timeout(TEST_TIMEOUT, socket.read(&mut [0; 8])).await.expect("the listener hangs up");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn more_handshakes_than_places_do_not_keep_out_later_peers() {
    let transport = TlsTransport::new(&key(LISTENER)).unwrap().with_handshake_timeout(Duration::from_millis(500));
    let mut node = Node::listen(&transport, LISTENER, Behaviour::Answers).await;
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(TcpStream::connect(node.address().host_and_port()).await.unwrap());
    }
    // All are hung up: those beyond the places at once, the others at their timeout.
    for mut socket in sockets {
        let end = timeout(TEST_TIMEOUT, socket.read(&mut [0; 8])).await.expect("the listener hangs up");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    serves_the_honest(&mut node).await;
}

#[tokio::test]
async fn handler_that_never_decides_holds_no_connection() {
    let transport = TlsTransport::new(&key(LISTENER)).unwrap().with_handshake_timeout(Duration::from_millis(200));
    let mut node = Node::listen(&transport, LISTENER, Behaviour::Undecided).await;
    let dialler = TlsTransport::new(&key(1)).unwrap();
    let link = dialler.dial(node.id, node.address(), TEST_TIMEOUT).await;
    let inbound = node.connected().await;
    node.closed(&inbound).await;
    if let Ok(link) = link {
        timeout(TEST_TIMEOUT, link.closed()).await.expect("the link ends");
    }
}
