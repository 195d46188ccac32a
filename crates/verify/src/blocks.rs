//! Checks of the blocks that trusted commits name.
//!
//! A reference from a trusted commit pins a block's bytes. So a peer that sends other bytes lies, provably; and
//! whatever is wrong with the right bytes was certified by a quorum, and is not the serving peer's fault.

use crate::{BlockError, EpochContext, SignatureBatch, TransactionVerifier, block_rules::check_block};
use bytes::Bytes;
use soma_types::{BlockRef, CodecError, Fault, HashedBlock, Scope, SignedBlock, VerifiedBlock};

/// Why the blocks of an answer are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// Not as many as asked for.
    #[error("{received} blocks came for {asked} references")]
    Count {
        /// References asked for.
        asked: usize,
        /// Blocks received.
        received: usize,
    },
    /// Other bytes than the reference names.
    #[error("the bytes sent for {reference} do not have its digest")]
    WrongBlock {
        /// What was asked for.
        reference: BlockRef,
    },
    /// A certified reference names bytes that are no block.
    #[error("the certified block {reference} is none: {source}")]
    Undecodable {
        /// The reference.
        reference: BlockRef,
        /// Why they are none.
        source: CodecError,
    },
    /// A certified reference has the right digest, but another epoch, round or author than the block.
    #[error("the certified reference {reference} names the block {found}")]
    Misnamed {
        /// The reference.
        reference: BlockRef,
        /// The block's own.
        found: BlockRef,
    },
    /// A certified block breaks a rule.
    #[error("the certified block {reference} is invalid: {source}")]
    Invalid {
        /// The block.
        reference: BlockRef,
        /// The rule.
        source: BlockError,
    },
}

impl BlocksError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Count { .. } => Fault::Malformed,
            Self::WrongBlock { .. } => Fault::ProvableLie,
            Self::Undecodable { .. } | Self::Misnamed { .. } | Self::Invalid { .. } => Fault::Ours,
        }
    }
}

/// What is checked of a block beside what always is: its digest, and its form.
#[derive(Clone, Copy)]
pub enum Checks<'a> {
    /// Its author's signature and all of its transactions.
    Full(&'a dyn TransactionVerifier),
    /// Nothing: a quorum that certified its digest has checked it, and is believed.
    Certified,
}

/// Blocks that are right but for their signatures.
#[derive(Debug)]
pub struct CheckedBlocks {
    /// Only called verified once they are given out.
    blocks: Vec<VerifiedBlock>,
    batch: SignatureBatch,
}

impl CheckedBlocks {
    /// Blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Signatures that are still to be checked.
    pub fn signatures(&self) -> usize {
        self.batch.len()
    }

    /// Checks the signatures of several answers together, with a verdict for each: the more, the cheaper each.
    pub fn verify_all(answers: Vec<Self>) -> Vec<Result<Vec<VerifiedBlock>, BlocksError>> {
        let batches: Vec<_> = answers.iter().map(|answer| &answer.batch).collect();
        let verdicts = SignatureBatch::verify_each(&batches);
        let verdict = |(answer, verdict): (Self, Result<(), Vec<usize>>)| {
            let bad = verdict.err().and_then(|owners| owners.first().copied());
            match bad.and_then(|owner| answer.blocks.get(owner)) {
                Some(block) => {
                    Err(BlocksError::Invalid { reference: block.reference(), source: BlockError::BadSignature })
                }
                None => Ok(answer.blocks),
            }
        };
        answers.into_iter().zip(verdicts).map(verdict).collect()
    }
}

/// Checks that `blocks` are those which `refs`, taken from trusted commits of the context's epoch, name, in that
/// order, and that each is valid by itself but for its signatures. Rules between blocks are
/// [`verify_sub_dag`](crate::verify_sub_dag)'s.
pub fn check_blocks(
    context: &EpochContext,
    checks: Checks<'_>,
    refs: &[BlockRef],
    blocks: Vec<Bytes>,
) -> Result<CheckedBlocks, BlocksError> {
    if refs.len() != blocks.len() {
        return Err(BlocksError::Count { asked: refs.len(), received: blocks.len() });
    }
    // All digests before any rule: a lie anywhere is found before anything expensive.
    let hashed = refs
        .iter()
        .zip(HashedBlock::hash_each(blocks))
        .map(|(&reference, block)| {
            let named = block.ok().filter(|block| block.digest() == reference.digest);
            named.ok_or(BlocksError::WrongBlock { reference })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let blocks = refs
        .iter()
        .zip(hashed)
        .map(|(&reference, block)| decode_named(reference, block).map(VerifiedBlock::assume_verified))
        .collect::<Result<Vec<_>, _>>()?;

    let mut batch = SignatureBatch::new();
    for (position, block) in blocks.iter().enumerate() {
        check_committed(context, checks, block, position, &mut batch)
            .map_err(|source| BlocksError::Invalid { reference: block.reference(), source })?;
    }
    Ok(CheckedBlocks { blocks, batch })
}

/// [`check_blocks`] in full, with the signatures of this one answer.
pub fn verify_blocks(
    context: &EpochContext,
    transactions: &dyn TransactionVerifier,
    refs: &[BlockRef],
    blocks: Vec<Bytes>,
) -> Result<Vec<VerifiedBlock>, BlocksError> {
    let checked = check_blocks(context, Checks::Full(transactions), refs, blocks)?;
    CheckedBlocks::verify_all(vec![checked]).remove(0)
}

/// Decodes the bytes that the digest in `reference` names.
fn decode_named(reference: BlockRef, block: HashedBlock) -> Result<SignedBlock, BlocksError> {
    let block = block.decode().map_err(|source| BlocksError::Undecodable { reference, source })?;
    if block.reference() != reference {
        return Err(BlocksError::Misnamed { reference, found: block.reference() });
    }
    Ok(block)
}

/// Checks one block but for its signatures, which go into `batch`.
fn check_committed(
    context: &EpochContext,
    checks: Checks<'_>,
    block: &SignedBlock,
    owner: usize,
    batch: &mut SignatureBatch,
) -> Result<(), BlockError> {
    check_block(context, block)?;
    let Checks::Full(transactions) = checks else { return Ok(()) };
    for (position, transaction) in block.transactions.iter().enumerate() {
        transactions
            .verify(context, &transaction.0, owner, batch)
            .map_err(|source| BlockError::Transaction { position, source })?;
    }
    let unknown = BlockError::UnknownAuthor { author: block.author, size: context.size() };
    let key = context.public_key(block.author).ok_or(unknown)?;
    batch.push(owner, key, context.intent(Scope::Block).message(block.body_digest()), block.signature());
    Ok(())
}
