//! Checks of the blocks that trusted commits name.
//!
//! A reference from a trusted commit pins a block's bytes. So a peer that sends other bytes lies, provably; and
//! whatever is wrong with the right bytes was certified by a quorum, and is not the serving peer's fault.

use crate::{
    BlockError, EpochContext, SignatureBatch, TransactionError, TransactionVerifier, block_rules::check_block,
    transaction::check_transaction,
};
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
    /// No signature of a block was checked: a bug of this node.
    #[error("no signature of block {reference} was checked: a bug of this node")]
    NotChecked {
        /// The block.
        reference: BlockRef,
    },
    /// A signature that was checked belongs to no block: a bug of this node.
    #[error("a signature was checked for block {owner} of {blocks}: a bug of this node")]
    UnknownOwner {
        /// Position of the block that there is not.
        owner: usize,
        /// Blocks of the answer.
        blocks: usize,
    },
}

impl BlocksError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Count { .. } => Fault::Malformed,
            Self::WrongBlock { .. } => Fault::ProvableLie,
            Self::Undecodable { .. }
            | Self::Misnamed { .. }
            | Self::Invalid { .. }
            | Self::NotChecked { .. }
            | Self::UnknownOwner { .. } => Fault::Ours,
        }
    }

    /// Whether the node's own transaction verifier panicked.
    pub fn is_verifier_panic(&self) -> bool {
        let Self::Invalid { source: BlockError::Transaction { source, .. }, .. } = self else { return false };
        matches!(source, TransactionError::Panicked { .. })
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

/// Follows a check of blocks: told what comes next, it says whether to go on.
pub trait CheckObserver {
    /// Before each block but the first. `false` leaves it and all after it unchecked.
    fn before_block(&mut self) -> bool;

    /// Before each transaction. `false` leaves its block and all after it unchecked.
    fn before_transaction(&mut self, block: &BlockRef, position: usize) -> bool;
}

/// Lets a check go on to its end.
impl CheckObserver for () {
    fn before_block(&mut self) -> bool {
        true
    }

    fn before_transaction(&mut self, _: &BlockRef, _: usize) -> bool {
        true
    }
}

/// The first blocks of an answer, right but for their signatures, and why the others are not among them.
#[derive(Debug)]
pub struct CheckedBlocks {
    /// Only called verified once they are given out.
    blocks: Vec<VerifiedBlock>,
    batch: SignatureBatch,
    /// Whether each block must have a signature in the batch.
    signed: bool,
    /// The rule that the next block breaks.
    error: Option<BlocksError>,
}

/// How the blocks of one answer were judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksVerdict {
    /// The leading blocks that are verified.
    pub blocks: Vec<VerifiedBlock>,
    /// The rule that the block after them breaks. `None`: there is no such block, or it was left unchecked.
    pub error: Option<BlocksError>,
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

    /// The rule that the next block breaks, if that is why it is not among these.
    pub fn error(&self) -> Option<&BlocksError> {
        self.error.as_ref()
    }

    /// Checks the signatures of several answers together, with a verdict for each: the more, the cheaper each.
    pub fn verify_all(answers: Vec<Self>) -> Vec<BlocksVerdict> {
        let batches: Vec<_> = answers.iter().map(|answer| &answer.batch).collect();
        let verdicts = SignatureBatch::verify_each(&batches);
        answers.into_iter().zip(verdicts).map(|(answer, bad)| answer.judge(bad)).collect()
    }

    /// The verdict, given the owners of bad signatures. What nobody checked is not verified.
    fn judge(self, bad: Result<(), Vec<usize>>) -> BlocksVerdict {
        let Self { mut blocks, batch, signed, error } = self;
        let mut has_signature = vec![!signed; blocks.len()];
        for &owner in batch.owners() {
            let Some(has_signature) = has_signature.get_mut(owner) else {
                let error = BlocksError::UnknownOwner { owner, blocks: blocks.len() };
                return BlocksVerdict { blocks: Vec::new(), error: Some(error) };
            };
            *has_signature = true;
        }
        let bad = bad.err().and_then(|owners| owners.first().copied());
        let unchecked = has_signature.iter().position(|has_signature| !has_signature);
        let wrong = match (bad, unchecked) {
            (Some(bad), unchecked) if unchecked.is_none_or(|unchecked| bad <= unchecked) => {
                let signature = |reference| BlocksError::Invalid { reference, source: BlockError::BadSignature };
                blocks.get(bad).map(|block| (bad, signature(block.reference())))
            }
            (_, Some(at)) => blocks.get(at).map(|block| (at, BlocksError::NotChecked { reference: block.reference() })),
            (_, None) => None,
        };
        let Some((first_wrong, wrong)) = wrong else { return BlocksVerdict { blocks, error } };
        blocks.truncate(first_wrong);
        BlocksVerdict { blocks, error: Some(wrong) }
    }
}

