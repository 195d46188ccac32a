//! TLS of strangers: they present any kind of certificate, even if it was not requested.

use super::key;
use ed25519_dalek::{Signer as _, pkcs8::EncodePrivateKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, Signer, SigningKey as TlsKey},
    version::TLS13,
};
use soma_types::SigningKey;
use std::sync::Arc;

/// Seed of the strangers' key.
pub(crate) const STRANGER: u8 = 66;

/// Trusts every server. Only a stranger does that.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Signs any handshake with a key and claims that it is ed25519, so that only the certificate can be refused.
#[derive(Clone, Debug)]
struct Claims(SigningKey);

impl TlsKey for Claims {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Claims {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Presents a chain, even if the other side did not request it.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn presents(chain: Vec<CertificateDer<'static>>, key: SigningKey) -> Arc<Presents> {
    Arc::new(Presents(Arc::new(CertifiedKey::new(chain, Arc::new(Claims(key))))))
}

pub(crate) fn key_pair(key: &SigningKey) -> KeyPair {
    let pkcs8 = key.to_pkcs8_der().unwrap();
    KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_bytes().into(), &PKCS_ED25519).unwrap()
}

pub(crate) fn certificate(key: &SigningKey) -> CertificateDer<'static> {
    CertificateParams::default().self_signed(&key_pair(key)).unwrap().der().clone()
}

/// A stranger's certificate.
pub(crate) enum Card {
    Nothing,
    /// These certificates, with the handshake signed by the stranger's ed25519 key.
    Chain(Vec<CertificateDer<'static>>),
    /// The same, with the handshake signed by another key than the certificate's.
    SignedBy(Box<SigningKey>, CertificateDer<'static>),
}

pub(crate) fn client_config(card: Card) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match card {
        Card::Nothing => builder.with_no_client_auth(),
        Card::Chain(chain) => builder.with_client_cert_resolver(presents(chain, key(STRANGER))),
        Card::SignedBy(key, certificate) => builder.with_client_cert_resolver(presents(vec![certificate], *key)),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A server that presents these certificates, signs the handshake with `key`, and accepts any client.
pub(crate) fn server_config(chain: Vec<CertificateDer<'static>>, key: SigningKey) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(presents(chain, key));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
