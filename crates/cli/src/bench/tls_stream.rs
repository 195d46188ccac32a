//! One TLS 1.3 stream on loopback, as bare as it can be: what the wire costs when nothing but bytes go over it.

use super::{limit::Cost, usage};
use bytes::Bytes;
use rcgen::PKCS_ED25519;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};
use std::{
    error::Error,
    io::{self, BufReader, IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

/// The name in the certificate, which both ends have.
const NAME: &str = "bench";

/// Bytes given to one write, and room for one read, of the stream and of the socket.
const CHUNK: usize = 256 << 10;

/// Sends all of `blocks` so many times, and measures both ends after the handshake.
pub(super) fn measure(blocks: &[Bytes], passes: usize) -> Result<Cost, Box<dyn Error + Send + Sync>> {
    let data: Vec<u8> = blocks.iter().flat_map(|block| block.iter().copied()).collect();
    let (client_config, server_config) = configs()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let total = data.len() * passes;
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<f64, Box<dyn Error + Send + Sync>> {
            let mut socket = Buffered::new(listener.accept()?.0)?;
            let mut connection = ServerConnection::new(server_config)?;
            // Many records to one call of the system.
            connection.set_buffer_limit(Some(2 * CHUNK));
            let mut stream = Stream::new(&mut connection, &mut socket);
            expect_hello(&mut stream)?;
            let before = usage::thread_cpu_s();
            for _ in 0..passes {
                for chunk in data.chunks(CHUNK) {
                    stream.write_all(chunk)?;
                }
            }
            stream.flush()?;
            Ok(usage::thread_cpu_s() - before)
        });
        let mut socket = Buffered::new(TcpStream::connect(address)?)?;
        let mut connection = ClientConnection::new(client_config, ServerName::try_from(NAME)?)?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.write_all(HELLO)?;
        stream.flush()?;
        let (before, started) = (usage::thread_cpu_s(), Instant::now());
        let mut room = vec![0; CHUNK];
        let mut received = 0;
        while received < total {
            match stream.read(&mut room)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => received += count,
            }
        }
        let (received, wall) = (usage::thread_cpu_s() - before, started.elapsed());
        let sent = sender.join().map_err(|_| "the sending end panicked")??;
        Ok(Cost { cpu_s: sent + received, wall })
    })
}

/// A socket that is read in large pieces: rustls alone asks for 4 KiB at a time.
struct Buffered(BufReader<TcpStream>);

impl Buffered {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(CHUNK, socket)))
    }
}

impl Read for Buffered {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// What the reading end says when the handshake is done, so that neither end measures it.
const HELLO: &[u8] = b"go";

fn expect_hello(stream: &mut impl Read) -> io::Result<()> {
    let mut hello = [0; HELLO.len()];
    stream.read_exact(&mut hello)
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
