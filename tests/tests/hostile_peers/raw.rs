//! Hostile peers in words that no typed call has: TLS with the right key, HTTP/2, and bytes of our own choice.

use bytes::Bytes;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use futures::{StreamExt, stream};
use prost::Message;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer, version::TLS13};
use soma_network::wire::proto::{
    GetCommitAvailabilityResponse, GetCommitInfoResponse, GetKnownPeersResponse, PushCommitResponse,
};
use soma_p2p::{Genesis, PeerId, SeedPeer, SigningKey};
use soma_testkit::hostile::Behaviour;
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, copy_bidirectional, duplex, split},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::Server};
use tower::service_fn;

/// Bytes between TLS and HTTP/2.
const BUFFER_BYTES: usize = 1 << 16;

/// A peer on loopback that says it has `height` commits and answers requests for them with bytes that are no answer.
pub(crate) struct RawServer {
    seed_peer: SeedPeer,
    accepting: JoinHandle<()>,
}

impl RawServer {
    /// For the behaviours that concern bytes: [`is_raw`].
    pub(crate) async fn start(behaviour: Behaviour, key: &SigningKey, genesis: &Genesis, height: u32) -> Self {
        let bytes = match behaviour {
            // Two gigabytes follow, says the length.
            Behaviour::AnnouncesHugeMessages => Bytes::from_static(b"\0\x7f\xff\xff\xff"),
            _ => Bytes::from_static(b"\0\0\0\0\x03\x07\x07\x07"),
        };
        Self::listen(key, genesis, height, bytes, None).await
    }

    /// A peer that says it has the first commit, and then sends this HTTP/2 frame again and again.
    pub(crate) async fn flooding(key: &SigningKey, genesis: &Genesis, frame: Bytes) -> Self {
        Self::listen(key, genesis, 1, Bytes::new(), Some(frame)).await
    }

    async fn listen(key: &SigningKey, genesis: &Genesis, height: u32, bytes: Bytes, flood: Option<Bytes>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = soma_testkit::address_of(socket.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config(key)));
        let commit = genesis.commit().reference();
        let answer = move |method: &str| -> Bytes {
            match method {
                "GetCommitInfo" => framed(&GetCommitInfoResponse::from(commit)),
                "GetCommitAvailability" => {
                    framed(&GetCommitAvailabilityResponse { highest_synced_commit: height, lowest_available_commit: 1 })
                }
                "GetKnownPeers" => framed(&GetKnownPeersResponse::default()),
                "PushCommit" => framed(&PushCommitResponse {}),
                _ => bytes.clone(),
            }
        };
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = socket.accept().await {
                tokio::spawn(serve(tcp, acceptor.clone(), answer.clone(), flood.clone()));
            }
        });
        Self { seed_peer: SeedPeer { peer_id: PeerId::from(key), address }, accepting }
    }

    pub(crate) fn seed_peer(&self) -> SeedPeer {
        self.seed_peer.clone()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Whether the behaviour takes a [`RawServer`].
pub(crate) fn is_raw(behaviour: Behaviour) -> bool {
    matches!(behaviour, Behaviour::SendsGarbageProtobuf | Behaviour::AnnouncesHugeMessages)
}

fn config(key: &SigningKey) -> ServerConfig {
    let pkcs8 = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap().der().clone();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], pkcs8.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(&body);
    framed.into()
}

/// A body of these bytes.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// One connection, until it ends.
async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    answer: impl Fn(&str) -> Bytes + Clone + Send + 'static,
    flood: Option<Bytes>,
) {
    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
    let (ours, mut theirs) = duplex(BUFFER_BYTES);
    // A peer that has told of its height is connected by then.
    let told = CancellationToken::new();
    let begins = told.clone();
    let answers = service_fn(move |request: http::Request<Body>| {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        if method == "GetCommitAvailability" {
            told.cancel();
        }
        let mut response = http::Response::new(Body::new(Whole(Some(answer(&method)))));
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let incoming = stream::iter([Ok::<_, Infallible>(ours)]).chain(stream::pending());
    tokio::select! {
        () = async {
            match flood {
                Some(frame) => drop(between_frames(tls, theirs, begins, frame).await),
                None => drop(copy_bidirectional(&mut tls, &mut theirs).await),
            }
        } => {}
        _ = Server::builder().serve_with_incoming(answers, incoming) => {}
    }
}

/// Passes everything on, and `frame` again and again between the frames of the server, once `begins` is cancelled.
async fn between_frames(
    tls: TlsStream<TcpStream>,
    server: DuplexStream,
    begins: CancellationToken,
    frame: Bytes,
) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = split(tls);
    let (mut from_server, mut to_server) = split(server);
    let (frames, mut next) = mpsc::channel(1);
    let reading = async move {
        loop {
            let mut bytes = vec![0; 9];
            from_server.read_exact(&mut bytes).await?;
            let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
            bytes.resize(9 + len, 0);
            from_server.read_exact(&mut bytes[9..]).await?;
            if frames.send(bytes).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async move {
        loop {
            tokio::select! {
                biased;
                bytes = next.recv() => match bytes {
                    Some(bytes) => to_caller.write_all(&bytes).await?,
                    None => return io::Result::Ok(()),
                },
                () = begins.cancelled() => to_caller.write_all(&frame).await?,
            }
            to_caller.flush().await?;
        }
    };
    tokio::try_join!(reading, writing, copy(&mut from_caller, &mut to_server))?;
    Ok(())
}
