//! A client below the typed calls.

use super::{
    Node, key,
    tls::{Card, STRANGER, certificate, client_config},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use soma_network::wire::proto::p2p_client::P2pClient;
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The generated client, over TLS with a stranger's key and without any checks.
pub(crate) async fn raw_client(node: &Node) -> P2pClient<Channel> {
    let tcp = TcpStream::connect(node.address().host_and_port()).await.unwrap();
    let config = client_config(Card::Chain(vec![certificate(&key(STRANGER))]));
    let name = ServerName::try_from("soma-p2p").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let mut once = Some(TokioIo::new(tls));
    let connector = service_fn(move |_: http::Uri| {
        let io = once.take().ok_or_else(|| io::Error::other("once"));
        async move { io }
    });
    P2pClient::new(Endpoint::from_static("http://any").connect_with_connector(connector).await.unwrap())
}
