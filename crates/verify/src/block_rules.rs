//! Rules for every single block, shared by certifier blocks and committed blocks. Only the cheap rules are here;
//! signatures and transactions are checked elsewhere.

use crate::{EpochContext, QuorumError, TransactionError};
use soma_types::{AuthorityIndex, Block, BlockRef, Epoch, limits};

/// The rule that a block breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The block belongs to another epoch.
    #[error("it is of epoch {found}, not {expected}")]
    OtherEpoch {
        /// The context's epoch.
        expected: Epoch,
        /// The block's epoch.
        found: Epoch,
    },
    /// The author is not in the committee.
    #[error("its author {author} is not in the committee of {size}")]
    UnknownAuthor {
        /// The author.
        author: AuthorityIndex,
        /// Members of the committee.
        size: usize,
    },
    /// The block is of round 0, in which no authority makes blocks.
    #[error("round 0 is the genesis round")]
    GenesisRound,
    /// More transactions than [`limits::MAX_TRANSACTIONS_PER_BLOCK`].
    #[error("{count} transactions, over the limit of {max}", max = limits::MAX_TRANSACTIONS_PER_BLOCK)]
    TooManyTransactions {
        /// Transactions in the block.
        count: usize,
    },
    /// More commit votes than [`limits::MAX_COMMIT_VOTES_PER_BLOCK`].
    #[error("{count} commit votes, over the limit of {max}", max = limits::MAX_COMMIT_VOTES_PER_BLOCK)]
    TooManyVotes {
        /// Votes in the block.
        count: usize,
    },
    /// The first ancestor is by another author.
    #[error("its first ancestor is not its author's own last block")]
    NoOwnAncestor,
    /// An ancestor is of another epoch.
    #[error("its ancestor {ancestor} is of another epoch")]
    AncestorOfOtherEpoch {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// The author of an ancestor is not in the committee.
    #[error("the author of its ancestor {ancestor} is not in the committee")]
    UnknownAncestorAuthor {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// Two ancestors have the same author.
    #[error("its ancestor {ancestor} is the second of its author")]
    RepeatedAncestorAuthor {
        /// The later ancestor.
        ancestor: BlockRef,
    },
    /// An ancestor is of the same or a later round.
    #[error("its ancestor {ancestor} is not of a lower round")]
    AncestorNotLower {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// An ancestor of round 0 is not the epoch's genesis block of its author.
    #[error("its ancestor {ancestor} of round 0 is not the epoch's genesis block")]
    NotGenesis {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// The ancestors of the previous round are not a quorum.
    #[error("its ancestors of the round before: {0}")]
    NoParentQuorum(QuorumError),
    /// The block has an invalid transaction.
    #[error("its transaction {position}: {source}")]
    Transaction {
        /// The transaction's position, from 0.
        position: usize,
        /// The reason.
        source: TransactionError,
    },
    /// The author's signature, or a signature in one of the transactions, is wrong.
    #[error("its author's signature or one in its transactions is wrong")]
    BadSignature,
}

/// Checks the form of `block`: position, limits and ancestors.
pub(crate) fn check_block(context: &EpochContext, block: &Block) -> Result<(), BlockError> {
    if block.epoch != context.epoch() {
        return Err(BlockError::OtherEpoch { expected: context.epoch(), found: block.epoch });
    }
    if context.stake(block.author).is_none() {
        return Err(BlockError::UnknownAuthor { author: block.author, size: context.size() });
    }
    let Some(parent_round) = block.round.checked_sub(1) else { return Err(BlockError::GenesisRound) };
    if block.transactions.len() > limits::MAX_TRANSACTIONS_PER_BLOCK {
        return Err(BlockError::TooManyTransactions { count: block.transactions.len() });
    }
    if block.commit_votes.len() > limits::MAX_COMMIT_VOTES_PER_BLOCK {
        return Err(BlockError::TooManyVotes { count: block.commit_votes.len() });
    }

    if block.ancestors.first().map(|own| own.author) != Some(block.author) {
        return Err(BlockError::NoOwnAncestor);
    }
    let mut seen = vec![false; context.size()];
    let mut stake = 0;
    for &ancestor in &block.ancestors {
        if ancestor.epoch != block.epoch {
            return Err(BlockError::AncestorOfOtherEpoch { ancestor });
        }
        let (Some(member), Some(seen)) = (context.stake(ancestor.author), seen.get_mut(ancestor.author as usize))
        else {
            return Err(BlockError::UnknownAncestorAuthor { ancestor });
        };
        if std::mem::replace(seen, true) {
            return Err(BlockError::RepeatedAncestorAuthor { ancestor });
        }
        if ancestor.round > parent_round {
            return Err(BlockError::AncestorNotLower { ancestor });
        }
        if ancestor.round == 0 && context.genesis_refs().get(ancestor.author as usize) != Some(&ancestor) {
            return Err(BlockError::NotGenesis { ancestor });
        }
        if ancestor.round == parent_round {
            // Each member counts once, so the sum is at most the committee's total and does not overflow.
            stake += member;
        }
    }
    context.check_quorum(stake).map_err(BlockError::NoParentQuorum)
}
