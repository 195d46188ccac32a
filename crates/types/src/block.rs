//! Blocks, which authorities sign in each round.

use crate::{
    AuthorityIndex, BlockBodyDigest, BlockDigest, BlockRef, ChainId, CodecError, CommitRef, Committee, Epoch,
    QuorumSignatures, Round, Scope, Signable, Signature, Signed, SigningKey, TimestampMs, codec, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use std::{ops::Deref, sync::Arc};

/// One transaction of a block. Its bytes are opaque here; the node's transaction verifier reads them. In a decoded
/// block they are a slice of the block's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionBytes(pub Bytes);

impl Serialize for TransactionBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// The handover to the next epoch: the next committee, certified by a quorum of this epoch's stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfEpoch {
    /// Committee of the next epoch.
    pub next_committee: Committee,
    /// This epoch's signatures on the next committee's digest.
    pub certificate: QuorumSignatures,
}

/// The body of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Epoch of the block.
    pub epoch: Epoch,
    /// Round within the epoch, from 1.
    pub round: Round,
    /// The author's position in the epoch's committee.
    pub author: AuthorityIndex,
    /// Creation time; at least the timestamp of every ancestor.
    pub timestamp_ms: TimestampMs,
    /// Blocks that this block builds on: first the author's previous block, then at most one block of each other
    /// author.
    pub ancestors: Vec<BlockRef>,
    /// Transactions of users.
    pub transactions: Vec<TransactionBytes>,
    /// Commits that the author has made since its previous block.
    pub commit_votes: Vec<CommitRef>,
    /// The handover, in one block of the last commit of an epoch.
    pub end_of_epoch: Option<EndOfEpoch>,
}

/// A block that borrows its transactions from the encoding.
#[derive(Deserialize)]
struct EncodedBlock<'a> {
    epoch: Epoch,
    round: Round,
    author: AuthorityIndex,
    timestamp_ms: TimestampMs,
    #[serde(deserialize_with = "codec::list")]
    ancestors: Vec<BlockRef>,
    #[serde(borrow, deserialize_with = "codec::list")]
    transactions: Vec<&'a [u8]>,
    #[serde(deserialize_with = "codec::list")]
    commit_votes: Vec<CommitRef>,
    end_of_epoch: Option<EndOfEpoch>,
}

impl Signable for Block {
    const SCOPE: Scope = Scope::Block;
    const WHAT: &'static str = "block";
    const MAX_BYTES: usize = limits::MAX_BLOCK_BYTES;

    fn decode_body(body: &Bytes) -> Result<Self, CodecError> {
        let block: EncodedBlock<'_> = codec::decode(body, Self::WHAT, Self::MAX_BYTES)?;
        Ok(Self {
            epoch: block.epoch,
            round: block.round,
            author: block.author,
            timestamp_ms: block.timestamp_ms,
            ancestors: block.ancestors,
            transactions: block.transactions.into_iter().map(|bytes| TransactionBytes(body.slice_ref(bytes))).collect(),
            commit_votes: block.commit_votes,
            end_of_epoch: block.end_of_epoch,
        })
    }

    fn body_digest(body: &[u8]) -> [u8; 32] {
        BlockBodyDigest::of(&[body]).0
    }
}

/// A block with its signature and reference. It is a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBlock {
    signed: Signed<Block>,
    reference: BlockRef,
}

impl SignedBlock {
    /// Signs `block` for `chain` with its author's protocol key.
    pub fn sign(block: Block, chain: ChainId, key: &SigningKey) -> Self {
        Self::from(Signed::sign(block, chain, key))
    }

    /// Decodes received bytes and computes the block's reference.
    ///
    /// # Errors
    /// Fails if the bytes are not a signed block, or are longer than [`limits::MAX_BLOCK_BYTES`].
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        Signed::decode(bytes).map(Self::from)
    }

    fn named(signed: Signed<Block>, digest: BlockDigest) -> Self {
        let reference = BlockRef { epoch: signed.epoch, round: signed.round, author: signed.author, digest };
        Self { signed, reference }
    }

    /// The block's reference. Its digest is computed from the bytes, never taken from a peer.
    pub fn reference(&self) -> BlockRef {
        self.reference
    }
}

