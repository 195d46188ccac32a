//! One TLS 1.3 stream on loopback, as bare as it can be: what the wire costs when nothing but bytes go over it.
//!
//! One thread is both ends in turn, so that no switch between threads is counted and every byte is still in the cache:
//! nothing that has ends of its own can do with less.

use super::{cost::Cost, usage};
use bytes::Bytes;
use rcgen::PKCS_ED25519;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};
use std::{
    error::Error,
    io::{self, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// The name in the certificate, which both ends have.
const NAME: &str = "bench";

/// Bytes sent before they are read: four records, and less than any socket holds.
const CHUNK: usize = 64 << 10;

/// Sends all of `blocks` so many times, and measures both ends after the handshake. The wall time is that of the slower
/// end, had each a core of its own.
pub(super) fn measure(blocks: &[Bytes], passes: usize) -> Result<Cost, Box<dyn Error + Send + Sync>> {
    let data: Vec<u8> = blocks.iter().flat_map(|block| block.iter().copied()).collect();
    let (client_config, server_config) = configs()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let mut receiver = End::new(ClientConnection::new(client_config, ServerName::try_from(NAME)?)?.into(), socket)?;
    let mut sender = End::new(ServerConnection::new(server_config)?.into(), listener.accept()?.0)?;
    while receiver.connection.is_handshaking() || sender.connection.is_handshaking() {
        receiver.send()?;
        sender.receive()?;
        sender.send()?;
        receiver.receive()?;
    }
    let mut room = vec![0; CHUNK];
    let (mut sent_cpu, mut received_cpu) = (0.0, 0.0);
    let mut now = usage::thread_cpu_s();
    let mut lap = |total: &mut f64| {
        let before = std::mem::replace(&mut now, usage::thread_cpu_s());
        *total += now - before;
    };
    for chunk in std::iter::repeat_n(&data, passes).flat_map(|data| data.chunks(CHUNK)) {
        sender.connection.writer().write_all(chunk)?;
        sender.send()?;
        lap(&mut sent_cpu);
        let mut missing = chunk.len();
        while missing > 0 {
            receiver.receive()?;
            missing -= receiver.read(&mut room[..missing])?;
            // What the socket did not take at once.
            sender.send()?;
        }
        lap(&mut received_cpu);
    }
    let wall = Duration::from_secs_f64(f64::max(sent_cpu, received_cpu));
    Ok(Cost { cpu_s: sent_cpu + received_cpu, wall })
}

/// One end of the stream.
struct End {
    connection: Connection,
    /// Read in large pieces: rustls asks for 4 KiB at a time.
    socket: BufReader<TcpStream>,
}

impl End {
    fn new(connection: Connection, socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { connection, socket: BufReader::with_capacity(2 * CHUNK, socket) })
    }

    /// Writes as much as the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(self.socket.get_mut()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                result => result.map(drop)?,
            }
        }
        Ok(())
    }

    /// Takes and decrypts something, if anything has come.
    fn receive(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self.connection.read_tls(&mut self.socket) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => result.map(drop)?,
        }
        self.connection.process_new_packets()?;
        Ok(())
    }

    /// Reads decrypted bytes.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.connection.reader().read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

/// The same cryptography as a node's: ring, its first choice of cipher, which is AES-256-GCM.
fn configs() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), Box<dyn Error + Send + Sync>> {
    let signing_key = rcgen::KeyPair::generate_for(&PKCS_ED25519)?;
    let cert = rcgen::CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&signing_key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client), Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_both_ends_cost_something() {
        let blocks = vec![Bytes::from(vec![7; 100_000]); 20];
        let cost = measure(&blocks, 2).unwrap();
        assert!(cost.cpu_s > 0.0 && cost.wall.as_secs_f64() > 0.0, "{cost:?}");
    }
}
