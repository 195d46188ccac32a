//! The messages between validators: their encoding, and the check before anyone relays or acts on one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soma_p2p::{
    BlockRef, CertificateVerifier, Commit, EpochContext, MessageVerdict, SignedBlock, TrustedCommit, VerifiedBlock,
    types::{
        AuthorityIndex, CodecError, CommitDigest, Committee, Epoch, Round, Scope, Signature, TimestampMs, codec, limits,
    },
    verify::{verify_blocks, verify_sub_dag},
};

/// Blocks in one request or answer. An answer of more bytes is cut anyway.
pub(crate) const MAX_BLOCKS_PER_MESSAGE: usize = 32;

/// Bytes of the blocks in one answer: a block of the greatest size fits with its framing.
pub(crate) const MAX_ANSWER_BYTES: usize = limits::MAX_BLOCK_BYTES;

/// A message. Its bytes borrow from the payload.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload<'a> {
    /// The author's new block. It has the votes of the author, too.
    #[serde(borrow)]
    Proposal(&'a [u8]),
    /// The author's signature on the next committee, sent again with each block until the epoch ends.
    NextCommittee {
        /// The epoch that ends.
        epoch: Epoch,
        /// Makes each copy a message of its own, which nobody takes for a duplicate.
        round: Round,
        /// The signature.
        signature: Signature,
    },
    /// The author lacks these blocks.
    Request {
        /// When it was made; makes each one a message of its own.
        at_ms: TimestampMs,
        /// Whether everyone is asked. At first only those who build on the blocks are.
        is_retry: bool,
        /// The blocks, each with a validator that builds on it.
        blocks: Vec<(BlockRef, AuthorityIndex)>,
    },
    /// Blocks that somebody lacks, or may lack.
    Blocks {
        /// When it was made; makes each one a message of its own.
        at_ms: TimestampMs,
        /// The blocks, of any author.
        #[serde(borrow)]
        blocks: Vec<&'a [u8]>,
    },
}

impl<'a> Payload<'a> {
    /// The bytes of a message.
    pub(crate) fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    /// Decodes the bytes of a message.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "consensus message", limits::MAX_MESSAGE_BYTES)
    }

    /// The blocks in the message, without a check.
    pub(crate) fn blocks(&self, payload: &Bytes) -> Vec<VerifiedBlock> {
        let bytes: &[&[u8]] = match self {
            Self::Proposal(block) => &[*block],
            Self::Blocks { blocks, .. } => blocks,
            _ => &[],
        };
        let decoded = bytes.iter().filter_map(|bytes| SignedBlock::decode(payload.slice_ref(bytes)).ok());
        decoded.map(VerifiedBlock::assume_verified).collect()
    }
}

/// Checks a message of `author` in the epoch of `context`: form, signatures, transactions. The signature of the message
/// itself is the node's business. A proposal fills the slot of its round, so that an equivocating author is found. What
/// is of another epoch than its message is ignored: nodes change epochs at different times.
pub(crate) fn validate(context: &EpochContext, author: AuthorityIndex, payload: &Bytes) -> MessageVerdict {
    let Ok(message) = Payload::decode(payload) else { return MessageVerdict::Reject };
    match &message {
        Payload::Proposal(bytes) => validate_block(context, Some(author), payload.slice_ref(bytes)),
        Payload::NextCommittee { epoch, signature, .. } => {
            if *epoch != context.epoch() {
                return MessageVerdict::Ignore;
            }
            let signed = is_signed(context, author, signature);
            if signed { MessageVerdict::Accept { slot: None } } else { MessageVerdict::Reject }
        }
        Payload::Request { blocks, .. } => {
            let is_right = (1..=MAX_BLOCKS_PER_MESSAGE).contains(&blocks.len());
            if is_right { MessageVerdict::Accept { slot: None } } else { MessageVerdict::Reject }
        }
        Payload::Blocks { blocks, .. } => {
            if !(1..=MAX_BLOCKS_PER_MESSAGE).contains(&blocks.len()) {
                return MessageVerdict::Reject;
            }
            let verdicts = blocks.iter().map(|bytes| validate_block(context, None, payload.slice_ref(bytes)));
            let wrong = verdicts.into_iter().find(|verdict| !matches!(verdict, MessageVerdict::Accept { .. }));
            wrong.unwrap_or(MessageVerdict::Accept { slot: None })
        }
    }
}

/// The next committee: the same members in the next epoch.
pub(crate) fn next_committee(context: &EpochContext) -> Committee {
    Committee { epoch: context.epoch() + 1, ..context.committee().clone() }
}

/// Whether `signature` is the member's signature on the next committee, by the strict rules, as the end of an epoch is
/// checked.
fn is_signed(context: &EpochContext, author: AuthorityIndex, signature: &Signature) -> bool {
    let message = context.intent(Scope::NextCommittee).message(&next_committee(context).digest().0);
    context.key(author).is_some_and(|key| key.verify_strict(&message, &signature.0.into()).is_ok())
}

fn validate_block(context: &EpochContext, author: Option<AuthorityIndex>, bytes: Bytes) -> MessageVerdict {
    let Ok(block) = SignedBlock::decode(bytes.clone()) else { return MessageVerdict::Reject };
    if block.epoch != context.epoch() {
        return MessageVerdict::Ignore;
    }
    let reference = block.reference();
    if author.is_some_and(|author| author != block.author) {
        return MessageVerdict::Reject;
    }
    let Ok(blocks) = verify_blocks(context, &CertificateVerifier, &[reference], vec![bytes]) else {
        return MessageVerdict::Reject;
    };
    if let Some(end) = &block.end_of_epoch {
        // Any commit may be the one that ends the epoch: the rule for commits is checked with one of this block alone.
        let (previous_digest, blocks_of) = (CommitDigest::default(), vec![reference]);
        let (leader, epoch, timestamp_ms) = (reference, block.epoch, block.timestamp_ms);
        let commit = Commit { index: 1, previous_digest, timestamp_ms, leader, blocks: blocks_of, epoch };
        let is_expected = end.next_committee == next_committee(context);
        if !is_expected || verify_sub_dag(context, &TrustedCommit::assume_trusted(commit), &blocks).is_err() {
            return MessageVerdict::Reject;
        }
    }
    MessageVerdict::Accept { slot: Some(block.round.into()) }
}
