//! Blocks: what authorities sign each round.

use crate::{
    AuthorityIndex, BlockBodyDigest, BlockDigest, ChainId, CodecError, CommitRef, Committee, Epoch, QuorumSignatures,
    Round, Scope, Signable, Signature, Signed, SigningKey, TimestampMs, codec, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use std::{fmt, ops::Deref, sync::Arc};

/// Names one block: its place in the DAG and the digest of its bytes, signature included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// Epoch in which it was made.
    pub epoch: Epoch,
    /// Round within the epoch.
    pub round: Round,
    /// Its author's position in the epoch's committee.
    pub author: AuthorityIndex,
    /// Digest of body and signature.
    pub digest: BlockDigest,
}

impl BlockRef {
    /// Encoded length in bytes.
    pub const BYTES: usize = 48;
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}r{}a{}:{:?}", self.epoch, self.round, self.author, self.digest)
    }
}

impl fmt::Debug for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One transaction as the block carries it: opaque here, read by the node's transaction verifier. Of a decoded block it is
/// a slice of the block's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionBytes(pub Bytes);

impl Serialize for TransactionBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// The handover to the next epoch: its committee, certified by a quorum of this one's stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfEpoch {
    /// Committee of the next epoch.
    pub next_committee: Committee,
    /// This epoch's signatures on its digest.
    pub certificate: QuorumSignatures,
}

/// The body of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Epoch in which it is made.
    pub epoch: Epoch,
    /// Round within the epoch, from 1.
    pub round: Round,
    /// Its author's position in the epoch's committee.
    pub author: AuthorityIndex,
    /// When its author made it; never before any of its ancestors.
    pub timestamp_ms: TimestampMs,
    /// Blocks it builds on: first its author's own last one, then one for each other author that it saw.
    pub ancestors: Vec<BlockRef>,
    /// What users asked for.
    pub transactions: Vec<TransactionBytes>,
    /// Commits that its author has made since its last block.
    pub commit_votes: Vec<CommitRef>,
    /// Present in a block of the last commit of an epoch.
    pub end_of_epoch: Option<EndOfEpoch>,
}

/// The same as it lies in its encoding: transactions stay where they are.
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

/// A block with its signature and its name; a claim until it is verified.
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

    /// Decodes received bytes and names the block by their digest.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        Signed::decode(bytes).map(Self::from)
    }

    fn named(signed: Signed<Block>, digest: BlockDigest) -> Self {
        let reference = BlockRef { epoch: signed.epoch, round: signed.round, author: signed.author, digest };
        Self { signed, reference }
    }

    /// The block's name: computed from the bytes, never taken from a peer.
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

/// Received bytes and the digest that would name the block in them; not looked at any further.
#[derive(Clone, Debug)]
pub struct HashedBlock {
    bytes: Bytes,
    body_digest: BlockBodyDigest,
    digest: BlockDigest,
}

impl HashedBlock {
    /// Hashes what may be blocks, side by side, and gives them in their order. What is shorter than a signature is none,
    /// and has no digest.
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

    /// The digest that names the bytes, whether or not they decode.
    pub fn digest(&self) -> BlockDigest {
        self.digest
    }

    /// Decodes the bytes, without hashing them again.
    pub fn decode(self) -> Result<SignedBlock, CodecError> {
        let signed = Signed::decode_with(self.bytes, |_| self.body_digest.0)?;
        Ok(SignedBlock::named(signed, self.digest))
    }
}

/// A block that was proved right, cheap to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBlock(Arc<SignedBlock>);

impl VerifiedBlock {
    /// Takes `block` as proved. Only for whoever proved it: the verifier, the consensus that made it, and the
    /// store, into which nothing else goes.
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

/// The blocks of round 0 of an epoch, one for each authority in order: known to all, signed by none, and never
/// part of a commit. Round 1 builds on all of them that its author needs for a quorum.
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
