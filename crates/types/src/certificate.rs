//! Certified transactions and quorum signatures.

use crate::{
    AuthorityIndex, CertificateDigest, CodecError, Epoch, PublicKey, Signature, TransactionDigest, codec, limits,
};
use serde::{Deserialize, Serialize};

/// One authority's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthoritySignature {
    /// The signing authority.
    pub authority: AuthorityIndex,
    /// The signature over the intent and the digest of the certified value.
    pub signature: Signature,
}

/// Signatures of a quorum of a committee, in strictly ascending order of authority. The order excludes repeated signers
/// and gives each set one encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumSignatures {
    /// The signatures.
    #[serde(deserialize_with = "codec::list")]
    pub signatures: Vec<AuthoritySignature>,
}

/// A user's request. Only the executor interprets the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Key of the user.
    pub sender: PublicKey,
    /// Distinguishes two equal requests of one sender.
    pub nonce: u64,
    /// The request.
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "codec::bytes")]
    pub payload: Vec<u8>,
}

impl Transaction {
    /// The digest that the sender signs.
    pub fn digest(&self) -> TransactionDigest {
        TransactionDigest::of(&[&codec::encode(self)])
    }
}

/// A transaction with its sender's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTransaction {
    /// The transaction.
    pub transaction: Transaction,
    /// The sender's signature over the transaction's digest.
    pub signature: Signature,
}

/// A sender-signed transaction, certified by a quorum of an epoch's stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Epoch of the committee that signed.
    pub epoch: Epoch,
    /// The certified transaction.
    pub signed_transaction: SignedTransaction,
    /// The quorum's signatures.
    pub quorum: QuorumSignatures,
}

impl Certificate {
    /// The digest that each authority signs: it covers the epoch and the transaction with the sender's signature.
    pub fn signed_digest(epoch: Epoch, signed_transaction: &SignedTransaction) -> CertificateDigest {
        CertificateDigest::of(&[&codec::encode(&(epoch, signed_transaction))])
    }
}

/// A certificate that borrows from its encoding. Its digests are computed from the encoding, without encoding again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedCertificate<'a> {
    /// Epoch of the committee that signed.
    pub epoch: Epoch,
    /// Key of the user.
    pub sender: PublicKey,
    /// The request.
    pub payload: &'a [u8],
    /// The sender's signature, over [`transaction_digest`](Self::transaction_digest).
    pub signature: Signature,
    /// The quorum's signatures, over [`signed_digest`](Self::signed_digest).
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
    /// Bytes of the transaction before its payload: sender, nonce and length.
    const TRANSACTION_HEAD_BYTES: usize = 32 + 8 + 8;

    /// Decodes all of `bytes`.
    ///
    /// # Errors
    /// Fails if the bytes are not a certificate, or are longer than [`limits::MAX_BLOCK_BYTES`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let fields: Fields<'a> = codec::decode(bytes, "certificate", limits::MAX_BLOCK_BYTES)?;
        let Fields { epoch, sender, _nonce, payload, signature, quorum } = fields;
        let end = Self::EPOCH_BYTES + Self::TRANSACTION_HEAD_BYTES + payload.len() + Signature::BYTES;
        Ok(Self { epoch, sender, payload, signature, quorum, signed: &bytes[..end] })
    }

    /// The digest that the sender has signed.
    pub fn transaction_digest(&self) -> TransactionDigest {
        TransactionDigest::of(&[&self.signed[Self::EPOCH_BYTES..self.signed.len() - Signature::BYTES]])
    }

    /// The digest that each authority has signed.
    pub fn signed_digest(&self) -> CertificateDigest {
        CertificateDigest::of(&[self.signed])
    }
}
