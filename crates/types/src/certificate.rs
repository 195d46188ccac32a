//! Certified transactions and quorum signatures.

use crate::{
    AuthorityIndex, CertificateDigest, CodecError, Epoch, PublicKey, Signature, TransactionDigest, codec, limits,
};
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
    #[serde(deserialize_with = "codec::list")]
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
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "codec::bytes")]
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

/// A certificate as it lies in its encoding. What was signed is digested where it lies, not encoded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCertificate<'a> {
    /// Epoch of the committee that signed.
    pub epoch: Epoch,
    /// Who asks.
    pub sender: PublicKey,
    /// What for.
    pub payload: &'a [u8],
    /// The sender's signature, over [`transaction_digest`](Self::transaction_digest).
    pub signature: Signature,
    /// Who vouches, over [`signed_digest`](Self::signed_digest).
    pub quorum: QuorumSignatures,
    /// The encoding from the epoch to the sender's signature.
    signed: &'a [u8],
}

/// The fields of a [`Certificate`] in their order.
#[derive(Deserialize)]
struct Fields<'a> {
    epoch: Epoch,
    sender: PublicKey,
    _nonce: u64,
    payload: &'a [u8],
    signature: Signature,
    quorum: QuorumSignatures,
}

impl<'a> EncodedCertificate<'a> {
    /// Bytes of the epoch, before the transaction.
    const EPOCH_BYTES: usize = 8;
    /// Bytes of the transaction beside its payload: sender, nonce and length.
    const TRANSACTION_HEAD_BYTES: usize = 32 + 8 + 8;

    /// Decodes `bytes`, all of them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let fields: Fields<'a> = codec::decode(bytes, "certificate", limits::MAX_BLOCK_BYTES)?;
        let Fields { epoch, sender, _nonce, payload, signature, quorum } = fields;
        let end = Self::EPOCH_BYTES + Self::TRANSACTION_HEAD_BYTES + payload.len() + Signature::BYTES;
        Ok(Self { epoch, sender, payload, signature, quorum, signed: &bytes[..end] })
    }

    /// What the sender has signed.
    pub fn transaction_digest(&self) -> TransactionDigest {
        TransactionDigest::of(&[&self.signed[Self::EPOCH_BYTES..self.signed.len() - Signature::BYTES]])
    }

    /// What each authority has signed.
    pub fn signed_digest(&self) -> CertificateDigest {
        CertificateDigest::of(&[self.signed])
    }
}
