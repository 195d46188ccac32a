//! A slow wire: a TCP proxy before a server, which forwards bytes without reading them.

use crate::address_of;
use soma_types::Address;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
    time::sleep,
};

/// Time from one byte to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes carried at once while nothing is to trickle.
const BUFFER_BYTES: usize = 16 << 10;

/// The proxy. It carries nothing more once it is dropped.
pub(super) struct Throttle {
    address: Address,
    accepting: JoinHandle<()>,
}

impl Throttle {
    /// Listens on loopback for the server at `server`. From when `trickles` says so, what the server sends goes on
    /// one byte a second.
    pub(super) async fn start(server: Address, trickles: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback");
        let address = address_of(socket.local_addr().expect("a bound socket"));
        let trickles = Arc::new(trickles);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((caller, _)) = socket.accept().await {
                let (server, trickles) = (server.clone(), trickles.clone());
                connections.spawn(async move {
                    // The end of either way is the end of the connection.
                    let _ = carry(caller, &server, &*trickles).await;
                });
            }
        });
        Self { address, accepting }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(caller: TcpStream, server: &Address, trickles: &(dyn Fn() -> bool + Send + Sync)) -> io::Result<()> {
    let server = TcpStream::connect(server.host_and_port()).await?;
    for stream in [&caller, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut from_caller, to_caller) = caller.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        carried = copy(&mut from_caller, &mut to_server) => carried.map(drop),
        carried = answer(from_server, to_caller, trickles) => carried,
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    trickles: &(dyn Fn() -> bool + Send + Sync),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if !trickles() {
            to.write_all(&buffer[..read]).await?;
            continue;
        }
        for byte in &buffer[..read] {
            to.write_all(std::slice::from_ref(byte)).await?;
            sleep(PAUSE).await;
        }
    }
}
