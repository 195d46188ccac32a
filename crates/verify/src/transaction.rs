//! Checks of the transactions in a block. A node may supply its own verifier; the default expects certificates.

use crate::{EpochContext, QuorumError, SignatureBatch};
use soma_types::{CodecError, EncodedCertificate, Epoch, INTENT_MESSAGE_BYTES, KeyError, PublicKey, Scope, Signature};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Checks one transaction of a block. Called from several threads at once.
pub trait TransactionVerifier: Send + Sync + 'static {
    /// Checks `transaction` except for its signatures, which it passes on to be checked in batches.
    ///
    /// The verdict must depend only on the arguments. If nodes disagree about a transaction in a committed block, the
    /// chain splits.
    ///
    /// # Errors
    ///
    /// Fails if the transaction is refused, and with it the block. A panic counts as [`TransactionError::Panicked`].
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError>;
}

/// Collects the signatures of one transaction. They are checked together with many others, by the rules of ZIP 215.
pub struct TransactionSignatures<'a> {
    /// Position of the transaction's block.
    owner: usize,
    batch: &'a mut SignatureBatch,
}

impl TransactionSignatures<'_> {
    /// Adds the signature of `key` on an [intent message](soma_types::Intent::message). If it is wrong, the block is
    /// refused. For a key that is not a point of the curve it counts as wrong.
    pub fn push(&mut self, key: &PublicKey, message: [u8; INTENT_MESSAGE_BYTES], signature: &Signature) {
        self.batch.push(self.owner, key, message, signature);
    }
}

/// Checks one transaction with `verifier`, signatures included. For tests of a verifier.
///
/// # Errors
///
/// Fails if the transaction is refused, or one of its signatures is wrong.
pub fn verify_transaction(
    context: &EpochContext,
    verifier: &dyn TransactionVerifier,
    transaction: &[u8],
) -> Result<(), TransactionError> {
    let mut batch = SignatureBatch::new();
    check_transaction(context, verifier, transaction, 0, &mut batch)?;
    batch.verify().map_err(|_| TransactionError::BadSignature)
}

/// Checks one transaction of the block at position `owner` except for its signatures, which it adds to `batch`.
pub(crate) fn check_transaction(
    context: &EpochContext,
    verifier: &dyn TransactionVerifier,
    transaction: &[u8],
    owner: usize,
    batch: &mut SignatureBatch,
) -> Result<(), TransactionError> {
    // A panic can only leave extra signatures in the batch, and their block is refused.
    let check = AssertUnwindSafe(|| verifier.verify(context, transaction, &mut TransactionSignatures { owner, batch }));
    catch_unwind(check).unwrap_or_else(|panic| Err(TransactionError::Panicked { message: text_of(&*panic) }))
}

/// The message of a panic.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// The reason why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The bytes are not the canonical encoding of a certificate.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The committee of another epoch certified the transaction.
    #[error("it was certified in epoch {found}, and this is epoch {expected}")]
    OtherEpoch {
        /// The block's epoch.
        expected: Epoch,
        /// The certificate's epoch.
        found: Epoch,
    },
    /// The sender's key is invalid.
    #[error("its sender: {0}")]
    Sender(#[from] KeyError),
    /// The signers of the certificate are not a quorum.
    #[error("its certificate: {0}")]
    Quorum(#[from] QuorumError),
    /// One of its signatures is wrong.
    #[error("one of its signatures is wrong")]
    BadSignature,
    /// The verifier panicked: a bug in a verifier that the node supplied.
    #[error("the transaction verifier panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// A rule of a verifier that the node supplied.
    #[error("{reason}")]
    Refused {
        /// The rule, for people.
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
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError> {
        let certificate = EncodedCertificate::decode(transaction)?;
        if certificate.epoch != context.epoch() {
            return Err(TransactionError::OtherEpoch { expected: context.epoch(), found: certificate.epoch });
        }
        context.check_signers(&certificate.quorum)?;
        certificate.sender.check_encoding()?;
        let message = context.intent(Scope::Transaction).message(&certificate.transaction_digest().0);
        signatures.push(&certificate.sender, message, &certificate.signature);

        let message = context.intent(Scope::Certificate).message(&certificate.signed_digest().0);
        for vote in &certificate.quorum.signatures {
            let size = context.size();
            let unknown = QuorumError::UnknownAuthority { authority: vote.authority, size };
            let key = context.public_key(vote.authority).ok_or(unknown)?;
            signatures.push(key, message, &vote.signature);
        }
        Ok(())
    }
}
