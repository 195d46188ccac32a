//! Checks of the transactions in a block. A node may bring its own; certificates are the default.

use crate::{EpochContext, QuorumError, SignatureBatch};
use soma_types::{CodecError, EncodedCertificate, Epoch, KeyError, Scope};

/// Checks one transaction of a block.
pub trait TransactionVerifier: Send + Sync + 'static {
    /// Checks everything about `transaction` but its signatures, and puts these into `batch` under `owner`.
    ///
    /// The verdict must depend on nothing but the arguments: a transaction in a committed block that some nodes
    /// accept and others refuse splits the chain.
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        owner: usize,
        batch: &mut SignatureBatch,
    ) -> Result<(), TransactionError>;
}

/// Why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// No canonical encoding of a certificate.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Certified by another epoch's committee.
    #[error("it was certified in epoch {found}, and this is epoch {expected}")]
    OtherEpoch {
        /// The block's epoch.
        expected: Epoch,
        /// The certificate's.
        found: Epoch,
    },
    /// Its sender has no valid key.
    #[error("its sender: {0}")]
    Sender(#[from] KeyError),
    /// No quorum vouches for it.
    #[error("its certificate: {0}")]
    Quorum(#[from] QuorumError),
    /// For verifiers that a node brings: a rule of its own.
    #[error("{reason}")]
    Refused {
        /// Which rule, for people.
        reason: String,
    },
}

/// The default verifier: every transaction is a [`Certificate`](soma_types::Certificate) of the block's epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateVerifier;

impl TransactionVerifier for CertificateVerifier {
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        owner: usize,
        batch: &mut SignatureBatch,
    ) -> Result<(), TransactionError> {
        let certificate = EncodedCertificate::decode(transaction)?;
        if certificate.epoch != context.epoch() {
            return Err(TransactionError::OtherEpoch { expected: context.epoch(), found: certificate.epoch });
        }
        context.check_signers(&certificate.quorum)?;
        certificate.sender.check_encoding()?;
        let message = context.intent(Scope::Transaction).message(&certificate.transaction_digest().0);
        batch.push(owner, &certificate.sender, message, &certificate.signature);

        let message = context.intent(Scope::Certificate).message(&certificate.signed_digest().0);
        for vote in &certificate.quorum.signatures {
            let size = context.size();
            let unknown = QuorumError::UnknownAuthority { authority: vote.authority, size };
            let key = context.public_key(vote.authority).ok_or(unknown)?;
            batch.push(owner, key, message, &vote.signature);
        }
        Ok(())
    }
}
