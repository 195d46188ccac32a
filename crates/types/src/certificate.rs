//! Certified transactions and quorum signatures.

use crate::{AuthorityIndex, CertificateDigest, Epoch, PublicKey, Signature, TransactionDigest, codec};
use serde::{Deserialize, Serialize};

/// One authority's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthoritySignature {
    /// Whose.
    pub authority: AuthorityIndex,
    /// Over the intent and digest of what is certified.
    pub signature: Signature,
}

/// Signatures of a quorum of a committee, in strictly ascending order of authority: no signer twice, and one
/// encoding for one set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumSignatures {
    /// The signatures.
    pub signatures: Vec<AuthoritySignature>,
}

/// What a user asks for. The payload is the executor's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Who asks.
    pub sender: PublicKey,
    /// Tells two equal requests of one sender apart.
    pub nonce: u64,
    /// What for.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

impl Transaction {
    /// What the sender signs.
    pub fn digest(&self) -> TransactionDigest {
        TransactionDigest::of(&[&codec::encode(self)])
    }
}

/// A transaction with its sender's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTransaction {
    /// The transaction.
    pub transaction: Transaction,
    /// Over its digest.
    pub signature: Signature,
}

/// A sender-signed transaction that a quorum of an epoch's stake vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Epoch of the committee that signed.
    pub epoch: Epoch,
    /// What is certified.
    pub signed_transaction: SignedTransaction,
    /// Who vouches.
    pub quorum: QuorumSignatures,
}

impl Certificate {
    /// What each authority signs: the epoch and the transaction with its sender's signature.
    pub fn signed_digest(epoch: Epoch, signed_transaction: &SignedTransaction) -> CertificateDigest {
        CertificateDigest::of(&[&codec::encode(&(epoch, signed_transaction))])
    }
}
