//! gRPC over mutual TLS 1.3 over TCP: dialling and listening.
//!
//! ```text
//!   accept --> handshakes --> certificate (peer id) --> admission
//!          --> watched_io (frames, strangers) --> HTTP/2 --> grpc_server --> answers
//! ```

mod answers;
mod certificate;
mod frame_bodies;
mod frames;
mod grpc_client;
mod grpc_server;
mod handshakes;
mod pace;
mod strangers;
mod watched_io;

pub use certificate::TransportError;
#[cfg(feature = "decoders")]
pub use certificate::decoders;

use crate::wire::{
    limits::{MAX_FRAME_BYTES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES},
    proto::p2p_server::P2pServer,
};
use crate::{
    CallersMemory, ConnectionId, DialError, Inbound, InboundHandler, Link, ListenError, Listener, Transport,
    admission::Admission, ends::Ends, standing::Standing,
};
use answers::{Answers, MADE_AT_ONCE};
use async_trait::async_trait;
use certificate::{Identity, NAME, peer_of};
use frame_bodies::{MAX_STREAMS, SMALL_FRAME};
use frames::{Frames, OpenStreams};
use grpc_client::GrpcPeer;
use grpc_server::{Caller, GrpcService, MAX_TIMEOUT, Watched};
use handshakes::{Handshakes, MAX_HANDSHAKES, TLS_BYTES};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use soma_types::{Address, ListenAddress, PeerId, SigningKey};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use strangers::{Share, Strangers};
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream, lookup_host},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};
use tower::service_fn;
use watched_io::WatchedIo;

/// Flow-control window of a stream to a dialled peer: large enough that a bulk transfer never waits for this node.
const STREAM_WINDOW: u32 = 2 << 20;

/// The same for all streams of a dialled connection: when all topics of `Broadcast` are left unread, there is room for a
/// call.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Flow-control window of a stream on an accepted connection: the largest request fits twice. Only requests and frames
/// of `Broadcast` arrive there; a window for bulk transfers would let each connection fill it with unread bytes.
const REQUEST_WINDOW: u32 = 256 << 10;

/// The same for all streams of an accepted connection: when all topics of `Broadcast` are left unread, there is room for
/// calls.
const REQUESTS_WINDOW: u32 = 1 << 20;

const _: () = {
    let topics = soma_types::Topic::ALL.len() as u32;
    assert!(topics * STREAM_WINDOW < CONNECTION_WINDOW && topics * REQUEST_WINDOW < REQUESTS_WINDOW);
};

/// Maximum HTTP/2 frame: large enough that framing costs nothing, small enough that streams take turns.
const MAX_FRAME: u32 = 256 << 10;

/// Maximum frame of a caller, which this node buffers. HTTP/2 allows no lower limit.
const MAX_REQUEST_FRAME: u32 = 16 << 10;

/// Read buffer of a dialled connection, which carries bulk transfers. By default rustls reads only 4 KiB per system
/// call.
const READ_BUFFER: usize = 128 << 10;

/// Bytes that the system takes and has not sent. By default it takes up to 4 MiB, and an urgent topic of `Broadcast`
/// would wait behind them. Bytes on their way to the peer do not count, so this does not limit the speed.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_UNSENT: u32 = 32 << 10;

/// Silence after which a connection gets a keep-alive PING.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Deadline of the reply to a keep-alive PING.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum concurrent calls of one connection.
const MAX_CONCURRENT_STREAMS: u32 = 64;

/// Maximum bytes of all headers of one call; this software sends about 300.
const MAX_HEADER_LIST: u32 = 4 << 10;

/// Memory that a peer can take with one connection, without responses and large frames of `Broadcast`: its requests, the
/// headers of all its calls, a small frame of `Broadcast` on each stream with what was read behind it, an HTTP/2 frame,
/// and TLS.
pub const CONNECTION_BYTES: usize = REQUESTS_WINDOW as usize
    + MAX_CONCURRENT_STREAMS as usize * MAX_HEADER_LIST as usize
    + MAX_STREAMS * (SMALL_FRAME + MAX_REQUEST_FRAME as usize)
    + MAX_REQUEST_FRAME as usize
    + TLS_BYTES;

/// Maximum memory of all concurrent handshakes.
pub const HANDSHAKES_BYTES: usize = MAX_HANDSHAKES * TLS_BYTES;

/// Maximum memory of all large responses that are made at the same time.
pub const MADE_BYTES: usize = MADE_AT_ONCE * MAX_RESPONSE_BYTES;

/// Streams that a peer may reset before they are handled; more end the connection (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;

