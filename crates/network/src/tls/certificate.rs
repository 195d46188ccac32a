//! Self-signed ed25519 certificates, with which nodes prove their keys in TLS.
//!
//! A certificate carries only a key. It is accepted if it holds a valid ed25519 key and is signed by that key. TLS 1.3
//! proves that the other end has the private key. Names, dates and extensions mean nothing between peers and are
//! ignored.

use ed25519_dalek::pkcs8::EncodePrivateKey;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use soma_types::{PeerId, PublicKey, SigningKey};
use std::sync::{Arc, OnceLock};
use x509_parser::{oid_registry::OID_SIG_ED25519, prelude::FromDer, prelude::X509Certificate};

/// Maximum size of a certificate in bytes; this software makes certificates of about 300.
const MAX_CERTIFICATE_BYTES: usize = 4 << 10;

/// HTTP/2 is the only application protocol.
const ALPN: &[u8] = b"h2";

/// The reason why an identity cannot be used for TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be used for TLS: {reason}")]
pub struct TransportError {
    /// The library's error.
    pub reason: String,
}

fn unusable(error: impl ToString) -> TransportError {
    TransportError { reason: error.to_string() }
}

/// A node's certificate and key, and the cryptography it uses.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    pub(crate) fn new(key: &SigningKey) -> Result<Self, TransportError> {
        let pkcs8 = key.to_pkcs8_der().map_err(unusable)?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_bytes().to_vec());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).map_err(unusable)?;
        let params = CertificateParams::new(vec![NAME.to_owned()]).map_err(unusable)?;
        let certificate = params.self_signed(&pair).map_err(unusable)?;
        Ok(Self { certificate: certificate.der().clone(), key: pkcs8, provider: Arc::new(ring::default_provider()) })
    }

    /// The configuration to dial `peer`. The second value receives the key of the peer that answers, right or wrong.
    pub(crate) fn client_config(&self, peer: PeerId) -> Result<(rustls::ClientConfig, Arc<OnceLock<PeerId>>), Error> {
        let found = Arc::new(OnceLock::new());
        let verifier = PeerVerifier { algorithms: self.provider.signature_verification_algorithms };
        let pinned = PinnedVerifier { expected: peer, found: found.clone(), verifier };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_client_auth_cert(vec![self.certificate.clone()], self.private_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves both keys again.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok((config, found))
    }

    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, Error> {
        let verifier = PeerVerifier { algorithms: self.provider.signature_verification_algorithms };
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![self.certificate.clone()], self.private_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// The name in certificates and handshakes. It is ignored: the key is the identity.
pub(crate) const NAME: &str = "soma-p2p";

/// The key that a certificate proves, if its form is accepted.
pub(crate) fn peer_of(certificate: &CertificateDer<'_>) -> Result<PeerId, CertificateError> {
    if certificate.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::BadEncoding);
    }
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    if !rest.is_empty() {
        return Err(CertificateError::BadEncoding);
    }
    let spki = parsed.public_key();
    if spki.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(CertificateError::ApplicationVerificationFailure);
    }
    let bytes = &*spki.subject_public_key.data;
    let key = PublicKey(bytes.try_into().map_err(|_| CertificateError::BadEncoding)?);
    key.verifying_key().map_err(|_| CertificateError::ApplicationVerificationFailure)?;
    parsed.verify_signature(None).map_err(|_| CertificateError::BadSignature)?;
    Ok(PeerId::from(key))
}

/// The handshake's checks of certificates, for fuzz targets and their property tests.
#[cfg(feature = "decoders")]
pub mod decoders {
    use super::{CertificateDer, Identity, PeerId, SigningKey, TransportError, peer_of};

    /// The peer that a certificate proves, if its form is accepted.
    pub fn certified_peer(certificate: &[u8]) -> Option<PeerId> {
        peer_of(&CertificateDer::from(certificate)).ok()
    }

    /// The certificate of the node with this key.
    ///
    /// # Errors
    /// Fails if no certificate can be made from the key.
    pub fn certificate(key: &SigningKey) -> Result<Vec<u8>, TransportError> {
        Identity::new(key).map(|identity| identity.certificate.to_vec())
    }
}

/// Accepts every node that proves a key. The handler decides about its admission.
#[derive(Debug)]
struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    fn check(&self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
        if !chain.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        peer_of(certificate).map_err(Error::InvalidCertificate)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate, chain).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Accepts only one node.
#[derive(Debug)]
struct PinnedVerifier {
    expected: PeerId,
    found: Arc<OnceLock<PeerId>>,
    verifier: PeerVerifier,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = self.verifier.check(certificate, chain)?;
        let _ = self.found.set(found);
        if found != self.expected {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.verifier.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
