//! Checks of the blocks that trusted commits name.
//!
//! A reference from a trusted commit pins a block's bytes. A peer that sends other bytes therefore lies provably. An
//! error in the right bytes was certified by a quorum, and is not the serving peer's fault.

use crate::{
    BlockError, EpochContext, SignatureBatch, TransactionError, TransactionVerifier, block_rules::check_block,
    transaction::check_transaction,
};
use bytes::Bytes;
use soma_types::{BlockRef, CodecError, Fault, HashedBlock, Scope, SignedBlock, VerifiedBlock};

/// The reason why the blocks of a response are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlocksError {
    /// Another number of blocks than requested.
    #[error("received {received} blocks for {asked} references")]
    Count {
        /// Requested references.
        asked: usize,
        /// Blocks received.
        received: usize,
    },
    /// The bytes have another digest than the reference.
    #[error("the bytes sent for {reference} do not have its digest")]
    WrongBlock {
        /// The requested reference.
        reference: BlockRef,
    },
    /// The bytes of a certified reference are not a block.
    #[error("the certified block {reference} cannot be decoded: {source}")]
    Undecodable {
        /// The reference.
        reference: BlockRef,
        /// The reason.
        source: CodecError,
    },
    /// A certified reference has the block's digest, but another epoch, round or author.
    #[error("the certified reference {reference} names the block {found}")]
    Misnamed {
        /// The reference.
        reference: BlockRef,
        /// The block's own reference.
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
    /// A checked signature belongs to no block: a bug of this node.
    #[error("a signature was checked for block {owner} of {blocks}: a bug of this node")]
    UnknownOwner {
        /// The invalid position of the block.
        owner: usize,
        /// Number of blocks in the response.
        blocks: usize,
    },
}

impl BlocksError {
    /// The kind of fault.
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

    /// Returns true if the node's own transaction verifier panicked.
    pub fn is_verifier_panic(&self) -> bool {
        let Self::Invalid { source: BlockError::Transaction { source, .. }, .. } = self else { return false };
        matches!(source, TransactionError::Panicked { .. })
    }
}

/// The checks of a block in addition to its digest and form, which are always checked.
#[derive(Clone, Copy)]
pub enum Checks<'a> {
    /// The author's signature and all transactions.
    Full(&'a dyn TransactionVerifier),
    /// Nothing: trusts the quorum that certified the digest.
    Certified,
}

/// Observes a check of blocks, and decides before each step whether to continue.
pub trait CheckObserver {
    /// Called before each block but the first. `false` leaves this block and all later ones unchecked.
    fn before_block(&mut self) -> bool;

    /// Called before each transaction. `false` leaves its block and all later ones unchecked.
    fn before_transaction(&mut self, block: &BlockRef, position: usize) -> bool;
}

/// Never interrupts a check.
impl CheckObserver for () {
    fn before_block(&mut self) -> bool {
        true
    }

    fn before_transaction(&mut self, _: &BlockRef, _: usize) -> bool {
        true
    }
}

/// The leading blocks of a response, checked except for their signatures.
#[derive(Debug)]
pub struct CheckedBlocks {
    /// Declared verified here, but handed out only after the signatures are checked.
    blocks: Vec<VerifiedBlock>,
    batch: SignatureBatch,
    /// Whether each block must have a signature in the batch.
    signed: bool,
    /// The rule that the block after them breaks.
    error: Option<BlocksError>,
}

/// The verdict on the blocks of one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksVerdict {
    /// The verified leading blocks.
    pub blocks: Vec<VerifiedBlock>,
    /// The rule that the next block breaks. `None` if there is no next block, or if it was not checked.
    pub error: Option<BlocksError>,
}

impl CheckedBlocks {
    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are no blocks.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Number of signatures to check.
    pub fn signatures(&self) -> usize {
        self.batch.len()
    }

    /// The rule that the next block breaks, if that ended the check.
    pub fn error(&self) -> Option<&BlocksError> {
        self.error.as_ref()
    }

    /// Checks the signatures of several responses in common batches, with a verdict for each response. Larger batches
    /// make each signature cheaper.
    pub fn verify_all(answers: Vec<Self>) -> Vec<BlocksVerdict> {
        let batches: Vec<_> = answers.iter().map(|answer| &answer.batch).collect();
        let verdicts = SignatureBatch::verify_each(&batches);
        answers.into_iter().zip(verdicts).map(|(answer, bad)| answer.judge(bad)).collect()
    }

    /// The verdict, from the owners of bad signatures. A block without a checked signature is not verified.
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

/// Checks that `blocks` are the blocks that `refs` name, in order, and that each block is valid except for its
/// signatures. `refs` must come from trusted commits of the context's epoch.
/// [`verify_sub_dags`](crate::verify_sub_dags) checks the rules between blocks.
///
/// The verdict on a block does not depend on later blocks: a certified block that breaks a rule only ends the check.
///
/// # Errors
///
/// Fails if any bytes are not the requested block. The whole response is then refused.
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
    // Compare all digests before any rule: that finds a lie anywhere before anything expensive.
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

/// [`check_blocks`] with all checks, and with the signatures of this response.
///
/// # Errors
///
/// Fails if a block is not the requested one, or breaks a rule.
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

/// Decodes the bytes of a reference's digest.
fn decode_named(reference: BlockRef, block: HashedBlock) -> Result<SignedBlock, BlocksError> {
    let block = block.decode().map_err(|source| BlocksError::Undecodable { reference, source })?;
    if block.reference() != reference {
        return Err(BlocksError::Misnamed { reference, found: block.reference() });
    }
    Ok(block)
}

/// Checks one block except for its signatures, which it adds to `batch`. Returns false if the observer ended the check.
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
