//! Callers that ask for much and read nothing, flood and hammer, over TLS and HTTP/2 with bytes of our own choice.

use crate::tls::{Card, certificate, client_config};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use rustls::pki_types::ServerName;
use soma_network::wire::{
    CHAIN_ID_METADATA, Call, Status,
    proto::{BlockRef, FetchBlocksRequest, FetchCommitsRequest},
};
use soma_network::{TlsTransport, Transport};
use soma_p2p::{ActorSystem, CertifiedCommit, ChainId};
use soma_testkit::address_of;
use soma_tests::key;
use soma_types::PeerId;
use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Addresses of those who attack; honest nodes are at 127.0.0.1.
const ATTACKERS: &str = "127.0.0.2";
const SILENT: &str = "127.0.0.3";

/// The node that is attacked, as attackers know it.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    id: PeerId,
    chain: ChainId,
    refs: Vec<BlockRef>,
}

impl Target {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn new(system: &ActorSystem, chain: ChainId, commits: &[CertifiedCommit]) -> Self {
        let (host, port) = system.address().host_and_port();
        let refs = commits.iter().flat_map(|commit| &commit.commit.blocks).map(|block| BlockRef {
            epoch: block.epoch,
            round: block.round,
            author: block.author,
            digest: Bytes::copy_from_slice(&block.digest.0),
        });
        let address = format!("{host}:{port}").parse().unwrap();
        Self { address, id: system.peer_id(), chain, refs: refs.collect() }
    }

    async fn tcp(&self, source: &str) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{source}:0").parse().unwrap())?;
        socket.connect(self.address).await
    }

    async fn tls(&self, attacker: u8) -> std::io::Result<TlsStream<TcpStream>> {
        let key = key(attacker);
        let config = client_config(Card::SignedBy(Box::new(key.clone()), certificate(&key)));
        let tcp = self.tcp(ATTACKERS).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("soma-p2p").unwrap(), tcp).await
    }

    async fn ask(
        &self,
        requests: &SendRequest<Bytes>,
        method: &str,
        message: impl Message,
    ) -> Result<ResponseFuture, h2::Error> {
        let chain = base64(self.chain.as_bytes());
        let request = http::Request::post(format!("http://any/soma.p2p.v1.P2p/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(CHAIN_ID_METADATA, chain)
            .body(())
            .unwrap();
        let mut body = BytesMut::from(&[0][..]);
        body.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        message.encode(&mut body).unwrap();
        let mut requests = requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request(request, false)?;
        stream.send_data(body.freeze(), true)?;
        Ok(response)
    }

    /// Asks for the largest answers on all streams and reads nothing, until it is hung up.
    pub(crate) async fn reads_nothing(&self, attacker: u8) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let io = self.tls(attacker).await?;
        let (requests, connection) = h2::client::Builder::new().initial_window_size(1).handshake(io).await?;
        let connection = tokio::spawn(connection);
        let mut asked = Vec::new();
        for number in 0..64 {
            asked.push(if number % 2 == 0 {
                self.ask(&requests, "FetchCommits", FetchCommitsRequest { start: 1, end: 100, max_bytes: 0 }).await?
            } else {
                self.ask(&requests, "FetchBlocks", FetchBlocksRequest { refs: self.refs.clone() }).await?
            });
        }
        let answers = join_all(asked).await;
        let _ = connection.await?;
        drop(answers);
        Ok(())
    }

    /// Sends frames that h2 answers, or takes for nothing, until it is hung up.
    pub(crate) async fn floods(&self, attacker: u8, frame: &[u8]) -> std::io::Result<()> {
        let (mut reads, mut writes) = tokio::io::split(self.tls(attacker).await?);
        let reading = async {
            let mut bytes = vec![0; 1 << 14];
            while reads.read(&mut bytes).await? > 0 {}
            Ok(())
        };
        let writing = async {
            writes.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
            loop {
                writes.write_all(frame).await?;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
        }
    }

    /// Pushes and asks for peers as fast as it can, whatever it is told. Counts answers and refusals.
    pub(crate) async fn hammers(&self, attacker: u8, refusals: &AtomicU64) {
        let transport = TlsTransport::new(&key(attacker)).unwrap();
        let Ok(link) = transport.dial(self.id, &address_of(self.address), Duration::from_secs(5)).await else { return };
        let call = Call { peer: self.id, chain: Some(self.chain), remote: None, timeout: Duration::from_secs(5) };
        loop {
            let pushes = join_all((0..40).map(|_| link.api().push_commit(call, u32::MAX)));
            let queries = join_all((0..20).map(|_| link.api().get_known_peers(call, Bytes::from(vec![1; 9_000]))));
            let (pushes, queries) = tokio::join!(pushes, queries);
            let failed = pushes.into_iter().filter_map(Result::err).chain(queries.into_iter().filter_map(Result::err));
            for error in failed {
                if error.status == Status::ResourceExhausted && error.retry_after.is_some() {
                    refusals.fetch_add(1, Ordering::Relaxed);
                } else if error.status != Status::ResourceExhausted {
                    return;
                }
            }
        }
    }

    /// Makes cheap calls as fast as they are answered, forty at once.
    pub(crate) async fn calls_without_end(&self, attacker: u8) {
        let transport = TlsTransport::new(&key(attacker)).unwrap();
        let Ok(link) = transport.dial(self.id, &address_of(self.address), Duration::from_secs(5)).await else { return };
        let call = Call { peer: self.id, chain: Some(self.chain), remote: None, timeout: Duration::from_secs(5) };
        while !link.is_closed() {
            join_all((0..40).map(|_| link.api().get_commit_info(call, Some(1)))).await;
        }
    }

    /// Opens sockets and says nothing, or nonsense.
    pub(crate) async fn opens_sockets(&self) -> std::io::Result<()> {
        let mut sockets = Vec::new();
        for number in 0..100 {
            let mut socket = self.tcp(SILENT).await?;
            if number % 3 == 0 {
                socket.write_all(&[number; 500]).await?;
            }
            sockets.push(socket);
        }
        for mut socket in sockets {
            while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
        }
        Ok(())
    }
}

/// How much of this process is in memory, in bytes.
pub(crate) fn resident() -> usize {
    let pages: usize = fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| DIGITS[(bits & 63) as usize] as char;
    let chunk = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
        digits.into_iter().take(chunk.len() + 1).collect::<String>()
    };
    bytes.chunks(3).map(chunk).collect()
}

/// Attacks again and again, however it ends.
pub(crate) fn for_ever<F: Future<Output = ()> + Send>(
    attacks: &mut JoinSet<()>,
    target: &Target,
    attack: impl Fn(Target) -> F + Send + 'static,
) {
    let target = target.clone();
    attacks.spawn(async move {
        loop {
            attack(target.clone()).await;
            tokio::task::yield_now().await;
        }
    });
}
