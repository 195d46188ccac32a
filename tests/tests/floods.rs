//! A node that is attacked in every way at once. A test binary of its own: it looks at the memory of the whole process.
#![cfg(target_os = "linux")]

#[path = "../../crates/transport/tests/support/tls.rs"]
#[allow(dead_code)] // This needs a part of it.
mod tls;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use rustls::pki_types::ServerName;
use soma_p2p::{ActorSystem, CertifiedCommit, ChainId};
use soma_protocol::serving::Rpc;
use soma_testkit::{ChainBuilder, ChainSpec, address_of};
use soma_tests::{config, eventually, expect_commits, key, mem_store, node, start};
use soma_transport::{TlsTransport, Transport};
use soma_types::PeerId;
use soma_wire::{
    CHAIN_ID_METADATA, Call, Status,
    proto::{BlockRef, FetchBlocksRequest, FetchCommitsRequest},
};
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tls::{Card, certificate, client_config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const MIB: usize = 1 << 20;

/// What the attacked node may hold of answers that nobody reads, in all and of one connection.
const UNREAD: [usize; 2] = [64 * MIB, 16 * MIB];

/// How much the process may grow while it is attacked, beyond what it holds before:
///
/// | what | MiB |
/// |---|---|
/// | answers that are not read | 64 |
/// | behind them in streams of large blocks: one in the channel, one on its way to it | 128 |
/// | answers being made, 8 of 12 MiB at most | 96 |
/// | the node that syncs meanwhile, in this process: bytes in flight, twice, as it checks them | 128 |
/// | its store: the chain | 64 |
/// | 600 connections and calls of both ends, allocator | 64 |
///
/// Without bounds, eight connections with 64 streams each, which read nothing, would hold 1,800 MiB of commits alone.
const BUDGET: usize = 544 * MIB;

/// Addresses of those who attack; honest nodes are at 127.0.0.1.
const ATTACKERS: &str = "127.0.0.2";
const SILENT: &str = "127.0.0.3";

/// How much of the process is in memory, in bytes.
fn resident() -> usize {
    let pages: usize = fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The node that is attacked, as attackers know it.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    id: PeerId,
    chain: ChainId,
    refs: Vec<BlockRef>,
}

impl Target {
    fn new(system: &ActorSystem, chain: ChainId, commits: &[CertifiedCommit]) -> Self {
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
    async fn reads_nothing(&self, attacker: u8) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    async fn floods(&self, attacker: u8, frame: &[u8]) -> std::io::Result<()> {
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
    async fn hammers(&self, attacker: u8, refusals: &AtomicU64) {
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

    /// Opens sockets and says nothing, or nonsense.
    async fn opens_sockets(&self) -> std::io::Result<()> {
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
fn for_ever<F: Future<Output = ()> + Send>(
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_attacked_in_every_way_at_once_serves_on_within_its_memory_and_without_a_panic() {
    let spec = ChainSpec { payload_bytes: 700 << 10, commits_per_epoch: 20, ..ChainSpec::default() };
    let mut builder = ChainBuilder::new(spec).unwrap();
    let commits = builder.build(16);
    let genesis = builder.genesis().clone();
    let transport = TlsTransport::new(&key(1)).unwrap();
    let transport = transport
        .with_answer_time(Duration::from_secs(5))
        .with_unread_bytes(UNREAD[1], UNREAD[0])
        .with_loopback_limited();
    let attacked = start(node(1, &genesis, mem_store(&genesis, &commits), config(&[])).transport(Arc::new(transport)));
    let target = Target::new(&attacked, builder.chain_id(), &commits);
    let before = resident();

    let mut attacks = JoinSet::new();
    for attacker in 10..18 {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.reads_nothing(attacker).await;
        });
    }
    let ping = b"\0\0\x08\x06\0\0\0\0\0ping1234".as_slice();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x01\0\0".as_slice();
    let reset = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08".as_slice();
    for (attacker, frame) in [(20, ping), (21, settings), (22, reset)] {
        for_ever(&mut attacks, &target, move |target| async move {
            let _ = target.floods(attacker, frame).await;
        });
    }
    let refusals = Arc::new(AtomicU64::new(0));
    for attacker in [30, 31] {
        let refusals = refusals.clone();
        for_ever(&mut attacks, &target, move |target| {
            let refusals = refusals.clone();
            async move { target.hammers(attacker, &refusals).await }
        });
    }
    for_ever(&mut attacks, &target, |target| async move {
        let _ = target.opens_sockets().await;
    });
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    attacks.spawn(async move {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            seen.fetch_max(resident() as u64, Ordering::Relaxed);
        }
    });

    // Whoever is honest is served all the same: several, one after the other.
    for number in [2, 3] {
        let fresh = start(node(number, &genesis, mem_store(&genesis, &[]), config(&[&attacked])));
        expect_commits(&fresh, &commits).await;
        fresh.stop().await;
    }
    let told = timeout(soma_tests::PATIENCE, async {
        while refusals.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("the hammering peers are told when to come again");
    let whole = eventually(&attacked, "every attack has had its effect", |status| {
        status.serving.as_ref().is_some_and(|serving| serving.answered.get(&Rpc::FetchCommits) > Some(&60))
    });
    whole.await;
    attacks.shutdown().await;

    let grown = (most.load(Ordering::Relaxed) as usize).saturating_sub(before);
    println!("grown by {} MiB of {}", grown / MIB, BUDGET / MIB);
    assert!(grown <= BUDGET, "grown by {} MiB", grown / MIB);
    let status =
        eventually(&attacked, "calls end", |status| status.serving.as_ref().is_some_and(|serving| serving.active == 0));
    let status = status.await;
    println!("{:?}", status.serving);
    let banned: BTreeSet<_> = status.banned.iter().copied().collect();
    assert_eq!(banned, [20, 21].map(|attacker| PeerId::from(&key(attacker))).into(), "those that flood, and nobody else");
    attacked.stop().await;
}
