//! Checks of the transactions in a block. A node may bring its own; certificates are the default.

use crate::{EpochContext, QuorumError, SignatureBatch};
use soma_types::{CodecError, EncodedCertificate, Epoch, INTENT_MESSAGE_BYTES, KeyError, PublicKey, Scope, Signature};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Checks one transaction of a block. Called from several threads at once.
pub trait TransactionVerifier: Send + Sync + 'static {
    /// Checks everything about `transaction` but its signatures, and hands these over to be checked in batches.
    ///
    /// The verdict must depend on nothing but the arguments: a transaction in a committed block that some nodes
    /// accept and others refuse splits the chain.
    ///
    /// # Errors
    ///
    /// The transaction is refused, and with it the block. A panic counts as [`TransactionError::Panicked`].
    fn verify(
        &self,
        context: &EpochContext,
        transaction: &[u8],
        signatures: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError>;
}

/// Takes the signatures of one transaction. They are checked with those of many others, by the rules of ZIP 215.
pub struct TransactionSignatures<'a> {
    /// Position of the transaction's block.
    owner: usize,
    batch: &'a mut SignatureBatch,
}

impl TransactionSignatures<'_> {
    /// Adds the signature of `key` on an [intent message](soma_types::Intent::message). If it turns out to be wrong, the
    /// block is refused. A key that is no point of the curve has signed nothing.
    pub fn push(&mut self, key: &PublicKey, message: [u8; INTENT_MESSAGE_BYTES], signature: &Signature) {
        self.batch.push(self.owner, key, message, signature);
    }
}

/// Checks one transaction with `verifier`, its signatures included: for tests of a verifier.
///
/// # Errors
///
/// The transaction is refused, or one of its signatures is wrong.
pub fn verify_transaction(
    context: &EpochContext,
    verifier: &dyn TransactionVerifier,
    transaction: &[u8],
) -> Result<(), TransactionError> {
    let mut batch = SignatureBatch::new();
    check_transaction(context, verifier, transaction, 0, &mut batch)?;
    batch.verify().map_err(|_| TransactionError::BadSignature)
}

/// Checks one transaction of the block at position `owner` but for its signatures, which go into `batch`.
pub(crate) fn check_transaction(
    context: &EpochContext,
    verifier: &dyn TransactionVerifier,
    transaction: &[u8],
    owner: usize,
    batch: &mut SignatureBatch,
) -> Result<(), TransactionError> {
    // The batch is only ever added to: a panic leaves it with some signatures of a block that is refused.
    let check = AssertUnwindSafe(|| verifier.verify(context, transaction, &mut TransactionSignatures { owner, batch }));
    catch_unwind(check).unwrap_or_else(|panic| Err(TransactionError::Panicked { message: text_of(&*panic) }))
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
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
    /// One of its signatures is wrong.
    #[error("one of its signatures is wrong")]
    BadSignature,
    /// The verifier panicked: a bug of the node that brought it.
    #[error("the transaction verifier panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
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