/// Checks that `blocks` are those which `refs`, taken from trusted commits of the context's epoch, name, in that
/// order, and that each is valid by itself but for its signatures. Rules between blocks are
/// [`verify_sub_dags`](crate::verify_sub_dags)'s.
///
/// What the first blocks are judged does not depend on those that come with them: a certified block that breaks a rule
/// ends the answer there.
///
/// # Errors
///
/// Bytes that are not what was asked for: nothing of the answer counts.
pub fn check_blocks(
    context: &EpochContext,
    checks: Checks<'_>,
    refs: &[BlockRef],
    blocks: Vec<Bytes>,
    observer: &mut dyn CheckObserver,
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
    let signed = matches!(checks, Checks::Full(_));
    let mut checked =
        CheckedBlocks { blocks: Vec::with_capacity(refs.len()), batch: SignatureBatch::new(), signed, error: None };
    for (position, (&reference, block)) in refs.iter().zip(hashed).enumerate() {
        if position > 0 && !observer.before_block() {
            break;
        }
        let block = decode_named(reference, block).and_then(|block| {
            let goes_on = check_committed(context, checks, &block, position, &mut checked.batch, observer)
                .map_err(|source| BlocksError::Invalid { reference, source })?;
            Ok((block, goes_on))
        });
        let (block, goes_on) = match block {
            Ok(checked) => checked,
            Err(error) => {
                checked.error = Some(error);
                break;
            }
        };
        if !goes_on {
            break;
        }
        checked.blocks.push(VerifiedBlock::assume_verified(block));
    }
    checked.batch.keep_owners_below(checked.blocks.len());
    Ok(checked)
}

/// [`check_blocks`] in full, with the signatures of this one answer.
///
/// # Errors
///
/// A block is not what was asked for, or breaks a rule.
pub fn verify_blocks(
    context: &EpochContext,
    transactions: &dyn TransactionVerifier,
    refs: &[BlockRef],
    blocks: Vec<Bytes>,
) -> Result<Vec<VerifiedBlock>, BlocksError> {
    let checked = check_blocks(context, Checks::Full(transactions), refs, blocks, &mut ())?;
    match CheckedBlocks::verify_all(vec![checked]).remove(0) {
        BlocksVerdict { error: Some(error), .. } => Err(error),
        BlocksVerdict { blocks, error: None } => Ok(blocks),
    }
}

/// Decodes the bytes that the digest in `reference` names.
fn decode_named(reference: BlockRef, block: HashedBlock) -> Result<SignedBlock, BlocksError> {
    let block = block.decode().map_err(|source| BlocksError::Undecodable { reference, source })?;
    if block.reference() != reference {
        return Err(BlocksError::Misnamed { reference, found: block.reference() });
    }
    Ok(block)
}

/// Checks one block but for its signatures, which go into `batch`. Returns false if the observer ended the check.
fn check_committed(
    context: &EpochContext,
    checks: Checks<'_>,
    block: &SignedBlock,
    owner: usize,
    batch: &mut SignatureBatch,
    observer: &mut dyn CheckObserver,
) -> Result<bool, BlockError> {
    check_block(context, block)?;
    let Checks::Full(transactions) = checks else { return Ok(true) };
    for (position, transaction) in block.transactions.iter().enumerate() {
        if !observer.before_transaction(&block.reference(), position) {
            return Ok(false);
        }
        check_transaction(context, transactions, &transaction.0, owner, batch)
            .map_err(|source| BlockError::Transaction { position, source })?;
    }
    let unknown = BlockError::UnknownAuthor { author: block.author, size: context.size() };
    let key = context.public_key(block.author).ok_or(unknown)?;
    batch.push(owner, key, context.intent(Scope::Block).message(block.body_digest()), block.signature());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_testkit::{ChainBuilder, ChainSpec};
    use soma_types::{Signature, VerifiedBlock};

    fn blocks() -> (EpochContext, Vec<VerifiedBlock>) {
        let mut builder = ChainBuilder::new(ChainSpec::default()).unwrap();
        let blocks = builder.build(2).into_iter().flat_map(|commit| commit.blocks).collect();
        (EpochContext::new(builder.chain_id(), builder.committee(0)).unwrap(), blocks)
    }

    fn push(
        batch: &mut SignatureBatch,
        context: &EpochContext,
        owner: usize,
        block: &SignedBlock,
        signature: &Signature,
    ) {
        let key = context.public_key(block.author).unwrap();
        batch.push(owner, key, context.intent(Scope::Block).message(block.body_digest()), signature);
    }

    fn judged(blocks: &[VerifiedBlock], batch: SignatureBatch) -> BlocksVerdict {
        let checked = CheckedBlocks { blocks: blocks.to_vec(), batch, signed: true, error: None };
        CheckedBlocks::verify_all(vec![checked]).remove(0)
    }

    #[test]
    fn signature_of_an_unknown_owner_fails_the_answer() {
        let (context, blocks) = blocks();
        for signature in [*blocks[0].signature(), Signature::ZERO] {
            let mut batch = SignatureBatch::new();
            for (owner, block) in blocks.iter().enumerate() {
                push(&mut batch, &context, owner, block, block.signature());
            }
            push(&mut batch, &context, blocks.len(), &blocks[0], &signature);
            let error = BlocksError::UnknownOwner { owner: blocks.len(), blocks: blocks.len() };
            assert_eq!(error.fault(), Fault::Ours);
            assert_eq!(judged(&blocks, batch), BlocksVerdict { blocks: Vec::new(), error: Some(error) });
        }
    }

    #[test]
    fn block_without_a_checked_signature_is_not_verified() {
        let (context, blocks) = blocks();
        let not_checked = |position: usize| BlocksVerdict {
            blocks: blocks[..position].to_vec(),
            error: Some(BlocksError::NotChecked { reference: blocks[position].reference() }),
        };
        assert_eq!(judged(&blocks, SignatureBatch::new()), not_checked(0));
        let mut batch = SignatureBatch::new();
        for owner in [0, 2] {
            push(&mut batch, &context, owner, &blocks[owner], blocks[owner].signature());
        }
        assert_eq!(judged(&blocks[..3], batch), not_checked(1));
    }
}
