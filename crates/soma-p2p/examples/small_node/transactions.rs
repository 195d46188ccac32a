//! The transactions of this chain: text of the form `key=value`.

use soma_p2p::{EpochContext, TransactionError, TransactionSignatures, TransactionVerifier};

/// The key and the value of a transaction.
pub(crate) fn parse(transaction: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(transaction).ok()?.split_once('=')
}

/// Accepts assignments. Peers that send a block with anything else are banned.
pub(crate) struct Assignments;

impl TransactionVerifier for Assignments {
    fn verify(
        &self,
        _: &EpochContext,
        transaction: &[u8],
        _: &mut TransactionSignatures<'_>,
    ) -> Result<(), TransactionError> {
        match parse(transaction) {
            Some(_) => Ok(()),
            None => Err(TransactionError::Refused { reason: "not of the form key=value".into() }),
        }
    }
}