impl From<Signed<Block>> for SignedBlock {
    fn from(signed: Signed<Block>) -> Self {
        let digest = BlockDigest::of(&[signed.body_digest(), &signed.signature().0]);
        Self::named(signed, digest)
    }
}

impl Deref for SignedBlock {
    type Target = Signed<Block>;

    fn deref(&self) -> &Signed<Block> {
        &self.signed
    }
}

/// Received bytes with their block digests. The bytes may not be a block.
#[derive(Clone, Debug)]
pub struct HashedBlock {
    bytes: Bytes,
    body_digest: BlockBodyDigest,
    digest: BlockDigest,
}

impl HashedBlock {
    /// Hashes candidate blocks in parallel SIMD lanes, and returns them in order. Bytes that are shorter than a
    /// signature have no digest: their entry is an error.
    pub fn hash_each(blocks: Vec<Bytes>) -> Vec<Result<Self, CodecError>> {
        let long_enough = blocks.iter().filter_map(|bytes| bytes.split_last_chunk::<{ Signature::BYTES }>());
        let (bodies, signatures): (Vec<_>, Vec<_>) = long_enough.unzip();
        let body_digests = BlockBodyDigest::of_each(&bodies);
        let name = |(body, signature): (&BlockBodyDigest, &&[u8; Signature::BYTES])| {
            let mut name = [0; 32 + Signature::BYTES];
            name[..32].copy_from_slice(&body.0);
            name[32..].copy_from_slice(*signature);
            name
        };
        let names: Vec<_> = body_digests.iter().zip(&signatures).map(name).collect();
        let names: Vec<_> = names.iter().map(<[u8; 32 + Signature::BYTES]>::as_slice).collect();
        let mut digests = body_digests.iter().copied().zip(BlockDigest::of_each(&names));
        let hashed = |bytes: Bytes| {
            let digests = if bytes.len() < Signature::BYTES { None } else { digests.next() };
            let (body_digest, digest) = digests.ok_or_else(|| Signed::<Block>::too_short(bytes.len()))?;
            Ok(Self { bytes, body_digest, digest })
        };
        blocks.into_iter().map(hashed).collect()
    }

    /// The block digest of the bytes, whether or not they decode.
    pub fn digest(&self) -> BlockDigest {
        self.digest
    }

    /// Decodes the bytes, without hashing them again.
    ///
    /// # Errors
    /// Fails if the bytes are not a signed block, or are longer than [`limits::MAX_BLOCK_BYTES`].
    pub fn decode(self) -> Result<SignedBlock, CodecError> {
        let signed = Signed::decode_with(self.bytes, |_| self.body_digest.0)?;
        Ok(SignedBlock::named(signed, self.digest))
    }
}

/// A verified block, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBlock(Arc<SignedBlock>);

impl VerifiedBlock {
    /// Declares `block` verified. Only the verifier, the consensus that made the block, and the store (which holds only
    /// verified blocks) may call this.
    pub fn assume_verified(block: SignedBlock) -> Self {
        Self(Arc::new(block))
    }
}

impl Deref for VerifiedBlock {
    type Target = SignedBlock;

    fn deref(&self) -> &SignedBlock {
        &self.0
    }
}

/// References of the blocks of round 0, one per authority, in order. All nodes know these blocks. They have no
/// signature and are never part of a commit. A block of round 1 builds on a quorum of them.
pub fn epoch_genesis_refs(epoch: Epoch, committee_size: usize) -> Vec<BlockRef> {
    (0..committee_size as AuthorityIndex)
        .map(|author| {
            let block = Block {
                epoch,
                round: 0,
                author,
                timestamp_ms: 0,
                ancestors: Vec::new(),
                transactions: Vec::new(),
                commit_votes: Vec::new(),
                end_of_epoch: None,
            };
            SignedBlock::from(Signed::with_signature(block, Signature::ZERO)).reference()
        })
        .collect()
}