/// Deadline of an inbound handshake with its admission.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Capacity of the queue of admitted connections to the HTTP/2 server.
const INCOMING_CAPACITY: usize = 16;

/// Pause after a failed accept (no file handles left), which prevents a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// gRPC over mutual TLS 1.3 over TCP.
pub struct TlsTransport {
    identity: Identity,
    handshake_timeout: Duration,
    limit_loopback: bool,
    answers: answers::Limits,
}

impl TlsTransport {
    /// A transport for the node with this key.
    ///
    /// # Errors
    /// Fails if the key cannot be used for TLS.
    pub fn new(key: &SigningKey) -> Result<Self, TransportError> {
        let (identity, answers) = (Identity::new(key)?, answers::Limits::default());
        Ok(Self { identity, handshake_timeout: HANDSHAKE_TIMEOUT, limit_loopback: false, answers })
    }

    /// Sets the timeout of inbound handshakes.
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Limits handshakes from loopback like those of other sources. By default loopback is exempt, because a whole
    /// network may run on one machine.
    pub fn with_loopback_limited(mut self) -> Self {
        self.limit_loopback = true;
        self
    }

    /// Sets the time in which a response must be read.
    pub fn with_answer_time(mut self, time: Duration) -> Self {
        self.answers.time = time;
        self
    }

    /// Sets the budget of unread bytes of all peers.
    pub fn with_unread_bytes(mut self, in_all: usize) -> Self {
        self.answers.in_all = in_all;
        self
    }

    async fn connect(&self, peer: PeerId, address: &Address) -> Result<Link, DialError> {
        let handshake = |reason: String| DialError::Handshake { address: address.clone(), reason };
        let (config, found) = self.identity.client_config(peer).map_err(|error| handshake(error.to_string()))?;
        let tcp = connect_tcp(address)
            .await
            .map_err(|error| DialError::Unreachable { address: address.clone(), reason: error.to_string() })?;
        let remote = tcp.peer_addr().ok().map(|remote| remote.ip().to_canonical());
        let name = ServerName::try_from(NAME).map_err(|error| handshake(error.to_string()))?;
        let tcp = BufReader::with_capacity(READ_BUFFER, tcp);
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
            match found.get().copied() {
                Some(found) if found != peer => DialError::WrongKey { address: address.clone(), expected: peer, found },
                _ => handshake(error.to_string()),
            }
        })?;
        let ends = Ends::default();
        let streams = Arc::<OpenStreams>::default();
        let io = WatchedIo::new(tls, &ends, Frames::of_server(streams.clone()), ());
        let channel = http2_client(io)
            .await
            .map_err(|error| DialError::Refused { address: address.clone(), reason: error.to_string() })?;
        Ok(Link::new(peer, remote, Arc::new(GrpcPeer::new(channel, streams)), ends))
    }
}

async fn connect_tcp(address: &Address) -> io::Result<TcpStream> {
    let (host, port) = address.host_and_port();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host.as_str(), port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                set_options(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT)?;
    Ok(())
}

/// HTTP/2 over one connection. When it ends the channel fails permanently: Connections decides about a new dial.
async fn http2_client(
    io: WatchedIo<client::TlsStream<BufReader<TcpStream>>, ()>,
) -> Result<tonic::transport::Channel, tonic::transport::Error> {
    let mut once = Some(TokioIo::new(io));
    let connector = service_fn(move |_: http::Uri| {
        let io = once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection has ended"));
        async move { io }
    });
    // The authority is ignored: TLS has authenticated the peer.
    Endpoint::from_static("http://soma-p2p")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .max_frame_size(MAX_FRAME)
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .connect_with_connector(connector)
        .await
}

#[async_trait]
impl Transport for TlsTransport {
    async fn dial(&self, peer: PeerId, address: &Address, limit: Duration) -> Result<Link, DialError> {
        match timeout(limit, self.connect(peer, address)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Timeout { address: address.clone(), timeout: limit }),
        }
    }

    async fn listen(&self, address: &ListenAddress, handler: Arc<dyn InboundHandler>) -> Result<Listener, ListenError> {
        let address = *address;
        let unusable = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse { address },
            _ => ListenError::Unusable { address, reason: error.to_string() },
        };
        let config = self.identity.server_config().map_err(|error| unusable(io::Error::other(error)))?;
        let socket = TcpListener::bind(address.0).await.map_err(unusable)?;
        let bound = Address::try_from(socket.local_addr().map_err(unusable)?);
        let bound = bound.map_err(|error| unusable(io::Error::other(error)))?;

        let (accepting, connections) = (CancellationToken::new(), CancellationToken::new());
        let (incoming, admitted) = mpsc::channel(INCOMING_CAPACITY);
        let (handshakes, answers) = (Handshakes::new(self.limit_loopback), Answers::new(self.answers));
        let acceptor = Acceptor {
            tls: TlsAcceptor::from(Arc::new(config)),
            handler: handler.clone(),
            handshake_timeout: self.handshake_timeout,
            handshakes: handshakes.clone(),
            answers: answers.clone(),
            strangers: Arc::<Strangers>::default(),
            connections: connections.clone(),
            incoming,
            next_id: AtomicU64::new(0),
        };
        tokio::spawn(Arc::new(acceptor).run(socket, accepting.clone()));
        let (done, drained) = oneshot::channel();
        tokio::spawn(serve(handler, admitted, accepting.clone(), done));
        tracing::info!(address = %bound, "listening");
        let memory = CallersMemory {
            unread: Arc::new(move || answers.bytes()),
            handshakes: Arc::new(move || handshakes.bytes()),
        };
        Ok(Listener { address: bound, accepting, connections, drained: Some(drained), memory: Some(memory) })
    }
}

