//! A slow link: a TCP proxy before a node, with a bandwidth and a delay each way.
//!
//! ```text
//!   caller --> read at the bandwidth --> queue (delay) --> write --> node
//!   caller <-- write <-- queue (delay) <-- read at the bandwidth <-- node
//! ```

use crate::localnet::process::loopback;
use soma_p2p::Address;
use soma_p2p_cli::CliError;
use soma_testkit::address_of;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{self, Runtime},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Bytes carried at once: 1.3 ms of 50 Mbit/s.
const CHUNK_BYTES: usize = 8 << 10;

/// Bytes that the kernel keeps for the proxy to read. A real link has about as much in its buffers.
const BUFFER_BYTES: u32 = 32 << 10;

/// Chunks on their way: more than the delay times the bandwidth.
const CHUNKS: usize = 256;

/// Time that the link catches up when this process was woken late.
const CATCH_UP: Duration = Duration::from_millis(10);

/// What the link is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Each way.
    pub(super) bytes_per_second: u32,
    /// Each way.
    pub(super) delay: Duration,
}

/// The proxy. It carries nothing more once it is dropped.
pub(super) struct Throttle {
    address: Address,
    runtime: Option<Runtime>,
}

impl Throttle {
    /// Listens on loopback for the node at `node`.
    pub(super) fn start(node: &Address, link: Link) -> Result<Self, CliError> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(CliError::failed)?;
        let (host, port) = node.host_and_port();
        let node = SocketAddr::new(host.parse().map_err(CliError::failed)?, port);
        let listen = || {
            let socket = TcpSocket::new_v4()?;
            // Accepted connections inherit it.
            socket.set_recv_buffer_size(BUFFER_BYTES)?;
            socket.bind(loopback())?;
            socket.listen(16)
        };
        let listener = runtime.block_on(async { listen() }).map_err(CliError::failed)?;
        let address = address_of(listener.local_addr().map_err(CliError::failed)?);
        runtime.spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // The end of either way is the end of the connection.
                    let _ = carry_both(caller, node, link).await;
                });
            }
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn carry_both(caller: TcpStream, node: SocketAddr, link: Link) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    let node = socket.connect(node).await?;
    for stream in [&caller, &node] {
        stream.set_nodelay(true)?;
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_node, to_node) = node.into_split();
    tokio::select! {
        carried = carry(from_caller, to_node, link) => carried,
        carried = carry(from_node, to_caller, link) => carried,
    }
}

async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, link: Link) -> io::Result<()> {
    let (queue, queued) = mpsc::channel(CHUNKS);
    tokio::select! {
        read = read(from, queue, link) => read,
        written = write(to, queued) => written,
    }
}

async fn read(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, Vec<u8>)>, link: Link) -> io::Result<()> {
    let mut free_at = Instant::now();
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        chunk.truncate(read);
        free_at = free_at.max(Instant::now() - CATCH_UP)
            + Duration::from_secs_f64(read as f64 / f64::from(link.bytes_per_second));
        // What is carried late arrives late: the delay is never shorter.
        if queue.send((free_at.max(Instant::now()) + link.delay, chunk)).await.is_err() {
            return Ok(());
        }
        sleep_until(free_at).await;
    }
}

async fn write(mut to: OwnedWriteHalf, mut queued: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
    while let Some((due, chunk)) = queued.recv().await {
        sleep_until(due).await;
        to.write_all(&chunk).await?;
    }
    Ok(())
}