type ServerIo = WatchedIo<server::TlsStream<TcpStream>, Caller>;

/// Serves HTTP/2 and gRPC on all admitted connections of a listener.
async fn serve(
    handler: Arc<dyn InboundHandler>,
    admitted: mpsc::Receiver<io::Result<ServerIo>>,
    accepting: CancellationToken,
    done: oneshot::Sender<()>,
) {
    let service = P2pServer::new(GrpcService::new(handler.api(), accepting.clone()));
    let service = Watched {
        frames: service.clone().max_decoding_message_size(MAX_FRAME_BYTES).max_encoding_message_size(MAX_FRAME_BYTES),
        calls: service.max_decoding_message_size(MAX_REQUEST_BYTES).max_encoding_message_size(MAX_RESPONSE_BYTES),
    };
    let served = Server::builder()
        // The deadline of callers without one. It also bounds a request that arrives slowly.
        .timeout(MAX_TIMEOUT)
        .initial_stream_window_size(REQUEST_WINDOW)
        .initial_connection_window_size(REQUESTS_WINDOW)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_frame_size(MAX_REQUEST_FRAME)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(admitted), accepting.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
    let _ = done.send(());
}

/// Accepts sockets, authenticates peers and asks the handler to admit them.
struct Acceptor {
    tls: TlsAcceptor,
    handler: Arc<dyn InboundHandler>,
    handshake_timeout: Duration,
    handshakes: Arc<Handshakes>,
    answers: Arc<Answers>,
    strangers: Arc<Strangers>,
    connections: CancellationToken,
    incoming: mpsc::Sender<io::Result<ServerIo>>,
    next_id: AtomicU64,
}

impl Acceptor {
    async fn run(self: Arc<Self>, socket: TcpListener, accepting: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = accepting.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let slot = self.handshakes.slot(remote.ip());
            let acceptor = self.clone();
            tokio::spawn(async move {
                let taking = timeout(acceptor.handshake_timeout, acceptor.take(stream, remote));
                match slot.evicted.run_until_cancelled(taking).await {
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => tracing::debug!(%remote, %error, "connection refused"),
                    Some(Err(_)) => tracing::debug!(%remote, "connection refused: the handshake took too long"),
                    None => tracing::debug!(%remote, "connection dropped: its slot was needed for another handshake"),
                }
                drop(slot);
            });
        }
    }

    async fn take(&self, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        set_options(&stream)?;
        let tls = self.tls.accept(stream).await?;
        let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().ok_or_else(|| io::Error::other("no certificate"))?;
        let peer = peer_of(certificate).map_err(|error| io::Error::other(error.to_string()))?;
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let ends = Ends { hang_up: self.connections.child_token(), ..Ends::default() };
        let remote = remote.ip().to_canonical();
        let standing = Standing::default();
        let inbound = Inbound { id, peer, remote, ends: ends.clone(), standing: standing.clone() };
        if !Admission::new(self.handler.clone(), inbound).ask().await {
            return Err(io::Error::other(format!("peer {} was not admitted", peer.short())));
        }
        let reader = self.answers.reader(id, ends.clone(), standing.clone());
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        let io = WatchedIo::new(tls, &ends, Frames::of_caller(), Caller { peer, remote, reader, streams })
            .with_share(Share::new(self.strangers.clone(), standing));
        let handler = self.handler.clone();
        tokio::spawn(async move {
            ends.closed.cancelled().await;
            handler.closed(id, peer);
        });
        // If the server has ended, dropping the stream reports the end to the handler.
        self.incoming.send(Ok(io)).await.map_err(|_| io::Error::other("this node is stopping"))
    }
}
